"""How old an event in the spool is, though clocks may be wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_EARLIEST = 1_735_689_600.0
"""The start of 2025: a clock that says less was never set."""
_AHEAD = 3600.0
"""Seconds that another clock may be ahead of ours."""


@dataclass(slots=True)
class Age:
    """Tells what is too old. Errs for the younger side: what is dropped is gone."""

    longest: float
    """Seconds after which an event is given up."""
    clock: Callable[[], float] = time.time
    _start: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock(), time.monotonic()

    def now(self) -> float:
        """Return the time, less what the clock was set forward since we began."""
        wall, monotonic = self._start
        return min(self.clock(), wall + time.monotonic() - monotonic)

    def is_over(self, created: float, found: float) -> bool:
        """Whether an event is too old; `found` counts where `created` cannot be."""
        stamp = created if self.is_likely(created) else found
        return self.is_likely(stamp) and self.now() - stamp > self.longest

    def is_likely(self, stamp: float) -> bool:
        """Whether a clock that was right may have said so."""
        return _EARLIEST < stamp < self.now() + _AHEAD

    def of_file(self, path: str) -> float:
        """Return when a file was last written, or found first where its own time cannot be."""
        written = os.stat(path).st_mtime
        if not self.is_likely(written):
            os.utime(path)
            written = os.stat(path).st_mtime
        return written
