"""The properties of a model call.

https://posthog.com/docs/ai-observability/generations
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._exchange import Arguments, Outcome
from .._media import known_type
from .._narrowing import first_given
from .._privacy import CLOSED, WITHHELD, Cleaner, Withheld, is_known, parameters
from .._providers import usage
from .._providers.endpoints import ENDPOINTS
from .._providers.hosts import provider_named
from .._providers.model_name import batch_name, priced_name
from .._record import Record, Usage
from .._settings import settings
from .cost import Cost, billed_characters, cost_of, video_seconds
from .output import choices
from .private import summarized

_LONGEST_ERROR = 20_000
"""Maximum characters of an error's message or stack."""
_LONGEST_LABEL = 1000
TOKENS = {
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
PRICES = ("$ai_input_token_price", "$ai_output_token_price")
"""The caller's prices, USD per token, from which PostHog computes the cost if none is sent."""
COSTS = (
    *("$ai_total_cost_usd", "$ai_input_cost_usd", "$ai_output_cost_usd"),
    "$ai_cost_passthrough",
)


def properties(record: Record, who: Arguments, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the event properties of a model call."""
    request, response, exchange = record.request, record.response, record.exchange
    named = who.provider_override
    provider = provider_named(named) if named else record.provider
    model = _model(record, provider)
    counted = usage.normalized(response.usage, model, provider)
    return {
        "$ai_provider": provider or None,
        "$ai_model": model,
        "posthog_llm_requested_model": request.model,
        "posthog_llm_served_model": response.model,
        "$ai_model_parameters": _parameters(request.parameters, private, cleaner),
        "$ai_base_url": cleaner.address(record.base_url) if record.base_url else None,
        "$ai_http_status": _status(record),
        "$ai_stream": exchange.streamed,
        "$ai_latency": rounded(record.latency),
        "$ai_time_to_first_token": rounded(record.time_to_first_token),
        "$ai_service_tier": response.service_tier,
        "$ai_stop_reason": response.stop_reason,
        "posthog_llm_sample_rate": exchange.sample_rate,
        "posthog_llm_outcome": record.outcome.value,
        "posthog_llm_endpoint": exchange.endpoint,
        "posthog_llm_request_id": record.request_id,
        "posthog_llm_response_id": response.response_id,
        "posthog_llm_upstream_provider": response.upstream,
        "posthog_llm_retries": record.retries,
        "posthog_llm_last_attempt_latency": _last_attempt(record),
        **error(record, private, cleaner),
        **_content(record, private, cleaner),
        "posthog_llm_inference_geo": response.inference_geo,
        "posthog_llm_characters": billed_characters(record),
        "posthog_llm_video_seconds": video_seconds(record),
        **_counts(response.usage, counted, cleaner),
        **_costs(response.usage, cost_of(record, _given(counted, who), model, settings().prices)),
        "posthog_llm_retry_number": record.routing.retry_number,
        "posthog_llm_fallback_number": record.routing.fallback_number,
        "posthog_llm_model_group": record.routing.model_group,
        "posthog_llm_cache_hit": record.cache_hit or None,
        "posthog_llm_saved_cost_usd": record.saved_cost_usd,
    }


def _given(counted: Usage, who: Arguments) -> Usage:
    """Return the counts with those of the caller's properties, which override ours."""
    said = who.properties or {}
    counts: dict[str, Any] = {
        field: usage.count(said, name) for name, field in TOKENS.items() if name in said
    }
    return replace(counted, **{f: found for f, found in counts.items() if found is not None})


def own_cost(record: Record, provider: str) -> Cost | None:
    """Return a call's cost at the caller's prices; `None`: the reported one applies."""
    model = _model(record, provider)
    counted = usage.normalized(record.response.usage, model, provider)
    return cost_of(record, counted, model, settings().prices)


def _model(record: Record, provider: str) -> str | None:
    """Return the name that PostHog prices."""
    request, response = record.request, record.response
    named = record.model or response.fallback or request.model
    requested = None if response.fell_back else named
    aliases, fast = record.aliases, response.fast
    # If the gateway reports the real name, a served name that repeats the request adds nothing.
    served = None if record.model and response.model == request.model else response.model
    name = priced_name(requested, served, provider, aliases=aliases, fast=fast)
    return batch_name(name) if record.exchange.batch is not None else name


def _parameters(request: Mapping[str, Any], private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the model parameters; the redactor sees everything that is not a known word."""
    shown = parameters(request, private)
    try:
        return {
            name: cleaner.provider(value)
            if name not in CLOSED and is_known(name, value)
            else cleaner.parameter(name, value)
            for name, value in shown.items()
        }
    except Withheld:
        return parameters(request, private=True)


def _status(record: Record) -> int | None:
    """Return the HTTP status; 0 (PostHog's convention) if an observed call got no response."""
    found = record.exchange.status or (record.failure.status if record.failure else None)
    is_seen = record.exchange.reader is None
    return 0 if found is None and is_seen else found


def rounded(seconds: float | None) -> float | None:
    """Return seconds, rounded to the microsecond."""
    return None if seconds is None else round(seconds, 6)


def _last_attempt(record: Record) -> float | None:
    """Return the seconds of the last HTTP attempt alone, if there were several."""
    if not record.retries or record.latency is None:
        return None
    return rounded(max(0.0, record.latency - record.exchange.last_attempt))


def error(record: Record, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the error properties of a call or step."""
    failure = record.failure
    if record.outcome is not Outcome.ERROR:
        return {}
    if failure is None:
        return {"$ai_is_error": True, "$ai_error": "unknown"}
    kind = cleaner.label(failure.type)[:_LONGEST_LABEL]
    code = cleaner.label(failure.code)[:_LONGEST_LABEL] if failure.code else None
    summary = {"type": kind, "status": failure.status, "code": code}
    found = {k: v for k, v in summary.items() if v is not None}
    texts: dict[str, str | None] = {}
    if not private:
        texts = {n: _error_text(getattr(failure, n), cleaner) for n in ("message", "stack")}
    return {
        "$ai_is_error": True,
        "$ai_error": texts.get("message") or summarized(found),
        "$ai_error_type": kind,
        "posthog_llm_error": found,
        "posthog_llm_error_stack": texts.get("stack"),
    }


def _error_text(text: str | None, cleaner: Cleaner) -> str | None:
    try:
        return cleaner.error(text)[:_LONGEST_ERROR] if text else None
    except Withheld:
        return WITHHELD


def _content(record: Record, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    if private:
        return {}
    try:
        return {
            "$ai_input": cleaner.content(record.request.input),
            "$ai_output_choices": _output(record, cleaner),
            "$ai_instructions": cleaner.content(record.request.instructions),
            "$ai_tools": cleaner.content(record.request.tools),
        }
    except Withheld as reason:
        return {"posthog_llm_content_withheld": str(reason)}


def _output(record: Record, cleaner: Cleaner) -> Any:
    if record.kind == "embedding":
        return None
    if _is_sound(record.exchange.endpoint) and record.outcome is not Outcome.ERROR:
        return _sound(record)
    said = choices(cleaner.content(record.response.output))
    # For a helper model, neither input nor output is known.
    return said if said or record.request.input is None else []


def _is_sound(endpoint: str) -> bool:
    found = ENDPOINTS.get(endpoint)
    return found is not None and found.answers_in_sound


def _sound(record: Record) -> list[dict[str, Any]]:
    """Describe synthesized speech by type and size."""
    exchange = record.exchange
    said: str = (exchange.headers.get("content-type") if exchange.headers else None) or ""
    kind = known_type(said.partition(";")[0].strip().lower()) or "audio"
    size = first_given(record.response.sound_bytes, exchange.received)
    block = {"type": "audio", "data": f"[{kind}, {size} bytes]"}
    return [{"role": "assistant", "content": [block]}]


def _counts(reported: Usage, priced_as: Usage, cleaner: Cleaner) -> dict[str, Any]:
    """Return the usage properties; `priced_as` has the counts as PostHog defines them."""
    found: dict[str, Any] = {name: getattr(priced_as, field) for name, field in TOKENS.items()}
    if reported.raw is not None or reported.input_tokens is not None:
        # Otherwise PostHog decides by the model's name, but a Claude behind an OpenAI-style API
        # includes its cached tokens in the input.
        found["$ai_cache_reporting_exclusive"] = priced_as.cache_tokens_excluded
    if reported.raw is not None:
        found["$ai_tokens_source"] = "sdk"
        found["posthog_llm_tokens_estimated"] = reported.estimated or None
        found["$ai_usage"] = cleaner.provider(reported.raw)
    if priced_as.reasoning_tokens is None:
        found["posthog_llm_reasoning_tokens"] = reported.reasoning_tokens
    found["$ai_web_search_count"] = reported.web_searches
    found["posthog_llm_file_searches"] = reported.file_searches
    found["posthog_llm_containers"] = reported.containers
    found["posthog_llm_audio_seconds"] = reported.audio_seconds
    found["posthog_llm_images"] = reported.images
    found["posthog_llm_videos"] = reported.videos
    return found


def _costs(reported: Usage, own: Cost | None) -> dict[str, Any]:
    """Return the cost properties: by the caller's prices, else as reported."""
    if own is not None:
        return {
            "$ai_total_cost_usd": own.input + own.output + own.other,
            "$ai_input_cost_usd": own.input,
            "$ai_output_cost_usd": own.output,
            "$ai_request_cost_usd": own.other or None,
            "$ai_cost_passthrough": True,
        }
    if reported.cost_usd is None:
        return {"$ai_request_cost_usd": reported.request_cost_usd}
    return {
        "$ai_total_cost_usd": reported.cost_usd,
        "$ai_input_cost_usd": reported.input_cost_usd,
        "$ai_output_cost_usd": reported.output_cost_usd,
        "$ai_cost_passthrough": True,
    }
