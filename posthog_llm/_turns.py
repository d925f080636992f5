"""Lets other threads run in the middle of long work.

A thread that waits for the interpreter asks for it only after 5 ms, and a caller may be waiting.
"""

from __future__ import annotations

from time import perf_counter, sleep

_BUSY = 0.001
"""Seconds of work between two pauses."""
_paused_at = 0.0


def let_others_run() -> None:
    """Release the interpreter for a moment, if the last pause was a while ago."""
    global _paused_at
    if perf_counter() - _paused_at > _BUSY:
        sleep(0)
        _paused_at = perf_counter()
