"""Calls that another library is to call back for: captured without it after a while.

A library may call back late, or never: an event loop ends with what it was to do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_PATIENCE = 1.0
"""Seconds that a call which has ended waits for the callback."""
before_flush: list[Callable[[float], object]] = []
"""Each is called with the seconds that it may wait for callbacks which are on their way."""


class Pending:
    """Calls that have ended; each has `let_go()`, which captures it unless that was done.

    Any thread may add, and the worker and those who flush take out.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[tuple[float, Any]] = deque()
        self._taking = threading.Lock()
        """Held until what was taken out is captured: a flush must not overtake it."""

    def add(self, call: Any) -> None:
        self._waiting.append((time.monotonic() + _PATIENCE, call))
        self._wake()

    def due(self) -> float | None:
        """Return in how many seconds the first has waited long enough; `None`: none waits."""
        with contextlib.suppress(IndexError):
            return max(0.0, self._waiting[0][0] - time.monotonic())
        return None

    def let_go_due(self) -> None:
        self._let_go(time.monotonic())

    def settle(self, timeout: float | None) -> None:
        """Capture what has ended by now, whoever was to call back for it."""
        until = time.monotonic()
        for wait in before_flush:
            wait(_PATIENCE if timeout is None else min(_PATIENCE, timeout))
        self._let_go(until + _PATIENCE)

    def _let_go(self, until: float) -> None:
        # Not for ever: a signal's handler may flush while the thread that it interrupts takes out.
        is_taken = self._taking.acquire(timeout=_PATIENCE)
        try:
            with contextlib.suppress(IndexError):
                while self._waiting[0][0] <= until:
                    self._waiting.popleft()[1].let_go()
        finally:
            if is_taken:
                self._taking.release()
