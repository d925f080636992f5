"""A small HTTP/1.1 server on 127.0.0.1, in its own thread."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.request import getproxies, getproxies_environment

Self = TypeVar("Self", bound="LoopbackServer")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def server_bind(self) -> None:
        """Listen without looking up this machine's name, which may use the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early: tests do that on purpose."""


class _Bypass:
    """Keeps clients in this process from using a proxy for these servers, while any runs.

    Most HTTP clients read `HTTP_PROXY`, and 127.0.0.1 is another machine for a remote proxy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._before: str | None = None
        self._ours: str | None = None

    def enter(self) -> None:
        with self._lock:
            self._running += 1
            if self._running > 1 or (getproxies() and not getproxies_environment()):
                return  # the variable would hide proxies that the system configures
            self._before = os.environ.get("no_proxy")
            hosts = (self._before or os.environ.get("NO_PROXY") or "").split(",")
            if not {_HOST, "*"} & {host.strip() for host in hosts}:
                self._ours = os.environ["no_proxy"] = ",".join([*filter(None, hosts), _HOST])

    def leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running or self._ours is None:
                return
            if os.environ.get("no_proxy") == self._ours:  # otherwise it was changed since
                del os.environ["no_proxy"]
                if self._before is not None:
                    os.environ["no_proxy"] = self._before
            self._ours = None


_HOST = "127.0.0.1"
_bypass = _Bypass()


class LoopbackServer:
    """Start with `with` or `start()`, which sets `url`."""

    handler: type[BaseHTTPRequestHandler]

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._port = 0
        self.stopping = threading.Event()
        """Set while the server is stopped; a hanging handler stops waiting then."""

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`. Raises `RuntimeError` before `start()`."""
        if not self._port:
            raise RuntimeError(f"{type(self).__name__} is not running: use `with` or start()")
        return f"http://{_HOST}:{self._port}"

    def start(self: Self) -> Self:
        """Listen; after a `stop()`, on the same port as before."""
        self._server = _Server((_HOST, self._port), self.handler)
        self._port = self._server.server_address[1]
        self.stopping.clear()
        self._server.owner = self  # type: ignore[attr-defined]
        run = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        run.start()
        _bypass.enter()
        return self

    def stop(self) -> None:
        """Refuse new connections, and close the open ones."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in list(self._server.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._server = None
            _bypass.leave()

    def __enter__(self: Self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Handler(BaseHTTPRequestHandler):
    """Reads whole requests and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def owner(self) -> Any:
        return self.server.owner  # type: ignore[attr-defined]

    def read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *args: Any) -> None:
        pass
