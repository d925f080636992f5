"""A flag that one thread sets and another waits for, in the middle of whatever a signal interrupts.

`threading.Event` holds its lock over several lines of Python. A handler that comes between two of
them, and waits for what another thread does with that event, waits for what it has interrupted.
"""

from __future__ import annotations

import contextlib
import queue


class Flag:
    """As `threading.Event`, on a queue whose every step is one of C's."""

    def __init__(self) -> None:
        self._set: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return not self._set.empty()

    def set(self) -> None:
        if self._set.empty():
            self._set.put(None)

    def clear(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._set.get_nowait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False: it was not within `timeout` seconds."""
        try:
            self._set.get(timeout=timeout)
        except queue.Empty:
            return False
        self._set.put(None)  # it stays set
        return True
