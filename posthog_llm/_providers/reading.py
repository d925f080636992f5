"""From an exchange to its record: decode, parse, and let the endpoint's adapter read."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._encoding import Decoding, decoders, ends_of, unfinished
from .._exchange import KEPT_BYTES, Exchange, Failure, Outcome, Scope
from .._faults import guarded
from .._media import without_blobs
from .._narrowing import is_mapping
from .._record import Record, RequestFacts, ResponseFacts, Usage
from .._turns import let_others_run
from . import (
    aws_event_stream,
    charset,
    costs,
    cut,
    fallbacks,
    intact,
    openrouter,
    sse,
)
from .endpoints import ENDPOINTS, Endpoint
from .hosts import (
    Route,
    Seen,
    bare_url,
    provider_named,
    provider_of_class,
    regional,
    reported_provider,
    route_of,
)
from .parsing import parse, without_vectors

_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_REQUEST_IDS = ("x-request-id", "apim-request-id", "request-id", "x-amzn-requestid")
_LEFT = (Outcome.CLOSED_EARLY, Outcome.DROPPED)
_EVENTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")
"""How an event stream begins; no JSON begins like this."""
_MOST_USAGE = 8192
"""Maximum size of a usage object in bytes."""


def read(exchange: Exchange) -> Record:
    """Read an exchange into a record. Anything unreadable is recorded as unknown."""
    endpoint = ENDPOINTS[exchange.endpoint]
    route = route_behind(exchange)
    provider, dialect = route.provider, route.dialect or route.provider
    if override := _override(exchange.scope):
        provider = dialect = override
    request = _read_request(endpoint, exchange, provider) or RequestFacts()
    response, first = _read_response(endpoint, exchange, dialect) or (ResponseFacts(), None)
    if route.gateway and not override:
        provider = reported_provider(route.gateway, response.upstream, response.model) or provider
    response.fallback = fallbacks.responded(request, response.model, dialect)
    if response.fallback is not None:
        route = route_behind(replace(exchange, model=response.fallback))
        provider = override or route.provider
    costs.doubt_zero(response.usage, provider)
    if cached := costs.is_cached(exchange.headers):
        # No model ran. Some PostHog versions ignore a cost of zero and would price the tokens.
        response.usage, response.helpers = Usage(cost_usd=0.0), ()
    if route.is_local and provider == route.provider and response.usage.cost_usd is None:
        response.usage.cost_usd, response.is_local = 0.0, True
    outcome, failure = _outcome(exchange, response)
    return Record(
        kind=endpoint.kind,
        exchange=exchange,
        request=request,
        response=response,
        provider=provider,
        base_url=bare_url(str(exchange.base_url or "")),
        model=route.model,
        aliases=route.aliases,
        latency=_latency(exchange, outcome),
        time_to_first_token=first,
        outcome=outcome,
        failure=failure,
        request_id=_request_id(exchange),
        retries=max(0, exchange.attempts - 1),
        content_cut=exchange.cut + exchange.content_dropped,
        cache_hit=bool(cached),
    )


def _override(scope: Scope) -> str | None:
    by_precedence = (scope.call, scope.context, scope.client)
    named = next((a.provider_override for a in by_precedence if a.provider_override), None)
    return provider_named(named) if named else None


def provider_behind(exchange: Exchange) -> tuple[str, str | None]:
    """Return the provider of an exchange and its base URL."""
    return route_behind(exchange).provider, bare_url(str(exchange.base_url or ""))


def route_behind(exchange: Exchange) -> Route:
    """Return the route of an exchange: by the client's class, else by address and headers."""
    client = exchange.client
    provider = provider_of_class(client)
    if getattr(client, "_posthog_openrouter", False):
        provider = openrouter.PROVIDER
    if provider is None:
        url = str(exchange.base_url or "")
        seen = Seen(url, exchange.model, exchange.sent, exchange.headers)
        return route_of(seen, ENDPOINTS[exchange.endpoint].provider)
    regions = (getattr(client, name, None) for name in ("region", "location"))
    region = next((found for found in regions if isinstance(found, str)), None)
    return Route(regional(provider, region))


def _request_id(exchange: Exchange) -> str | None:
    return next((found for name in _REQUEST_IDS if (found := _header(exchange, name))), None)


def _header(exchange: Exchange, name: str) -> str | None:
    value = exchange.headers.get(name) if exchange.headers is not None else None
    return value if isinstance(value, str) else None


def _latency(exchange: Exchange, outcome: Outcome) -> float:
    """As far as is known, an abandoned response ended with its last piece."""
    if outcome is Outcome.DROPPED and exchange.times:
        return exchange.times[-1] - exchange.clock
    return exchange.ended


def _outcome(exchange: Exchange, response: ResponseFacts) -> tuple[Outcome, Failure | None]:
    """Combine how the call ended with what the response itself reports."""
    if exchange.outcome is Outcome.ERROR and not _was_answered(exchange, response):
        return Outcome.ERROR, exchange.failure
    if response.failure is not None:
        return Outcome.ERROR, replace(response.failure, status=exchange.status)
    if response.cancelled:
        return Outcome.CANCELLED, None
    if exchange.outcome in _LEFT and response.complete and (response.output or response.usage.raw):
        return Outcome.OK, None
    if exchange.outcome is Outcome.OK and not response.complete and not exchange.cut:
        return Outcome.ERROR, Failure("IncompleteStream", "the stream ended before the answer did")
    return Outcome.OK if exchange.outcome is Outcome.ERROR else exchange.outcome, None


def _was_answered(exchange: Exchange, response: ResponseFacts) -> bool:
    """Whether the response was whole and readable, and the SDK raised for what the model said.

    It has an end or a form that the caller's own schema rejects; a stream does not show that. An
    error of the API has a status.
    """
    raised = exchange.failure
    readable = exchange.body is not None and bool(response.output) and response.failure is None
    return readable and raised is not None and raised.status is None


# -- the request ---------------------------------------------------------------------


@guarded
def _read_request(endpoint: Endpoint, exchange: Exchange, provider: str) -> RequestFacts:
    body: Any = exchange.form
    if exchange.request is not None:
        body = parse(_lean(exchange, exchange.request))
    let_others_run()
    body = body if is_mapping(body) else {}
    request = endpoint.read_request(body, exchange)
    request.user = request.user or _user(body)
    if provider == openrouter.PROVIDER:
        session = exchange.sent.get(openrouter.SESSION_HEADER) if exchange.sent else None
        request.router_arguments = openrouter.names(body, session)
    return request


def _user(body: Mapping[str, Any]) -> str | None:
    named = (body.get("safety_identifier"), body.get("user"))
    return next((user for user in named if isinstance(user, str) and user), None)


def _lean(exchange: Exchange, body: bytes) -> bytes:
    return body if exchange.keep_media else without_blobs(body)


# -- the answer ----------------------------------------------------------------------


@guarded
def _read_response(
    endpoint: Endpoint, exchange: Exchange, provider: str
) -> tuple[ResponseFacts, float | None]:
    """Read the response, and the seconds to its first token if it was streamed."""
    pieces, corrupt = _decoded(exchange)
    body = b"".join(pieces)
    kind = (_header(exchange, "content-type") or "").lower()
    if not _is_stream(exchange, kind, body):
        plain = _body(endpoint, exchange, kind, body)
        response = endpoint.read_response(plain, provider)
        costs.note(response.usage, plain, exchange.headers)
        response.failure = response.failure or corrupt or _unreadable(endpoint, exchange, plain)
        return response, None
    if b"\r" in body and aws_event_stream.CONTENT_TYPE not in kind:
        pieces = list(sse.lines_unified(pieces))
        body = b"".join(pieces)
    folded, corrupt = _folded(endpoint, exchange, kind, body, corrupt)
    _find_usage(folded.body, exchange, body)
    response = endpoint.read_response(folded.body, provider)
    costs.note(response.usage, folded.body, exchange.headers)
    response.complete = folded.complete
    response.failure = response.failure or corrupt
    arrived = _time_of(folded.first, pieces, exchange.times)
    return response, None if arrived is None else arrived - exchange.clock


def _unreadable(endpoint: Endpoint, exchange: Exchange, plain: Mapping[str, Any]) -> Failure | None:
    """Return the failure of an SDK that parses a response only after its request has returned."""
    if not endpoint.is_parsed_late or plain or not exchange.body or exchange.cut:
        return None
    try:
        json.loads(exchange.body)
    except ValueError as error:
        return Failure(type(error).__name__, str(error))
    return None


def _folded(
    endpoint: Endpoint, exchange: Exchange, kind: str, body: bytes, corrupt: Failure | None
) -> tuple[sse.Folded, Failure | None]:
    """Fold a stream's events; if it was closed early, only those that the SDK can have read.

    `corrupt` says why the encoded body could not be decoded further. Also returns the first failure
    in the stream, if any.
    """
    framed = aws_event_stream.CONTENT_TYPE in kind
    named = endpoint.names_events
    if not _was_left(exchange):
        folded = endpoint.fold(_events(body, framed, named))
        if folded.complete and not named:
            return folded, None
        return folded, corrupt or (None if framed or folded.complete else intact.last_lines(body))
    body, broken = (aws_event_stream.intact if framed else intact.decodable)(body)
    events = intact.ReadableEvents(_events(body, framed, named), named)
    folded = endpoint.fold(events)
    return folded, None if events.done else events.failure or broken or corrupt


def _events(body: bytes, framed: bool, named: bool) -> Iterable[sse.Event]:
    return aws_event_stream.events(body) if framed else sse.events(body, named)


def _was_left(exchange: Exchange) -> bool:
    """Whether the caller or the SDK closed the response, and all that was received is here."""
    return exchange.outcome in _LEFT and not exchange.cut


def _is_stream(exchange: Exchange, kind: str, body: bytes) -> bool:
    """Whether a response is an event stream: by content type, by request, and by its first bytes.

    If streaming was not requested, the SDK reads JSON whatever the content type says.
    """
    if aws_event_stream.CONTENT_TYPE in kind:
        return True
    said, looks = "text/event-stream" in kind, _EVENTS.match(body) is not None
    return (said or looks) if exchange.streamed else (said and looks)


def _body(endpoint: Endpoint, exchange: Exchange, kind: str, body: bytes) -> Mapping[str, Any]:
    """Parse a non-streamed response; plain text (as transcriptions return) is kept as text."""
    exchange.received = exchange.received or len(body)
    text = charset.in_utf8(body)
    if endpoint.kind == "embedding":
        text = without_vectors(text)
    parsed = parse(_lean(exchange, text))
    if is_mapping(parsed):
        return parsed
    if endpoint.answers_in_text and body:
        return {"text": charset.text(kind, body).rstrip("\n")}
    found: dict[str, Any] = {}
    _find_usage(found, exchange, body, streamed=False)
    if model := _MODEL.search(body) if found else None:
        found["model"] = model.group(1).decode(errors="replace")
    return found


def _decoded(exchange: Exchange) -> tuple[list[bytes], Failure | None]:
    """Decode the body's content encoding, piece by piece, and return the failure, if any."""
    if exchange.body is not None:
        return [exchange.body], None
    pieces = [*exchange.chunks, exchange.last_begun, *exchange.tail]
    exchange.received = exchange.received or sum(map(len, pieces)) + exchange.cut
    if not exchange.encoding:
        return pieces, None
    codecs = decoders(exchange.encoding)
    decoding = Decoding(pieces, codecs)
    plain, lost = ends_of(decoding, KEPT_BYTES)  # a few bytes may expand to a gigabyte
    exchange.cut += lost
    error = decoding.error
    if error is None and exchange.outcome is Outcome.OK:
        error = unfinished(codecs)
    if exchange.failure is not None:  # the failure that the reader saw
        return plain, exchange.failure
    return plain, Failure("DecodingError", str(error)) if error and not exchange.cut else None


def _time_of(offset: int | None, pieces: list[bytes], times: Sequence[float]) -> float | None:
    """Return the clock time at which the byte at `offset` arrived."""
    if offset is None:
        return None
    ends = list(itertools.accumulate(map(len, pieces)))
    index = bisect_right(ends, offset)
    return times[index] if index < len(times) else None


def _find_usage(
    folded: dict[str, Any], exchange: Exchange, body: bytes, *, streamed: bool = True
) -> None:
    """Find the usage of a response whose middle was cut out, and the fields beside it."""
    if not exchange.cut or folded.get("usage"):
        return
    folded.update(cut.fields(body, streamed=streamed))
    if folded.get("usage"):
        return
    at = body.find(b"{", body.rfind(b'"usage"') + 1)
    with contextlib.suppress(ValueError):  # the usage was cut as well
        text = body[at : at + _MOST_USAGE].decode(errors="replace")
        folded["usage"], _ = json.JSONDecoder().raw_decode(text)
