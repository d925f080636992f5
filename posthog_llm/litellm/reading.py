"""What LiteLLM told of a call → one record, by the adapters that read the wire.

LiteLLM gives every provider's answer the shape of OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..exchange import Exchange, Outcome
from ..narrowing import is_list, is_mapping, mapping
from ..providers import usage
from ..providers.endpoints import ENDPOINTS, Endpoint
from ..providers.hosts import bare_url
from ..record import Answered, Asked, Record, Usage
from .told import Told, numbers, plain

_COUNTS_ITSELF = frozenset({"openai", "azure", "text-completion-openai"})
"""Providers that report a stream's tokens only when asked; LiteLLM guesses them otherwise."""
_MOST_PARTS = 200_000
"""Fields and items of an answer that are looked at."""
_EARLY = frozenset({Outcome.CANCELLED, Outcome.DROPPED, Outcome.CLOSED_EARLY})


def record(exchange: Exchange) -> Record:
    """Read what LiteLLM told of an attempt."""
    told: Told = exchange.content
    exchange.headers = told.headers
    exchange.status = _status(exchange)
    answered = _answered(exchange, told)
    asked = _asked(exchange, told)
    asked.named = told.names
    first = told.first_at if told.streamed else None
    is_early = exchange.outcome in _EARLY and answered.output is None
    return Record(
        kind=ENDPOINTS[exchange.endpoint].kind,
        exchange=exchange,
        asked=asked,
        answered=answered,
        provider=told.provider,
        base_url=bare_url(told.base_url),
        latency=exchange.ended,
        time_to_first_token=(
            None if first is None or is_early else max(0.0, first - exchange.started_at)
        ),
        outcome=exchange.outcome,
        failure=exchange.failure,
        request_id=_request_id(told.headers),
        retries=None,  # the SDK below may have some of its own
        content_cut=exchange.cut,
        private=told.is_private,
        extra={**told.routing, **_cached(told)},
    )


def _status(exchange: Exchange) -> int | None:
    if exchange.failure is not None:
        return exchange.failure.status
    return 200 if exchange.outcome is Outcome.OK and not exchange.content.cache_hit else None


def _request_id(headers: Mapping[str, Any]) -> str | None:
    found = headers.get("x-request-id") or headers.get("request-id")
    return found if isinstance(found, str) else None


def _cached(told: Told) -> dict[str, Any]:
    if not told.cache_hit:
        return {}
    saved = told.payload.get("saved_cache_cost")
    known = isinstance(saved, (int, float)) and saved > 0  # LiteLLM 1.108 says 0 of each
    return {"posthog_llm_cache_hit": True, "posthog_llm_saved_cost_usd": saved if known else None}


def _asked(exchange: Exchange, told: Told) -> Asked:
    body: dict[str, Any] = {**told.parameters, "model": told.model}
    exchange.uploads = told.uploads
    endpoint = ENDPOINTS[exchange.endpoint]
    if exchange.endpoint in ("transcription", "rerank"):
        # LiteLLM's own is the checksum of the sound, and the query as a message.
        told.input = body.get(endpoint.input_field)
    body[endpoint.input_field] = told.input
    return endpoint.asked(body, exchange)


def _answered(exchange: Exchange, told: Told) -> Answered:
    endpoint = ENDPOINTS[exchange.endpoint]
    answered = endpoint.answered(_body(endpoint, told), told.provider)
    if told.cache_hit:
        # Nothing ran: tokens would be priced by those versions that take no zero for a cost.
        answered.usage = Usage(cost_usd=0.0)
        return answered
    if exchange.outcome in _EARLY:
        # What LiteLLM makes of the pieces has an end and counts that no provider reported.
        answered.usage, answered.stop_reason, told.cost = Usage(), None, None
    elif told.streamed:
        _doubt(answered, told)
    _forget_fillings(answered.usage, told.model or "")
    if endpoint.kind == "embedding" and not answered.usage.output_tokens:
        answered.usage.output_tokens = None  # LiteLLM's own: an embedding has no output to count
    _settle_cost(answered.usage, told)
    return answered


def _body(endpoint: Endpoint, told: Told) -> Mapping[str, Any]:
    """Return the answer as a mapping, without the vectors of embeddings, and without blanks."""
    if endpoint.kind == "embedding" or endpoint.answers_in_sound:
        return mapping(_said(numbers(told.response)))
    # LiteLLM's own copy first: it writes its counts into the answer, in shapes of its own.
    copy = mapping(told.payload.get("response"))
    return mapping(_said(copy or plain(told.response)))


def _said(value: Any, levels: int = 50, left: list[int] | None = None) -> Any:
    """Leave out what says nothing: LiteLLM's answers hold every field that there could be.

    What is nested deeper than answers are, or has more parts, stays as it is.
    """
    left = [_MOST_PARTS] if left is None else left
    left[0] -= 1
    if not levels or left[0] < 0:
        return value
    if is_mapping(value):
        parts = ((name, item) for name, item in value.items() if item is not None)
        said = {name: _said(item, levels - 1, left) for name, item in parts}
        return {k: v for k, v in said.items() if v != {} or value[k] == {}}
    return [_said(item, levels - 1, left) for item in value] if is_list(value) else value


def _doubt(answered: Answered, told: Told) -> None:
    """Mark a stream's tokens that LiteLLM counted itself; forget those it could not count."""
    counted, options = answered.usage, mapping(told.parameters.get("stream_options"))
    if not counted.input_tokens and not counted.cache_read_tokens:
        answered.usage, told.cost = Usage(), None
        return
    raw = counted.raw or {}
    has_details = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    if told.provider in _COUNTS_ITSELF and not has_details and not options.get("include_usage"):
        counted.estimated = True


def _forget_fillings(counted: Usage, model: str) -> None:
    """Forget the kinds of output tokens that LiteLLM made of the text where nobody reported any.

    It fills in exactly these two, to the last token. Of Gemini's counts it makes them, too.
    """
    kinds = usage.details(counted.raw or {}, "completion_tokens_details", "output_tokens_details")
    names = ("reasoning_tokens", "text_tokens")
    if "gemini" in model.lower() or set(kinds) != set(names):
        return
    reasoning, text = (usage.count(kinds, name) or 0 for name in names)
    if reasoning + text == counted.output_tokens:
        counted.reasoning_tokens = counted.text_output_tokens = None


def _settle_cost(counted: Usage, told: Told) -> None:
    """Tell what LiteLLM reckons: PostHog takes a cost of both sides as it is."""
    if told.cost is None:
        return
    sides = mapping(told.payload.get("cost_breakdown"))
    counted.cost_usd = told.cost
    counted.input_cost_usd = usage.number(sides.get("input_cost"))
    counted.output_cost_usd = usage.number(sides.get("output_cost"))
