"""Room for more: who captures by hand waits for it, so that nothing of a burst is lost."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from ..observe.outbox import outbox
from ..settings import settings
from .dispatcher import Dispatcher

_SHARE = 0.5
"""Share of the allowed bytes beyond which one waits; content is given up from three quarters on."""
_PATIENCE = 10.0
"""Seconds that one waits at most: as long as `flush`, and as a slow answer of PostHog's takes."""
_PATIENCE_OF_A_LOOP = 0.1
"""The same where an event loop runs, whose other tasks wait, too."""
_LOOK = 0.005
"""Seconds between two looks."""


class Room:
    """Says whether there is room, and waits for it where it may."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.is_closed = False
        """Whether the process ends, and nothing waits any more."""
        self.turner: int | None = None
        """The thread that makes room now, whichever it is: it cannot wait for itself."""
        self._in_vain = 0.0
        """Seconds that were waited in vain since there was room: nobody does so once more."""

    def wait(self) -> None:
        """Wait until few enough bytes are held; for 10 seconds, or 0.1 in an event loop's thread.

        Not at all where that is no use: PostHog is known to fail, somebody has waited as long
        in vain, the process ends, or this thread is one of those that make room.
        """
        if self._is_there():
            self._in_vain = 0.0
            return
        patience = _PATIENCE_OF_A_LOOP if _in_event_loop() else _PATIENCE
        if patience <= self._in_vain or self._is_ours():
            return
        until = time.monotonic() + patience
        while not self._is_there():
            if self._is_hopeless():
                return
            if time.monotonic() > until:
                self._in_vain = max(self._in_vain, patience)
                return
            time.sleep(_LOOK)

    def _is_there(self) -> bool:
        held = outbox.bytes
        if not self._dispatcher.shelf.is_open:  # what is in the spool is let go of, not lost
            held += self._dispatcher.bytes
        return held <= settings().queue_bytes * _SHARE

    def _is_hopeless(self) -> bool:
        if self.is_closed or not threading.main_thread().is_alive():  # exit functions run
            return True
        lanes = [lane for lane in self._dispatcher.lanes if lane.waiting or lane.sent]
        return bool(lanes) and all(lane.failures for lane in lanes)

    def _is_ours(self) -> bool:
        here = threading.current_thread()
        return self.turner == here.ident or here.name.startswith("posthog-llm")


def _in_event_loop() -> bool:
    """Whether a loop of asyncio runs in this thread; nothing is imported to find out."""
    running: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return running is not None and running() is not None
