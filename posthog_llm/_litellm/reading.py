"""What LiteLLM reported about a call → one record, by the adapters for the wire formats.

LiteLLM converts every provider's response to OpenAI's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._exchange import Exchange, Outcome
from .._narrowing import is_list, is_mapping, mapping
from .._providers import usage
from .._providers.endpoints import ENDPOINTS, Endpoint
from .._providers.hosts import bare_url
from .._record import Record, RequestFacts, ResponseFacts, Usage
from .litellm_call import LiteLLMCall, numbers, plain

_COUNTS_ITSELF = frozenset({"openai", "azure", "text-completion-openai"})
"""Providers that report stream usage only on request; otherwise LiteLLM estimates it."""
_COUNTED = frozenset({"chat", "completion", "response", "embedding"})
"""Endpoints whose responses always cost tokens: a 0 from LiteLLM means unknown."""
_MOST_PARTS = 200_000
"""Maximum number of fields and items of a response that are cleaned."""
_EARLY = frozenset({Outcome.CANCELLED, Outcome.DROPPED, Outcome.CLOSED_EARLY})


def record(exchange: Exchange) -> Record:
    """Read what LiteLLM reported about an attempt."""
    call: LiteLLMCall = exchange.content
    exchange.headers = call.headers
    exchange.status = _status(exchange)
    response = _read_response(exchange, call)
    request = _read_request(exchange, call)
    request.router_arguments, request.full_name = call.names, call.full_name
    first = call.first_at if call.streamed else None
    is_early = exchange.outcome in _EARLY and response.output is None
    if exchange.outcome is Outcome.OK and response.failure is not None:
        exchange.outcome, exchange.failure = Outcome.ERROR, response.failure
    return Record(
        kind=ENDPOINTS[exchange.endpoint].kind,
        exchange=exchange,
        request=request,
        response=response,
        provider=call.provider,
        base_url=bare_url(call.base_url),
        latency=exchange.ended,
        time_to_first_token=(
            None if first is None or is_early else max(0.0, first - exchange.started_at)
        ),
        outcome=exchange.outcome,
        failure=exchange.failure,
        request_id=_request_id(call.headers),
        retries=None,  # the SDK below may have its own retries
        content_cut=exchange.cut,
        private=call.is_private,
        routing=call.routing,
        cache_hit=call.cache_hit,
        saved_cost_usd=_saved(call),
    )


def _status(exchange: Exchange) -> int | None:
    if exchange.failure is not None:
        return exchange.failure.status
    return 200 if exchange.outcome is Outcome.OK and not exchange.content.cache_hit else None


def _request_id(headers: Mapping[str, Any]) -> str | None:
    found = headers.get("x-request-id") or headers.get("request-id")
    return found if isinstance(found, str) else None


def _saved(call: LiteLLMCall) -> float | None:
    saved = call.payload.get("saved_cache_cost") if call.cache_hit else None
    return saved if isinstance(saved, (int, float)) and saved > 0 else None  # 1.108 says 0 of each


def _read_request(exchange: Exchange, call: LiteLLMCall) -> RequestFacts:
    body: dict[str, Any] = {**call.parameters, "model": call.model}
    exchange.uploads = call.uploads
    endpoint = ENDPOINTS[exchange.endpoint]
    if exchange.endpoint in ("transcription", "rerank"):
        # LiteLLM's own input is the checksum of the audio, and the query as a message.
        call.input = body.get(endpoint.input_field)
    body[endpoint.input_field] = call.input
    return endpoint.read_request(body, exchange)


def _read_response(exchange: Exchange, call: LiteLLMCall) -> ResponseFacts:
    endpoint = ENDPOINTS[exchange.endpoint]
    response = endpoint.read_response(_body(endpoint, call), call.provider)
    if call.cache_hit:
        # No model ran. Versions that ignore a cost of zero would price the tokens.
        response.usage = Usage(cost_usd=0.0)
        return response
    if exchange.outcome in _EARLY or (call.streamed and exchange.outcome is Outcome.ERROR):
        # LiteLLM builds a response with an end and counts that no provider reported.
        response.usage, response.stop_reason, call.cost = Usage(), None, None
    elif call.streamed:
        _doubt(response, call)
    elif endpoint.name in _COUNTED and not _has_counts(response.usage):
        response.usage = Usage()
    _drop_invented_details(response.usage, call.model or "")
    if endpoint.kind == "embedding" and not response.usage.output_tokens:
        response.usage.output_tokens = None  # added by LiteLLM: an embedding has no output tokens
    _set_cost(response.usage, call)
    return response


def _body(endpoint: Endpoint, call: LiteLLMCall) -> Mapping[str, Any]:
    """Return the response as a mapping, without embedding vectors and empty fields."""
    if endpoint.kind == "embedding" or endpoint.answers_in_sound:
        return mapping(_said(numbers(call.response)))
    # LiteLLM's own copy first: LiteLLM writes its counts into the response in other shapes.
    copy = mapping(call.payload.get("response"))
    return mapping(_said(copy or plain(call.response)))


def _said(value: Any, levels: int = 50, left: list[int] | None = None) -> Any:
    """Drop empty fields: LiteLLM's responses have every field that could exist.

    What is nested deeper than any response, or has more parts, stays as it is.
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


def _has_counts(counted: Usage) -> bool:
    """Whether anything was counted: LiteLLM fills in zeros if a service reports nothing."""
    return bool(counted.input_tokens or counted.output_tokens or counted.cache_read_tokens)


def _doubt(response: ResponseFacts, call: LiteLLMCall) -> None:
    """Mark stream tokens that LiteLLM counted itself; drop those it could not count."""
    counted, options = response.usage, mapping(call.parameters.get("stream_options"))
    if not counted.input_tokens and not counted.cache_read_tokens:
        response.usage, call.cost = Usage(), None
        return
    raw = counted.raw or {}
    has_details = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    if call.provider in _COUNTS_ITSELF and not has_details and not options.get("include_usage"):
        counted.estimated = True


def _drop_invented_details(counted: Usage, model: str) -> None:
    """Drop the kinds of output tokens that LiteLLM derived from the text if none were reported.

    It fills in exactly these two, and they add up to the output. It also derives them from Gemini's
    counts.
    """
    kinds = usage.details(counted.raw or {}, "completion_tokens_details", "output_tokens_details")
    names = ("reasoning_tokens", "text_tokens")
    if "gemini" in model.lower() or set(kinds) != set(names):
        return
    reasoning, text = (usage.count(kinds, name) or 0 for name in names)
    if reasoning + text == counted.output_tokens:
        counted.reasoning_tokens = counted.text_output_tokens = None


def _set_cost(counted: Usage, call: LiteLLMCall) -> None:
    """Set the cost that LiteLLM computed; PostHog uses the costs of both sides as they are."""
    if call.cost is None:
        return
    sides = mapping(call.payload.get("cost_breakdown"))
    counted.cost_usd = call.cost
    counted.input_cost_usd = usage.number(sides.get("input_cost"))
    counted.output_cost_usd = usage.number(sides.get("output_cost"))
