"""What one model call meant: plain typed facts, with their units."""

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
    """Tokens of the prompt, including cached ones unless `cache_tokens_excluded` is set."""
    output_tokens: int | None = None
    """Tokens of the response as reported: some exclude reasoning, see `usage.normalized`."""
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
    """Length of audio billed by duration, in seconds."""
    images: int | None = None
    """Images made, where they are charged by number."""
    videos: int | None = None
    """Videos made, where they are charged by length."""
    file_searches: int | None = None
    containers: int | None = None
    """Containers in which the model ran code."""
    request_cost_usd: float | None = None
    """Cost of items charged besides tokens at one price everywhere, in USD."""
    cost_usd: float | None = None
    """Total cost reported by the provider or the gateway, in USD."""
    input_cost_usd: float | None = None
    output_cost_usd: float | None = None
    estimated: bool = False
    """Whether a library counted the tokens, because the provider did not report them."""
    raw: Mapping[str, Any] | None = None
    """The provider's own usage object."""
    cache_tokens_excluded: bool | None = False
    """Whether tokens read from and written to the cache are counted separately from the input;
    `None` if unknown."""


@dataclass(slots=True)
class Helper:
    """Another model that contributed to a response, charged at its own price."""

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
    """The instructions of a response, which also precede its input."""
    tools: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The request's fields; the privacy layer decides which may be sent."""
    user: str | None = None
    """The end user that the request names to the provider."""
    characters: int | None = None
    """Length of the text for speech, in characters."""
    router_arguments: Arguments | None = None
    """User, session and trace that the request names to a router such as OpenRouter."""
    full_name: str | None = None
    """The model with its provider's prefix, if the caller may have written it so (LiteLLM)."""


@dataclass(slots=True)
class ResponseFacts:
    """What a response contained."""

    model: str | None = None
    output: Any = None
    """A list with one entry per choice; `None` if there was none. For a step, its result."""
    usage: Usage = field(default_factory=Usage)
    stop_reason: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    failure: Failure | None = None
    """Set if the response itself reports that the call failed."""
    cancelled: bool = False
    """Set if the response reports that the caller cancelled it (background responses)."""
    complete: bool = True
    """Whether the response reached its own end; only a stream may not."""
    is_local: bool = False
    """Whether the caller's own engine responded: it is free unless the caller configures prices."""
    fast: bool = False
    """Whether the model ran in a mode with its own prices (Anthropic's fast mode)."""
    fell_back: bool = False
    """Whether another model than the requested one responded, and is charged."""
    fallback: str | None = None
    """The model that responded in place of the requested one, as the request lists it."""
    inference_geo: str | None = None
    """Where the model ran, if that has its own price."""
    helpers: Sequence[Helper] = ()
    pending: bool = False
    """Whether the model has yet to run (a background response that is queued)."""
    background: bool = False
    """Whether this belongs to a background response."""
    created_at: float | None = None
    """When a background response was requested, in Unix seconds by the provider's clock."""
    upstream: str | None = None
    """The provider that a router chose."""
    sound_bytes: int | None = None
    """Bytes of audio in events; `None` if the response itself is audio, or has none."""
    elapsed: float | None = None
    """Seconds that the model worked, if the response reports it (background responses)."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Which attempt of a gateway's request a call is. `None`: not reported."""

    retry_number: int | None = None
    fallback_number: int | None = None
    model_group: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One finished call, ready to be captured."""

    kind: Kind
    exchange: Exchange
    request: RequestFacts
    response: ResponseFacts
    provider: str
    base_url: str | None
    """Scheme, host and path; no credentials, no query."""
    latency: float | None
    """Seconds from the caller's call to its end, including waits between retries."""
    time_to_first_token: float | None
    """Seconds to the first content, reasoning or tool-call delta; streams only."""
    outcome: Outcome
    failure: Failure | None
    request_id: str | None
    retries: int | None
    """`None` if unknown."""
    content_cut: int
    """Bytes of content that were not kept, because there was too much."""
    model: str | None = None
    """The requested model's name at the provider behind a gateway; `None` means as requested."""
    aliases: bool = False
    """Whether the requested name may be one that only the gateway knows."""
    private: bool = False
    """Whether the library that reported the call was told to withhold content."""
    routing: Routing = Routing()
    cache_hit: bool = False
    """Whether a cache of a gateway's answered, and no model ran."""
    saved_cost_usd: float | None = None
    """What the cache saved, USD; `None`: not reported."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """A span's `type`, and what a framework says of it: `agent_name`, `agent_tools`,
    `agent_handoffs`, `agent_output_type`, `handoff_from`, `handoff_to`, `guardrail_triggered`,
    `mcp_server`. A metric's `name` and `value`."""
