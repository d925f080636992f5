"""Middleware for web servers: each request gets an identity, and a shutdown loses nothing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from ._chain import Resumed
from ._checks import duration
from ._context import chain, context, continued
from ._delivery.lifecycle import aflush
from ._faults import is_the_programs, report
from ._observe.call_queue import call_queue
from ._propagation import read_headers
from .types import ContextArguments

Identify: TypeAlias = "Callable[[Any], ContextArguments | None]"
AsyncIdentify: TypeAlias = "Callable[[Any], Awaitable[ContextArguments | None]]"
Messages: TypeAlias = "Callable[..., Awaitable[Any]]"


def _checked(identify: Any) -> Any:
    if identify is not None and not callable(identify):
        raise TypeError(f"identify must be callable or None, not {type(identify).__name__}")
    return identify


class _Continued(NamedTuple):
    """The contents of a request's headers."""

    values: ContextArguments
    number: float | None
    """The number drawn for the trace; see `roots.Root`."""

    def block(self, found: ContextArguments | None) -> context:
        """Return the block of an identified request.

        Raises `TypeError` if `found` is not an identity.
        """
        given: dict[str, Any] = {**(found or {})}
        values: Any = {**self.values, **{k: v for k, v in given.items() if v is not None}}
        around = self.values.get("properties")
        if around is not None:
            values["properties"] = {**around, **(given.get("properties") or {})}
        return continued(values, self.number)

    def unidentified(self, error: Exception) -> context:
        """Return the block of a request that could not be identified, whatever its headers say."""
        if is_the_programs(error):
            raise error
        report("identify", error)
        return continued({**self.values, "distinct_id": None, "privacy_mode": True}, self.number)


def _continued(continues: bool, headers: Any) -> _Continued:
    return _Continued(*read_headers(headers)) if continues else _Continued({}, None)


class ASGIMiddleware:
    """Give each request of an ASGI app (Starlette, FastAPI, Django, …) an identity and a trace.

        app.add_middleware(posthog_llm.ASGIMiddleware, identify=who)

    They apply to the whole response, including streams and background tasks. When the server shuts
    down, everything is delivered before the app confirms its shutdown: `uvicorn` then ends the
    process by a signal, which runs no exit functions.

    - `identify(scope)`: returns the arguments of `posthog_llm.context`, such as
      `{"distinct_id": scope["user"].id}`, or `None`; sync or async. It takes precedence over the
      headers. If it fails, the request continues, and its calls are anonymous and private.
    - `continue_traces`: whether the request headers may set the trace and the user, as
      `continue_trace` reads them; use `False` if untrusted clients could send them.
    - `flush_timeout`: maximum seconds for the delivery when the server shuts down.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        identify: Identify | AsyncIdentify | None = None,
        continue_traces: bool = True,
        flush_timeout: float = 5.0,
    ) -> None:
        self.app = app
        self._identify = _checked(identify)
        self._continues = continue_traces
        self._flush_timeout = duration("flush_timeout", flush_timeout)

    async def __call__(self, scope: Any, receive: Messages, send: Messages) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(self.app, receive, send, self._flush_timeout).run(scope)
            return
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        continued = _continued(self._continues, scope.get("headers") or ())
        try:
            found: Any = None if self._identify is None else self._identify(scope)
            block = continued.block(await found if inspect.isawaitable(found) else found)
        except Exception as error:
            block = continued.unidentified(error)
        with block:
            await self.app(scope, receive, send)


class _Lifespan:
    """Forwards an app's lifespan, and delivers before its end; provides one if the app has none."""

    def __init__(self, app: Any, receive: Messages, send: Messages, timeout: float) -> None:
        self._app, self._receive, self._send, self._timeout = app, receive, send, timeout
        self._has_begun = self._has_answered = False

    async def run(self, scope: Any) -> None:
        try:
            await self._app(scope, self._received, self._sent)
        except Exception:
            if self._has_begun or self._has_answered:
                raise
        if not self._has_answered:  # it handles only requests, as Django does
            if not self._has_begun:
                await self._receive()
            await self._send({"type": "lifespan.startup.complete"})
            await self._receive()
            await self._sent({"type": "lifespan.shutdown.complete"})

    async def _received(self) -> Any:
        message = await self._receive()
        self._has_begun = True
        return message

    async def _sent(self, message: Any) -> None:
        self._has_answered = True
        if message["type"].startswith("lifespan.shutdown."):
            await self._delivered()
        await self._send(message)

    async def _delivered(self) -> None:
        try:
            call_queue.abandon_open()  # streams that nobody reads any more: the server is stopping
            await aflush(self._timeout)
        except Exception as error:
            if is_the_programs(error):
                raise
            report("flush", error)


class WSGIMiddleware:
    """Give each request of a WSGI app (Flask, Django, …) an identity and a trace.

        app.wsgi_app = posthog_llm.WSGIMiddleware(app.wsgi_app, identify=who)

    They apply to the whole response, even if it is generated while it is sent. `identify(environ)`
    and `continue_traces` are those of `ASGIMiddleware`. WSGI has no shutdown message: delivery
    happens at process exit.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        identify: Identify | None = None,
        continue_traces: bool = True,
    ) -> None:
        self.app = app
        self._identify = _checked(identify)
        self._continues = continue_traces

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        names = (name for name in environ if name.startswith("HTTP_"))
        request = {name[5:].replace("_", "-"): environ[name] for name in names}
        continued = _continued(self._continues, request)
        try:
            made = continued.block(None if self._identify is None else self._identify(environ))
        except Exception as error:
            made = continued.unidentified(error)
        block = Resumed(made, chain)
        try:
            with block:
                body = self.app(environ, start_response)
            if _is_file(body, environ):
                block.end()
                return body  # type: ignore[no-any-return]
            with block:
                return (_SizedBody if hasattr(body, "__len__") else _Body)(body, block)
        except BaseException as error:
            block.end(error)
            raise


def _is_file(body: Any, environ: Any) -> bool:
    """Whether a response is a file that the server can send by itself."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Body:
    """A WSGI response generated while it is sent, in the context of its request."""

    def __init__(self, body: Any, block: Resumed) -> None:
        self._body, self._pieces, self._block = body, iter(body), block

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        with self._block:
            piece: bytes = next(self._pieces)
            return piece

    def close(self) -> None:
        """Close the app's own response, as WSGI servers do."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                with self._block:
                    close()
        finally:
            self._block.end()


class _SizedBody(_Body):
    """One with a known number of pieces: for a single piece, servers set the Content-Length."""

    def __len__(self) -> int:
        return len(self._body)
