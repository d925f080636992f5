"""When to look for what ended processes left: often at first, then ever more rarely."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ..faults import guarded

if TYPE_CHECKING:
    from .spool import Backlog, Find, SpoolDirectory

_FIRST_PAUSE = 5.0
"""Seconds between the first two looks."""
_LONGEST_PAUSE = 60.0
"""Seconds between two looks, once several have found nothing."""
_JITTER = 0.25
"""Share by which a pause is longer or shorter: processes that start together part."""
_RETRY = 0.05
"""Seconds between two attempts to look, while another process looks."""
_PATIENCE = 1.0
"""Seconds after which we look beside it: it may be stopped."""


class Looks:
    """Looks at one directory. Used by the worker alone, but for `is_wanted`."""

    def __init__(self, directory: SpoolDirectory) -> None:
        self._directory = directory
        self.is_wanted = True
        """Whether there is to be a look as soon as can be."""
        self._next_at = self._began = 0.0
        self._pause = _FIRST_PAUSE
        self._is_refused = False
        """Whether another process was looking when we last tried."""

    @property
    def is_pending(self) -> bool:
        """Whether a look is wanted, or not at its end."""
        return self.is_wanted or self._directory.is_looking

    def due(self) -> Iterator[float]:
        """Yield in how many seconds there is something to do."""
        if not self._directory.is_looking:
            yield max(0.0, self._next_at - time.monotonic())
        elif self._directory.has_room:
            yield _RETRY if self._is_refused else 0.0

    def look(self, held: Collection[Backlog], find: Find) -> Iterator[list[Backlog]]:
        """Yield the backlogs of each file that is claimed now; think anew of those we hold."""
        now = time.monotonic()
        if not self._directory.is_looking:
            if now < self._next_at and not self.is_wanted:
                return
            self.is_wanted, self._began = False, now
            self._schedule(now, self._pause)
            guarded(self._directory.begin_look)()
            self._directory.is_due(held, find)
        if self._directory.is_looking and self._directory.has_room:
            patient = now - self._began < _PATIENCE
            found = guarded(self._directory.look)(find, patient=patient)
            self._is_refused = found is None
            if found:
                self._schedule(now, _FIRST_PAUSE)
            yield from found or ()

    def _schedule(self, now: float, pause: float) -> None:
        self._next_at = now + pause * random.uniform(1 - _JITTER, 1 + _JITTER)
        self._pause = min(pause * 2, _LONGEST_PAUSE)
