"""Arguments by name, as type checkers and editors see them: for `**arguments: Unpack[...]`.

    def ask(question: str, **posthog: Unpack[CallArguments]) -> str: ...

Every argument may be left out. `None` means the same as leaving it out, unless its line says
otherwise. The classes are the list of names that the package itself checks by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from uuid import UUID

    from typing_extensions import Required


class Destination(Protocol):
    """Where events go: a `posthog.Posthog`, the `posthog` module, a `Project`, a fake of yours."""

    def capture(self, *args: Any, **kwargs: Any) -> Any:
        """Send one event."""


class CallArguments(TypedDict, total=False):
    """What every method that runs a model takes, beside the SDK's own arguments."""

    posthog_distinct_id: str | int | UUID | None
    """Who asked: the id of a person in PostHog. Without it the event is anonymous."""
    posthog_trace_id: str | int | UUID | None
    """Trace that the call belongs to; without it the call is a trace of its own."""
    posthog_session_id: str | int | UUID | None
    """Session that the trace belongs to, such as a conversation."""
    posthog_span_id: str | int | UUID | None
    """Id of the call itself in its trace; one is made otherwise."""
    posthog_parent_id: str | int | UUID | None
    """Id of the trace or span that the call is a step of."""
    posthog_span_name: str | None
    """Name of the call in the trace view, such as `summarize`."""
    posthog_trace_name: str | None
    """Name of the whole trace in the trace view."""
    posthog_properties: Mapping[str, Any] | None
    """Custom properties of the event."""
    posthog_groups: Mapping[str, Any] | None
    """Groups of the event, type to key, such as `{"company": "acme"}`."""
    posthog_privacy_mode: bool | None
    """Whether content is withheld; `False` undoes the client's own default alone."""
    posthog_provider_override: str | None
    """Provider by whose name PostHog looks up the price, such as `openai`."""
    posthog_client: Destination | None
    """Where the event goes; without it, where the environment says."""
    posthog_capture: bool | None
    """Whether the call becomes an event; `False` and it does not."""


class ClientArguments(CallArguments, total=False):
    """What a client takes, beside the SDK's own: defaults of its calls, and its settings."""

    posthog_stream_usage: bool
    """Whether streams ask for their token usage, unseen by the caller; `True` by default."""
    posthog_redact: Callable[[str], str | None] | None
    """Sees each text of the content before it leaves; returns what is to leave."""
    posthog_request_user: bool
    """Whether the user that a request names to the provider is who asked; `False` by default."""
    posthog_openrouter: bool
    """Whether the client speaks to OpenRouter through a proxy of yours; `False` by default."""


class LoggerArguments(CallArguments, total=False):
    """What LiteLLM's callback takes: defaults of all calls, and its settings."""

    posthog_redact: Callable[[str], str | None] | None
    """Sees each text of the content before it leaves; returns what is to leave."""
    groups: Mapping[str, str]
    """Groups by what LiteLLM's gateway knows of the key, such as `{"team": "team_id"}`."""
    properties: Sequence[str]
    """What LiteLLM's gateway knows of the key that becomes a property, such as `key_alias`."""
    turn_off_message_logging: bool
    """LiteLLM's own: `True` withholds content, as `posthog_privacy_mode` does."""
    message_logging: bool
    """LiteLLM's own: `False` withholds content, as `posthog_privacy_mode` does."""


class WhoArguments(TypedDict, total=False):
    """Who asked, and what holds of them."""

    distinct_id: str | int | UUID | None
    """Who asked: the id of a person in PostHog. Without it the event is anonymous."""
    session_id: str | int | UUID | None
    """Session that the trace belongs to, such as a conversation."""
    properties: Mapping[str, Any] | None
    """Custom properties of the event."""
    groups: Mapping[str, Any] | None
    """Groups of the event, type to key, such as `{"company": "acme"}`."""
    posthog_client: Destination | None
    """Where the event goes; without it, where the environment says."""


class TraceArguments(WhoArguments, total=False):
    """What `trace` takes by name, beside its own."""

    trace_id: str | int | UUID | None
    """Id of the trace; one is made otherwise."""
    privacy_mode: bool | None
    """Whether content is withheld; `False` undoes the client's own default alone."""


class StepArguments(TraceArguments, total=False):
    """Where in a trace a call stands."""

    span_id: str | int | UUID | None
    """Id of the call itself in its trace; one is made otherwise."""
    parent_id: str | int | UUID | None
    """Id of the trace or span that the call is a step of."""
    span_name: str | None
    """Name of the call in the trace view, such as `summarize`."""
    trace_name: str | None
    """Name of the whole trace in the trace view."""


class ContextArguments(StepArguments, total=False):
    """What `context` takes."""

    provider_override: str | None
    """Provider by whose name PostHog looks up the price, such as `openai`."""
    capture: bool | None
    """Whether calls become events; `False` and they do not."""


class GenerationArguments(StepArguments, total=False):
    """What `capture_generation`, `capture_embedding` and `generation` take."""

    model: Required[str]
    """The model's name, by which PostHog prices the call."""
    provider: str | None
    """The provider's name, such as `openai`, or one of your own."""
    input: Any
    """Messages, or a text."""
    output: Any
    """A text, a message, or a list of them."""
    tools: Any
    """Tools that the model was given."""
    parameters: Mapping[str, Any] | None
    """Parameters of the request; an allow-list decides which leave."""
    input_tokens: int | None
    """Tokens of the input; unknown without it, and 0 is priced as free."""
    output_tokens: int | None
    """Tokens of the output, reasoning included."""
    total_tokens: int | None
    """Tokens of both, as the provider counts them."""
    cache_read_tokens: int | None
    """Tokens of the input that were read from the provider's cache."""
    cache_write_tokens: int | None
    """Tokens of the input that were written to the provider's cache."""
    cache_write_5m_tokens: int | None
    """Of `cache_write_tokens`, those that are kept for 5 minutes."""
    cache_write_1h_tokens: int | None
    """Of `cache_write_tokens`, those that are kept for an hour."""
    reasoning_tokens: int | None
    """Tokens of the output that the model reasoned with."""
    audio_input_tokens: int | None
    """Tokens of the input that are sound."""
    audio_output_tokens: int | None
    """Tokens of the output that are sound."""
    image_input_tokens: int | None
    """Tokens of the input that are pictures."""
    image_output_tokens: int | None
    """Tokens of the output that are pictures."""
    web_searches: int | None
    """Searches of the web that the provider made and charges."""
    cache_tokens_excluded: bool | None
    """Whether cached tokens are counted beside the input, as Anthropic does."""
    latency: float | None
    """How long the call took, seconds."""
    time_to_first_token: float | None
    """From the call's start to its first token, seconds."""
    timestamp: float | None
    """When the call started, Unix seconds; `latency` before now otherwise."""
    stream: bool | None
    """Whether the answer was streamed."""
    http_status: int | None
    """HTTP status of the answer."""
    base_url: str | None
    """URL of the service; its query and credentials do not leave."""
    stop_reason: str | None
    """Why the model stopped, in the provider's word, such as `stop`."""
    service_tier: str | None
    """Tier that the provider charged."""
    response_id: str | None
    """The provider's id of the answer."""
    error: BaseException | str | None
    """Why the call failed; the event is then an error."""
    total_cost_usd: float | None
    """What the call cost, USD; PostHog takes it as it is."""
    input_cost_usd: float | None
    """What the input cost, USD; together with `output_cost_usd`."""
    output_cost_usd: float | None
    """What the output cost, USD; together with `input_cost_usd`."""
