"""A PostHog server for tests and the demo: keeps the events it receives, or fails on demand."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from typing import Any, Literal

from ._loopback import Handler, LoopbackServer

Fault = Literal["reset", "hang", "half_open", "slow"]
_AI_LANE = "/i/v0/ai/batch/"


class _Handler(Handler):
    def do_POST(self) -> None:
        body = self.read_body()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        fault = self.owner.fault
        if fault == "reset":
            # Closing at once with unread data makes the peer see a reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        if fault == "hang":
            self.owner.stopping.wait(60)
            return
        if fault == "slow":
            self.owner.stopping.wait(self.owner.delay)
        status = self.owner.take(self.path, body)
        self._answer(status, half=fault == "half_open")

    do_GET = do_POST

    def _answer(self, status: int, *, half: bool) -> None:
        answer = b'{"status": "Ok"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        for name, value in self.owner.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if half:
            self.wfile.write(answer[:4])
            self.owner.stopping.wait(60)
        else:
            self.wfile.write(answer)


class PostHogReceiver(LoopbackServer):
    """Receives what the official `posthog` client sends to `/batch/` and the AI lane.

        with PostHogReceiver() as posthog_server:
            client = posthog.Posthog("phc_test", host=posthog_server.url)
            ...
            events = posthog_server.wait_for(1)

    Each event is a dict as it came over the wire: `event`, `distinct_id`, `properties`,
    `timestamp`, `uuid`, and the project's `api_key`. The attributes make it fail on demand;
    `stop()` and `start()` make it refuse connections for a while.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        """HTTP status of every response; events are kept only with 200."""
        self.headers: dict[str, str] = {}
        """Headers of every response, such as `Retry-After`."""
        self.fault: Fault | None = None
        """`reset` and `hang` lose the request, `half_open` only its response, `slow` takes `delay`
        seconds."""
        self.delay = 0.2
        self.has_ai_lane = True
        """Whether the AI lane exists; some self-hosted servers respond with 404."""
        self.unknown_keys = False
        """Whether no project has the key: PostHog accepts the events, and reports it elsewhere."""
        self.largest_event = 8 << 20
        """Maximum JSON bytes of an event; a larger one makes its whole batch fail with 413."""
        self.largest_batch = 20 << 20
        """Maximum JSON bytes of all events in a batch; a larger batch fails with 413."""
        self.paths: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def take(self, path: str, body: bytes) -> int:
        """Keep the events of one request; return the status to respond with."""
        batch: list[dict[str, Any]] = json.loads(body).get("batch", []) if body else []
        with self._changed:
            self.paths.append(path)
            status = self._status(path, batch)
            if status == 200:
                key = json.loads(body).get("api_key") if body else None
                self._events += ({**event, "api_key": key} for event in batch)
            self._changed.notify_all()
            return status

    def _status(self, path: str, batch: list[Any]) -> int:
        if path.startswith("/flags") and self.unknown_keys:
            return 401
        if path.startswith(_AI_LANE) and not self.has_ai_lane:
            return 404
        sizes = [len(json.dumps(event)) for event in batch]
        if max(sizes, default=0) > self.largest_event or sum(sizes) > self.largest_batch:
            return 413
        return self.status

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far, in order of arrival."""
        with self._changed:
            return list(self._events)

    def wait_for(self, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Return the events once there are `count`.

        Raises `TimeoutError` if they do not arrive within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._events) >= count, timeout):
                raise TimeoutError(f"{len(self._events)} of {count} events in {timeout} s")
            return list(self._events)
