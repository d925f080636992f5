"""One record → one PostHog event. The only place that knows PostHog's property names.

https://posthog.com/docs/ai-observability/generations
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .exchange import Ambient, Arguments, Failure, Outcome
from .identity import is_private, settled
from .privacy import CLOSED, Cleaner, Withheld, credentials_of, parameters
from .providers.model_name import priced_name
from .record import Record, Usage

LIBRARY = "posthog-llm"
try:
    VERSION = version(LIBRARY)
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0"

_NAMES = {"generation": "$ai_generation", "embedding": "$ai_embedding"}
CONTENT = frozenset(
    {"$ai_input", "$ai_output", "$ai_output_choices", "$ai_tools", "$ai_instructions"}
    | {"$ai_input_state", "$ai_output_state"}
)
"""Properties that hold what was said."""
CUT_MARK = "posthog_llm_content_cut_bytes"
_TOKENS = {
    "$ai_input_tokens": "input_tokens",
    "$ai_output_tokens": "output_tokens",
    "$ai_total_tokens": "total_tokens",
    "$ai_cache_read_input_tokens": "cache_read_tokens",
    "$ai_cache_creation_input_tokens": "cache_write_tokens",
    "$ai_cache_creation_5m_input_tokens": "cache_write_5m_tokens",
    "$ai_cache_creation_1h_input_tokens": "cache_write_1h_tokens",
    "$ai_reasoning_tokens": "reasoning_tokens",
    "$ai_text_input_tokens": "text_input_tokens",
    "$ai_audio_input_tokens": "audio_input_tokens",
    "$ai_image_input_tokens": "image_input_tokens",
    "$ai_text_output_tokens": "text_output_tokens",
    "$ai_audio_output_tokens": "audio_output_tokens",
    "$ai_image_output_tokens": "image_output_tokens",
    "$ai_cache_read_audio_tokens": "cached_audio_tokens",
}
_LARGE = 8 << 20
"""Bytes of a request and its answer beyond which their longest texts are cut."""
_LONGEST_TEXT = 256 << 10
"""Characters that are kept of a text in such a call."""
_TOO_LONG = 200
"""Characters of a distinct id beyond which PostHog refuses or cuts it."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the `posthog` client's `capture` takes."""

    name: str
    uuid: str
    distinct_id: str
    timestamp: datetime
    properties: dict[str, Any]
    groups: Mapping[str, Any] | None
    size: int
    """Bytes that came over the wire for it; about what its content weighs."""


def build(record: Record, private: bool) -> Event:
    """Tell a record as an event.

    `private` is what the destination says of privacy; the call, its context and its client
    may say so too, and any of them suffices.
    """
    exchange = record.exchange
    scope = exchange.scope
    named = getattr(exchange.client, "_posthog_request_user", False)
    who = settled(scope, record.asked.user if named else None, record.asked.named)
    private = private or record.private or is_private(scope)
    size = len(exchange.request or b"") + exchange.received
    longest = _LONGEST_TEXT if size > _LARGE else None
    secrets = credentials_of(exchange.client)
    cleaner = Cleaner(secrets, scope.redact, longest, keep_media=exchange.keep_media)
    trace_id = who.trace_id or str(uuid.uuid4())
    properties = {
        **_identity(who, exchange.id, trace_id, scope.ambient),
        "$ai_user": record.asked.named.distinct_id if record.asked.named else None,
        **_call(record, who, private, cleaner),
        **_content(record, private, cleaner),
        **_numbers(record.answered.usage),
    }
    properties = {name: value for name, value in properties.items() if value is not None}
    if cut := record.content_cut + cleaner.cut:
        properties[CUT_MARK] = cut
    _add_custom(properties, who, scope.ambient, cleaner)
    if private:
        properties = {k: v for k, v in properties.items() if k not in CONTENT}
    if who.distinct_id is None:
        properties.setdefault("$process_person_profile", False)
    return Event(
        name=_NAMES[record.kind],
        uuid=exchange.id,
        distinct_id=(who.distinct_id or trace_id)[:_TOO_LONG],
        timestamp=datetime.fromtimestamp(exchange.started_at, tz=timezone.utc),
        properties=properties,
        groups=cleaner.plain(who.groups) if who.groups else None,
        size=size,
    )


# -- who -----------------------------------------------------------------------------


def _identity(who: Arguments, event_id: str, trace_id: str, ambient: Ambient) -> dict[str, Any]:
    return {
        "$ai_lib": LIBRARY,
        "$ai_lib_version": VERSION,
        "$ai_trace_id": trace_id,
        "$ai_span_id": who.span_id or event_id,
        "$ai_parent_id": who.parent_id,
        "$ai_session_id": who.session_id,
        "$ai_span_name": who.span_name,
        "$ai_trace_name": who.trace_name,
        "$session_id": ambient.session_id,
    }


# -- what happened -------------------------------------------------------------------


def _call(record: Record, who: Arguments, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    asked, answered, exchange = record.asked, record.answered, record.exchange
    provider = who.provider_override or record.provider
    return {
        "$ai_provider": provider,
        "$ai_model": priced_name(asked.model, answered.model, provider, fast=answered.fast),
        "posthog_llm_requested_model": asked.model,
        "posthog_llm_served_model": answered.model,
        "$ai_model_parameters": _parameters(asked.parameters, private, cleaner),
        "$ai_base_url": record.base_url,
        "$ai_http_status": exchange.status if exchange.status else _status(record.failure),
        "$ai_stream": exchange.streamed,
        "$ai_latency": _rounded(record.latency),
        "$ai_time_to_first_token": _rounded(record.time_to_first_token),
        "$ai_service_tier": answered.service_tier,
        "$ai_stop_reason": answered.stop_reason,
        "posthog_llm_sample_rate": exchange.sample_rate,
        "posthog_llm_outcome": record.outcome.value,
        "posthog_llm_endpoint": exchange.endpoint,
        "posthog_llm_request_id": record.request_id,
        "posthog_llm_response_id": answered.response_id,
        "posthog_llm_upstream_provider": answered.upstream,
        "posthog_llm_retries": record.retries,
        "posthog_llm_last_attempt_latency": _last_attempt(record),
        **_error(record, private, cleaner),
        **record.extra,
    }


def _parameters(asked: Mapping[str, Any], private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the model's parameters; those that hold texts of the caller's pass the redactor."""
    shown = parameters(asked, private)
    try:
        return {
            name: cleaner.content(value) if name in CLOSED else cleaner.plain(value)
            for name, value in shown.items()
        }
    except Withheld:
        return parameters(asked, private=True)


def _status(failure: Failure | None) -> int | None:
    return failure.status if failure else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _last_attempt(record: Record) -> float | None:
    """Seconds of the last HTTP attempt alone, where there were several."""
    if not record.retries or record.latency is None:
        return None
    return _rounded(max(0.0, record.latency - record.exchange.last_attempt))


def _error(record: Record, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    failure = record.failure
    if record.outcome is not Outcome.ERROR:
        return {"$ai_is_error": False}
    if failure is None:
        return {"$ai_is_error": True, "$ai_error": "unknown"}
    summary = {"type": failure.type, "status": failure.status, "code": failure.code}
    told: dict[str, Any] = {k: v for k, v in summary.items() if v is not None}
    texts: dict[str, str | None] = {}
    if not private:
        texts = {n: _error_text(getattr(failure, n), cleaner) for n in ("message", "stack")}
    if texts.get("message"):
        told["message"] = texts["message"]
    return {
        "$ai_is_error": True,
        "$ai_error": told,
        "$ai_error_type": failure.type,
        "posthog_llm_error_stack": texts.get("stack"),
    }


def _error_text(text: str | None, cleaner: Cleaner) -> str | None:
    try:
        return cleaner.error(text)[:20_000] if text else None
    except Withheld:
        return "[withheld]"


def _content(record: Record, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    if private:
        return {}
    try:
        return {
            "$ai_input": cleaner.content(record.asked.input),
            "$ai_output_choices": _output(record, cleaner),
            "$ai_tools": cleaner.content(record.asked.tools),
        }
    except Withheld as reason:
        return {"posthog_llm_content_withheld": str(reason)}


def _output(record: Record, cleaner: Cleaner) -> Any:
    if record.kind == "embedding":
        return None
    if record.exchange.endpoint == "speech" and record.outcome is not Outcome.ERROR:
        return _sound(record)
    return cleaner.content(record.answered.output)


def _sound(record: Record) -> list[dict[str, Any]]:
    """Tell synthesised speech by type and size."""
    exchange = record.exchange
    kind = (exchange.headers.get("content-type") if exchange.headers else None) or "audio"
    block = {"type": "audio", "data": f"[{kind}, {exchange.received} bytes]"}
    return [{"role": "assistant", "content": [block]}]


def _numbers(usage: Usage) -> dict[str, Any]:
    told: dict[str, Any] = {name: getattr(usage, field) for name, field in _TOKENS.items()}
    if usage.raw is not None:
        # PostHog would go by the model's name: a Claude behind an OpenAI-style API has its
        # cached tokens inside the input nevertheless.
        told["$ai_cache_reporting_exclusive"] = usage.cached_apart
        told["$ai_tokens_source"] = "sdk"
        told["posthog_llm_tokens_estimated"] = usage.estimated or None
        told["$ai_usage"] = Cleaner().plain(usage.raw)
    told["$ai_web_search_count"] = usage.web_searches
    told["posthog_llm_audio_seconds"] = usage.audio_seconds
    if usage.cost_usd is not None:
        told["$ai_total_cost_usd"] = usage.cost_usd
        told["$ai_input_cost_usd"] = usage.input_cost_usd
        told["$ai_output_cost_usd"] = usage.output_cost_usd
        told["$ai_cost_passthrough"] = True
    return told


# -- what the caller adds ------------------------------------------------------------


def _add_custom(
    properties: dict[str, Any], who: Arguments, ambient: Ambient, cleaner: Cleaner
) -> None:
    """Add the caller's properties: tags of posthog's context below, arguments on top.

    A value that cannot be told degrades by itself.
    """
    for name, value in ambient.tags.items():
        properties.setdefault(str(name), _told(value, cleaner))
    for name, value in (who.properties or {}).items():
        if name in _TOKENS:
            properties["$ai_tokens_source"] = "passthrough"
        properties[str(name)] = _told(value, cleaner)


def _told(value: Any, cleaner: Cleaner) -> Any:
    try:
        return cleaner.plain(value)
    except Exception:  # an object whose own methods fail has only its type to tell
        return f"[{type(value).__name__}]"
