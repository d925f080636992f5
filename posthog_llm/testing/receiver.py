"""A PostHog that takes events and keeps them, for tests and the demo."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

from .loopback import Handler, LoopbackServer


class _Handler(Handler):
    def do_POST(self) -> None:
        body = self.read_body()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        status = self.owner.take(self.path, body)
        answer = b'{"status": "Ok"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST


class PostHogReceiver(LoopbackServer):
    """Receives what the official `posthog` client sends to `/batch/` and the AI lane.

        with PostHogReceiver() as posthog_server:
            client = posthog.Posthog("phc_test", host=posthog_server.url)
            ...
            events = posthog_server.wait_for(1)

    Each event is a dict as it came over the wire: `event`, `distinct_id`, `properties`,
    `timestamp`, `uuid`.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        """HTTP status of every answer; events are kept with 200 only."""
        self.paths: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def take(self, path: str, body: bytes) -> int:
        """Keep the events of one request; returns the status to answer with."""
        with self._changed:
            self.paths.append(path)
            if self.status == 200 and body:
                self._events += json.loads(body).get("batch", [])
            self._changed.notify_all()
            return self.status

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far, in order of arrival."""
        with self._changed:
            return list(self._events)

    def wait_for(self, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Return the events once there are `count`.

        Raises `TimeoutError` when they do not arrive within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._events) >= count, timeout):
                raise TimeoutError(f"{len(self._events)} of {count} events in {timeout} s")
            return list(self._events)
