"""Room for more: who captures by hand waits for it, so that nothing of a burst is lost."""

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
"""Share of the allowed bytes beyond which one waits; content is given up from three quarters on."""
_PATIENCE = 10.0
"""Seconds that one waits at most, as long as `flush`; and all, where PostHog takes no event."""
_PATIENCE_OF_A_LOOP = 0.1
"""Seconds that one waits where an event loop runs, whose other tasks wait, too."""
_PATIENCES_OF_A_LOOP = 2.0
"""Seconds that all wait there while PostHog takes no event."""
_LOOK = 0.005
"""Seconds between two looks."""


class Backpressure:
    """Says whether there is room, and waits for it where it may."""

    def __init__(self, dispatcher: Dispatcher, turn: Turn) -> None:
        self._dispatcher = dispatcher
        self._turn = turn
        self.is_closed = False
        """Whether the process ends, and nothing waits any more."""
        self._delivered = 0
        """Events that PostHog had taken at the last look."""
        self._moved_at: float | None = None
        """When that number was seen to change; `None` while there is room."""

    def wait(self) -> None:
        """Wait until few enough bytes are held; for 10 seconds, or 0.1 in an event loop's thread.

        Not at all where that is no use: PostHog fails, or has taken no event for 10 seconds (2
        in an event loop's thread), the process ends, or this thread is one that makes room.
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
        if not self._dispatcher.spool.is_open:  # what is in the spool is let go of, not lost
            held += self._dispatcher.bytes
        return held <= settings().queue_bytes * _SHARE

    def _may_come(self, most: float) -> bool:
        """Whether there may be room soon; not where nothing was taken for `most` seconds."""
        delivered, now = self._dispatcher.ledger.delivered, time.monotonic()
        moved_at = self._moved_at  # once: another thread may find room meanwhile
        if moved_at is None or delivered != self._delivered:
            self._delivered, self._moved_at = delivered, (moved_at := now)
        if self.is_closed or not threading.main_thread().is_alive():  # exit functions run
            return False
        queues = [queue for queue in self._dispatcher.queues if queue.waiting or queue.sent]
        fails = bool(queues) and all(queue.failures for queue in queues)
        return not fails and now - moved_at < most

    def _is_ours(self) -> bool:
        return self._turn.is_here() or threading.current_thread().name.startswith("posthog-llm")


def _in_event_loop() -> bool:
    """Whether a loop of asyncio runs in this thread; nothing is imported to find out."""
    running: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return running is not None and running() is not None
