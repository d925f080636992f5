"""One trace through several services: headers out, headers in, for a whole app.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .arguments import ContextArguments
from .context import ambient, context, current

_TRACE = "x-posthog-llm-trace-id"
_PARENT = "x-posthog-llm-parent-id"
_SESSION = "x-posthog-llm-session-id"
_REPLAY = "x-posthog-session-id"
"""PostHog's own, sent by posthog-js: the session replay's id."""
_WHO = "x-posthog-distinct-id"
_W3C = "traceparent"
_TRACEPARENT = re.compile(r"[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}.*")
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
    known and fits into a header, and `traceparent`: of the active OpenTelemetry span, else with
    the trace's and the parent's ids where those are UUIDs, and ids derived from them otherwise.
    Send them to services of your own only: they say who asks.
    """
    here, around = current(), ambient()
    replay = around.session_id or (here.properties or {}).get(_REPLAY_PROPERTY)
    found = {
        _TRACE: here.trace_id,
        _PARENT: here.parent_id,
        _SESSION: here.session_id,
        _WHO.upper(): here.distinct_id or around.distinct_id,
        _REPLAY.upper(): replay,
    }
    told = {name: value for name, value in found.items() if value and not _UNFIT.search(value)}
    if around.otel:
        told[_W3C] = "00-{}-{}-01".format(*around.otel)
    elif here.trace_id:
        told[_W3C] = f"00-{_hex(here.trace_id, 32)}-{_hex(here.parent_id or here.trace_id, 16)}-01"
    return told


def _hex(identity: str, length: int) -> str:
    """Return an id as `length` hexadecimal digits: a UUID's own, or a digest."""
    try:
        return uuid.UUID(identity).hex[-length:]
    except ValueError:
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
    parts = _TRACEPARENT.fullmatch(found.get(_W3C, ""))
    if values["trace_id"] is None and parts and not set(parts.groups()) & set(_NOTHING):
        values["trace_id"], values["parent_id"] = parts.groups()
    return context(**values)


def _lowered(headers: Any) -> dict[str, str]:
    pairs = headers.items() if hasattr(headers, "items") else headers
    found = {_text(name).lower(): _text(value).strip() for name, value in pairs}
    return {name: value for name, value in found.items() if 0 < len(value) <= _LONGEST}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


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
        holds = continue_trace(request)
        with holds:
            body = self.app(environ, start_response)
        return _Body(body, holds)


class _Body:
    """A WSGI answer that is made while it is sent: what held for the request holds again."""

    def __init__(self, body: Any, holds: context) -> None:
        self._body, self._pieces, self._holds = body, iter(body), holds

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        with self._holds:
            piece: bytes = next(self._pieces)
            return piece

    def close(self) -> None:
        """Close the app's own answer, as WSGI servers do."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with self._holds:
                close()
