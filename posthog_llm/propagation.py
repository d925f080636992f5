"""One trace through several services: headers out, headers in, for a whole app.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .arguments import ContextArguments
from .chain import Resumed
from .context import ambient, chain, context, continued
from .exchange import Arguments
from .narrowing import is_sequence

_TRACE = "x-posthog-llm-trace-id"
_PARENT = "x-posthog-llm-parent-id"
_SESSION = "x-posthog-llm-session-id"
_REPLAY = "x-posthog-session-id"
"""PostHog's own, sent by posthog-js: the session replay's id."""
_WHO = "x-posthog-distinct-id"
_W3C = "traceparent"
_SAMPLING = "x-posthog-llm-sampling"
"""The number that was drawn for the trace, so that each service keeps it or none does."""
_NUMBER = re.compile(r"0\.[0-9]{1,9}")
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII
)
_NOTHING = ("0" * 32, "0" * 16)
_LONGEST = 200
"""Characters of a header that are taken for an id."""
_UNFIT = re.compile(r"[^\x21-\x7e]")
_REPLAY_PROPERTY = "$session_id"


def headers() -> dict[str, str]:
    """Return the headers by which another service continues what holds here; maybe none.

        httpx.post(url, headers=posthog_llm.headers())

    `x-posthog-llm-trace-id`, `x-posthog-llm-parent-id`, `x-posthog-llm-session-id`,
    `X-POSTHOG-DISTINCT-ID` and `X-POSTHOG-SESSION-ID` (of a session replay), each where it is
    known and fits into a header; `x-posthog-llm-sampling`, by which each service keeps the
    trace or none does; and `traceparent`: of the active OpenTelemetry span, else with the
    trace's and the parent's ids where those are UUIDs, and ids derived from them otherwise.
    Send them to services of your own only: they say who asks.
    """
    link, around = chain.get(), ambient()
    here: Arguments = link.values
    replay = around.session_id or (here.properties or {}).get(_REPLAY_PROPERTY)
    found = {
        _TRACE: here.trace_id,
        _PARENT: here.parent_id,
        _SESSION: here.session_id,
        _WHO.upper(): here.distinct_id or around.distinct_id,
        _REPLAY.upper(): replay,
    }
    sent = {name: told for name, value in found.items() if (told := _told(value))}
    if link.root is not None:
        sent[_SAMPLING] = f"{link.root.draw.number:.9f}"
    if around.otel:
        sent[_W3C] = "00-{}-{}-01".format(*around.otel)
    elif here.trace_id:
        sent[_W3C] = f"00-{_hex(here.trace_id, 32)}-{_hex(here.parent_id or here.trace_id, 16)}-01"
    return sent


def _told(value: Any) -> str | None:
    """Return an id as a header says it; `None`: there is none, or no header can hold it."""
    text = _text(value)
    return text if text and len(text) <= _LONGEST and not _UNFIT.search(text) else None


def _hex(identity: str, length: int) -> str:
    """Return an id as `length` hexadecimal digits: a UUID's own, or a digest."""
    with contextlib.suppress(ValueError):
        digits = uuid.UUID(identity).hex[-length:]
        if digits not in _NOTHING:
            return digits
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=length // 2)
    return digest.hexdigest()


def continue_trace(headers: Mapping[str, str] | Iterable[tuple[Any, Any]]) -> context:
    """Return a `context` with what the headers of a request say: the trace, who asks.

        with posthog_llm.continue_trace(request.headers):
            ...

    Takes a mapping, or pairs of texts or bytes, in any case. Reads what `headers` gives, and
    of a request without our own headers W3C's `traceparent`. What is no id is as good as absent.
    """
    found = _lowered(headers)
    values: ContextArguments = {
        "trace_id": found.get(_TRACE),
        "parent_id": found.get(_PARENT),
        "session_id": found.get(_SESSION),
        "distinct_id": found.get(_WHO),
        "properties": {_REPLAY_PROPERTY: found[_REPLAY]} if _REPLAY in found else None,
    }
    if values["trace_id"] is None and (ids := _traceparent(found.get(_W3C, ""))):
        values["trace_id"], values["parent_id"] = ids[0], values["parent_id"] or ids[1]
    number = found.get(_SAMPLING, "")
    return continued(values, float(number) if _NUMBER.fullmatch(number) else None)


def _traceparent(value: str) -> tuple[str, str] | None:
    parts = _TRACEPARENT.fullmatch(value)
    if parts is None:
        return None
    version, trace_id, parent_id, more = parts.groups()
    if trace_id in _NOTHING or parent_id in _NOTHING or (version == "00" and more):
        return None
    return trace_id, parent_id


def _lowered(headers: Any) -> dict[str, str]:
    """Return the headers that are ids, by their names in lower case."""
    pairs: Any = headers.items() if hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    for pair in pairs if hasattr(pairs, "__iter__") else ():
        if is_sequence(pair) and len(pair) == 2:
            name, value = _text(pair[0]).lower(), _text(pair[1]).strip(" \t")
            if 0 < len(value) <= _LONGEST and value.isprintable():
                found[name] = value
    return found


def _text(value: Any) -> str:
    """Return an id as a text; what is none is empty."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, (str, int, uuid.UUID)) or isinstance(value, bool):
        return ""
    try:
        return str(value)
    except ValueError:  # an int of thousands of digits
        return ""


class ASGIMiddleware:
    """Continue the trace of each request in an ASGI app (Starlette, FastAPI, Django, …).

    app = posthog_llm.ASGIMiddleware(app), or app.add_middleware(posthog_llm.ASGIMiddleware)
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        async with continue_trace(scope.get("headers") or ()):
            await self.app(scope, receive, send)


class WSGIMiddleware:
    """Continue the trace of each request in a WSGI app (Flask, Django, …).

    app.wsgi_app = posthog_llm.WSGIMiddleware(app.wsgi_app)
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        names = (name for name in environ if name.startswith("HTTP_"))
        request = {name[5:].replace("_", "-"): environ[name] for name in names}
        block = Resumed(continue_trace(request), chain)
        try:
            with block:
                body = self.app(environ, start_response)
                return (_SizedBody if hasattr(body, "__len__") else _Body)(body, block)
        except BaseException as error:
            block.end(error)
            raise


class _Body:
    """A WSGI answer that is made while it is sent: what held for the request holds again."""

    def __init__(self, body: Any, block: Resumed) -> None:
        self._body, self._pieces, self._block = body, iter(body), block

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        with self._block:
            piece: bytes = next(self._pieces)
            return piece

    def close(self) -> None:
        """Close the app's own answer, as WSGI servers do."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                with self._block:
                    close()
        finally:
            self._block.end()


class _SizedBody(_Body):
    """One whose number of pieces is known: of one piece, servers make the Content-Length."""

    def __len__(self) -> int:
        return len(self._body)
