"""The helper models of a response, each a generation below the response's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .._exchange import Arguments, Exchange, Outcome, Scope
from .._record import Helper, Record, ResponseFacts, Routing
from . import call

_NAMESPACE = uuid.UUID("0b0f5a52-6a0e-5d0c-8f0a-5f5a7f3f9a11")
_SHARED = frozenset({"$ai_trace_id", "$ai_session_id"})
"""PostHog's own properties that apply to the whole trace, if the caller set them."""


def records(record: Record, first: Mapping[str, Any]) -> Iterator[Record]:
    """Yield a record for each helper of a response; `first` has the properties of its event.

    A cost reported by a gateway already includes the helpers, unless the caller's prices replace
    it: those are the prices of each model.
    """
    if record.response.usage.cost_usd is not None and not _is_replaced(record, first):
        return
    for number, helper in enumerate(record.response.helpers):
        yield _record(record, helper, number, first)


def _is_replaced(record: Record, first: Mapping[str, Any]) -> bool:
    has_prices = all(name in first for name in call.PRICES)
    provider = str(first.get("$ai_provider") or record.provider)
    return has_prices or call.own_cost(record, provider) is not None


def _record(record: Record, helper: Helper, number: int, first: Mapping[str, Any]) -> Record:
    exchange = record.exchange
    identity = str(uuid.uuid5(_NAMESPACE, f"{exchange.id}/{helper.name}/{number}"))
    place = Arguments(
        trace_id=first.get("$ai_trace_id"),
        parent_id=first.get("$ai_span_id"),
        span_id=identity,
        span_name=helper.name,
    )
    return replace(
        record,
        kind="generation",
        model=helper.model,
        exchange=_without_content(exchange, identity, _scope(exchange.scope, place)),
        request=replace(
            record.request,
            model=helper.model,
            input=None,
            instructions=None,
            tools=None,
            parameters={},
        ),
        response=ResponseFacts(
            model=helper.model, usage=helper.usage, response_id=record.response.response_id
        ),
        latency=None,
        time_to_first_token=None,
        outcome=Outcome.OK,
        failure=None,
        retries=0,
        content_cut=0,
        routing=Routing(),
    )


def _without_content(exchange: Exchange, identity: str, scope: Scope) -> Exchange:
    return replace(
        exchange,
        id=identity,
        scope=scope,
        streamed=False,
        request=None,
        body=None,
        chunks=(),
        tail=(),
        times=(),
        received=0,
        cut=0,
        content_dropped=0,
    )


def _scope(scope: Scope, place: Arguments) -> Scope:
    """Return the scope at its place in the trace, without the response's prices and counts."""
    own = replace(
        _without_numbers(scope.call),
        trace_id=place.trace_id,
        parent_id=place.parent_id,
        span_id=place.span_id,
        span_name=place.span_name,
    )
    return replace(
        scope,
        call=own,
        context=_without_numbers(scope.context),
        client=_without_numbers(scope.client),
        ambient=replace(scope.ambient, tags=_kept(scope.ambient.tags)),
    )


def _without_numbers(given: Arguments) -> Arguments:
    return replace(given, properties=_kept(given.properties)) if given.properties else given


def _kept(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in properties.items()
        if not str(name).startswith("$ai_") or name in _SHARED
    }
