"""An OpenAI-compatible API with scripted responses, for tests and the demo."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import _echo as echo
from . import _echo_gemini as gemini
from ._echo_words import Said
from ._loopback import Handler, LoopbackServer

_VERSION = re.compile(r"^/v1(?:beta1?)?(?=/)")
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(slots=True)
class Reply:
    """One HTTP response, in pieces."""

    body: Sequence[bytes] = (b"",)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    """Seconds before the response, and between its pieces."""
    cut: bool = False
    """Whether the connection breaks after the last piece, without a proper end."""
    said: Said | None = None
    """The model's output, in the format of the request's API; replaces `body`."""

    @classmethod
    def text(cls, text: str, *, delay: float = 0.0) -> Reply:
        """Return a response in which the model says `text`, streamed if the request asks for it.

        It works for chat, responses, messages and Gemini's content. `delay` is that of a `Reply`.
        """
        return cls(delay=delay, said=Said(text))

    @classmethod
    def tool_call(cls, name: str, arguments: Mapping[str, Any], *, delay: float = 0.0) -> Reply:
        """Return a response in which the model calls the tool `name`; otherwise like `text`."""
        return cls(delay=delay, said=Said(tool=name, arguments=arguments))

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "scripted error",
        *,
        type: str | None = None,
        code: str | None = None,
        delay: float = 0.0,
        **headers: str,
    ) -> Reply:
        """Return an error in the format of OpenAI and Anthropic; for Gemini in Google's.

        `type` is the provider's error type; `None` means the one that matches `status`. The SDKs
        retry after 408, 409, 429, and 500 and above. Raises `ValueError` if `status` is not an
        error status.
        """
        if not 400 <= status < 600:
            raise ValueError(f"status must be that of an error, 400 to 599, not {status}")
        kind = type or _ERROR_TYPES.get(status, "api_error" if status >= 500 else "request_error")
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = {"type": "error", "error": error}
        return cls.json(body, status, delay=delay, cut=False, **headers)

    @classmethod
    def json(
        cls,
        body: Any,
        status: int = 200,
        *,
        delay: float = 0.0,
        cut: bool = False,
        **headers: str,
    ) -> Reply:
        """Return a JSON response. `delay` and `cut` are those of a `Reply`."""
        headers = {"content-type": "application/json", "x-request-id": "req_test", **headers}
        return cls([json.dumps(body).encode()], status, headers, delay, cut)

    @classmethod
    def stream(
        cls,
        events: Iterable[Any],
        *,
        done: bool = True,
        delay: float = 0.0,
        cut: bool = False,
        **headers: str,
    ) -> Reply:
        """Return server-sent events: each a JSON value, or bytes to send as they are.

        `delay` and `cut` are those of a `Reply`.
        """
        pieces = [e if isinstance(e, bytes) else b"data: %b\n\n" % _compact(e) for e in events]
        if done:
            pieces.append(b"data: [DONE]\n\n")
        headers = {"content-type": "text/event-stream", "x-request-id": "req_test", **headers}
        return cls(pieces, 200, headers, delay, cut)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    """The path with its query."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)


class _Handler(Handler):
    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.owner.answer_to(Received(self.command, self.path, headers, self.read_body()))
        with contextlib.suppress(ConnectionError):  # the caller may disconnect at any time
            self._send(reply)

    do_GET = do_DELETE = do_POST

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.delay)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in reply.body:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            time.sleep(reply.delay)
        if reply.cut:
            self._break()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _break(self) -> None:
        """Reset the connection, as a crashed server does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


class ScriptedProvider(LoopbackServer):
    """Responds to requests over HTTP with what was scripted for a path, else with an echo.

        with ScriptedProvider() as provider:
            provider.script("/chat/completions", Reply.json({...}))
            client = OpenAI(base_url=provider.base_url, api_key="test")

    Unscripted requests get the response of a model that repeats the last message, so that programs
    run without any script: chat, responses, messages, Gemini's content, completions, embeddings,
    images, audio, streams, tools and structured output.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Received] = []
        """Every request, in order of arrival."""
        self._scripts: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        """The `base_url` for the SDK."""
        return f"{self.url}/v1"

    def script(self, path: str, *replies: Reply) -> None:
        """Respond to the next requests to `path` (below the base URL) with these replies, in order.

        Raises `ValueError` if a reply is model output, but no model runs at `path`.
        """
        if any(reply.said for reply in replies) and not echo.speaks(path):
            raise ValueError(
                f"no model runs at {path!r}: Reply.text and Reply.tool_call work only for "
                "/chat/completions, /responses, /messages and /models/…:generateContent; script a "
                "Reply.json there"
            )
        self._scripts[path].extend(replies)

    def answer_to(self, request: Received) -> Reply:
        """Return the reply to a request; also for fakes that need no socket."""
        with self._lock:
            self.requests.append(request)
            path = _VERSION.sub("", request.path.partition("?")[0])
            scripts = self._scripts.get(path)
            scripted = scripts.popleft() if scripts else None
        if scripted is not None and scripted.said is None:
            return _in_format(path, scripted)
        reply = _echoed(path, request, scripted.said if scripted else None)
        if scripted is not None:
            reply.delay = scripted.delay
        return reply


def _in_format(path: str, reply: Reply) -> Reply:
    """Return an error in the format of Google's API where that is asked."""
    if reply.status < 400 or len(reply.body) != 1:
        return reply
    with contextlib.suppress(ValueError):  # not JSON
        return replace(reply, body=[gemini.error(path, reply.status, reply.body[0])])
    return reply


def _echoed(path: str, request: Received, said: Said | None) -> Reply:
    content_type = request.headers.get("content-type", "")
    kind, answer = echo.answer(path, content_type, request.body, said)
    if kind == "stream":
        return Reply.stream(answer, done=path in ("/chat/completions", "/completions"))
    if kind == "aws":
        return Reply(answer, 200, {"content-type": "application/vnd.amazon.eventstream"})
    if kind == "sound":
        return Reply([answer], 200, {"content-type": "audio/mpeg"})
    return Reply.json(answer, status=404 if kind == "missing" else 200)
