"""Backpressure: manual capture waits for free capacity, so that no event of a burst is lost."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from .._observe.call_queue import call_queue
from .._settings import settings
from .dispatcher import Dispatcher
from .locks import Turn

_SHARE = 0.5
"""Share of `queue_bytes` above which a caller waits; above three quarters, content is dropped."""
_PATIENCE = 10.0
"""Longest wait in seconds, the same as for `flush`; in total where PostHog accepts no event."""
_PATIENCE_OF_A_LOOP = 0.1
"""Longest wait in seconds in an event loop's thread, where it blocks all other tasks."""
_PATIENCES_OF_A_LOOP = 2.0
"""Total wait in seconds in such a thread while PostHog accepts no event."""
_LOOK = 0.005
"""Seconds between two checks."""


class Backpressure:
    """Knows whether there is capacity for more events, and waits for it where waiting is safe."""

    def __init__(self, dispatcher: Dispatcher, turn: Turn) -> None:
        self._dispatcher = dispatcher
        self._turn = turn
        self.is_closed = False
        """Whether the process is ending, so that nothing waits any longer."""
        self._delivered = 0
        """Events that PostHog had accepted at the last check."""
        self._moved_at: float | None = None
        """When that number last changed; `None` while there is capacity."""

    def wait(self) -> None:
        """Wait until few enough bytes are held: 10 seconds, or 0.1 in an event loop's thread.

        Does not wait where that is useless: PostHog is failing, or has accepted no event for 10
        seconds (2 in an event loop's thread), the process is ending, or this is a delivery thread.
        """
        if self._is_there():
            self._moved_at = None
            return
        if self._is_ours():
            return
        in_loop = _in_event_loop()
        most = _PATIENCES_OF_A_LOOP if in_loop else _PATIENCE
        until = time.monotonic() + (_PATIENCE_OF_A_LOOP if in_loop else _PATIENCE)
        while time.monotonic() < until and not self._is_there() and self._may_come(most):
            time.sleep(_LOOK)

    def _is_there(self) -> bool:
        held = call_queue.bytes
        if not self._dispatcher.spool.is_open:  # spooled events leave memory without being lost
            held += self._dispatcher.bytes
        return held <= settings().queue_bytes * _SHARE

    def _may_come(self, most: float) -> bool:
        """Whether capacity may be freed soon; no if nothing was accepted for `most` seconds."""
        delivered, now = self._dispatcher.ledger.delivered, time.monotonic()
        moved_at = self._moved_at  # read once: another thread may reset it meanwhile
        if moved_at is None or delivered != self._delivered:
            self._delivered, self._moved_at = delivered, (moved_at := now)
        if self.is_closed or not threading.main_thread().is_alive():  # exit functions are running
            return False
        queues = [queue for queue in self._dispatcher.queues if queue.waiting or queue.sent]
        fails = bool(queues) and all(queue.failures for queue in queues)
        return not fails and now - moved_at < most

    def _is_ours(self) -> bool:
        return self._turn.is_here() or threading.current_thread().name.startswith("posthog-llm")


def _in_event_loop() -> bool:
    """Whether an asyncio loop is running in this thread; imports nothing to find out."""
    running: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return running is not None and running() is not None
