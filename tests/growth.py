"""How long work takes that should grow no faster than what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_TRIES = 3
"""Another process may disturb one of them, or two."""


def cpu_of(work: Callable[[], Any]) -> float:
    """Return the fewest seconds of this thread's processor that some work took."""
    return min(_seconds(work) for _ in range(_TRIES))


def is_below(most: float, work: Callable[[], Any]) -> bool:
    """Return whether it takes so little; once it did, it is not tried again."""
    return any(_seconds(work) < most for _ in range(_TRIES))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
