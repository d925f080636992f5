"""What one call to a model meant: plain facts, typed, with their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ._exchange import Arguments, Exchange, Failure, Outcome

Kind = Literal["generation", "embedding", "span", "trace", "feedback", "metric"]


@dataclass(slots=True)
class Usage:
    """Tokens and cost as the provider reported them. `None` means not reported, never zero."""

    input_tokens: int | None = None
    """Tokens of the prompt, cached ones included unless `cache_tokens_excluded` says otherwise."""
    output_tokens: int | None = None
    """Tokens of the answer, as reported: some leave reasoning out, see `usage.settled`."""
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    """All tokens written to the cache, however long they live there."""
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    text_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    text_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    cached_audio_tokens: int | None = None
    cached_image_tokens: int | None = None
    web_searches: int | None = None
    audio_seconds: float | None = None
    """Length of the audio that was billed by duration, seconds."""
    file_searches: int | None = None
    containers: int | None = None
    """Containers in which the model ran code."""
    request_cost_usd: float | None = None
    """Cost of what is charged beside tokens and has one price everywhere, USD."""
    cost_usd: float | None = None
    """Total cost that the provider, or the gateway, reported, USD."""
    input_cost_usd: float | None = None
    output_cost_usd: float | None = None
    estimated: bool = False
    """Whether a library counted the tokens, because the provider did not report them."""
    raw: Mapping[str, Any] | None = None
    """The provider's own usage object."""
    cache_tokens_excluded: bool | None = False
    """Whether tokens read from and written to the cache are counted beside the input; `None`
    where nobody said."""


@dataclass(slots=True)
class Helper:
    """Another model that worked for an answer: it is charged at its own price."""

    name: str
    """What it did, e.g. `advisor`."""
    model: str | None
    usage: Usage


@dataclass(slots=True)
class RequestFacts:
    """What a request asked for."""

    model: str | None = None
    input: Any = None
    instructions: Any = None
    """What a response was instructed to, which also leads its input."""
    tools: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The request's fields; privacy decides which may leave."""
    user: str | None = None
    """The end user that the request names to the provider."""
    characters: int | None = None
    """Length of the text to be spoken."""
    router_arguments: Arguments | None = None
    """What the request says of itself to a router such as OpenRouter: user, session, trace."""


@dataclass(slots=True)
class ResponseFacts:
    """What an answer said."""

    model: str | None = None
    output: Any = None
    """A list with one entry a choice; `None` when nothing came. Of a step, whatever it gave."""
    usage: Usage = field(default_factory=Usage)
    stop_reason: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    failure: Failure | None = None
    """Set when the answer itself says that the call failed."""
    cancelled: bool = False
    """Set when the answer says that the caller cancelled it (background responses)."""
    complete: bool = True
    """Whether the answer came to its own end; only a stream can lack it."""
    is_local: bool = False
    """Whether an engine of the caller's own answered: it costs nothing, but for their prices."""
    fast: bool = False
    """Whether the model ran in a mode that has prices of its own (Anthropic's fast mode)."""
    fell_back: bool = False
    """Whether another model than the requested one answered, and is charged."""
    inference_geo: str | None = None
    """Where the model ran, where that has a price of its own."""
    helpers: Sequence[Helper] = ()
    pending: bool = False
    """Whether the model has yet to run (a background response that is queued)."""
    background: bool = False
    """Whether the answer belongs to a background response."""
    created_at: float | None = None
    """When a background response was asked for, Unix seconds by the provider's clock."""
    upstream: str | None = None
    """The provider that a router chose."""
    sound_bytes: int | None = None
    """Bytes of the sound that came in events; `None`: the answer is the sound, or none came."""
    elapsed: float | None = None
    """Seconds the model worked, where the answer says so (background responses)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One finished call, ready to be told."""

    kind: Kind
    exchange: Exchange
    request: RequestFacts
    response: ResponseFacts
    provider: str
    base_url: str | None
    """Scheme, host and path; no credentials, no query."""
    latency: float | None
    """Seconds from the caller's call to its end, waits between retries included."""
    time_to_first_token: float | None
    """Seconds to the first content, reasoning or tool-call delta; streams only."""
    outcome: Outcome
    failure: Failure | None
    request_id: str | None
    retries: int | None
    """`None` where nobody said."""
    content_cut: int
    """Bytes of content that were too much to keep."""
    model: str | None = None
    """The requested model as the provider behind a gateway knows it; `None`: as requested."""
    aliases: bool = False
    """Whether the requested name may be one that only the gateway knows."""
    private: bool = False
    """Whether the library that told of the call was asked to keep content to itself."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further properties of ours, by their names."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """A span's `type`; a metric's `name` and `value`."""
