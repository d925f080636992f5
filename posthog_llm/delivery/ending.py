"""The end of a process: everything is delivered or saved, within a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..faults import guarded
from ..observe.outbox import outbox

if TYPE_CHECKING:
    from .worker import Worker

_MOST = 4.0
"""Seconds that interpreter exit may wait for us; the official client takes one more."""
_MOST_SPOOLED = 1.0
"""Seconds that it waits for PostHog when everything is in the spool."""
_LEAST = 0.05
"""Seconds for what comes after the time is up: to write takes less."""


class Ending:
    """Runs at the end, perhaps several times: as a child of `multiprocessing`, then at exit."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._until: float | None = None
        """When the process waits for us no longer; `None` before it ends."""

    def run(self, timeout: float | None) -> None:
        """Deliver what can be, in all `timeout` seconds at most; a failing step costs no other.

        `None`: as many as interpreter exit waits. A second run has the time that the first left.
        """
        until = time.monotonic() + (_MOST if timeout is None else timeout)
        self._until = min(until, self._until or until)
        self._worker.room.is_closed = True
        outbox.abandon_open()
        self._open_spool()
        self._deliver()
        self._worker.save(self._left())

    @guarded
    def _open_spool(self) -> None:
        # No more than that: a turn runs code of the program's, which may never come back.
        with self._worker.turn.alone(self._left()) as is_alone:
            if is_alone:
                self._worker.dispatcher.shelf.follow_settings()

    @guarded
    def _deliver(self) -> None:
        dispatcher, left = self._worker.dispatcher, self._left()
        if not self._worker.flush(min(_MOST_SPOOLED, left) if dispatcher.shelf.is_open else left):
            self._worker.destinations.wait_no_longer(dispatcher.lanes.unanswered())

    def _left(self) -> float:
        return max(_LEAST, (self._until or 0.0) - time.monotonic())
