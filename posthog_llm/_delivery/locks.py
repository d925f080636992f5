"""A lock and a flag that callbacks and signal handlers can live with."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

BRIEF = 1.0
"""Seconds that a caller, or a fork, may wait for the turn, which takes milliseconds."""


class Turn:
    """A lock, mostly the worker's; at the end of a process, and without a worker, anybody's."""

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        self.is_wanted = False
        """Whether a fork waits for it: whoever has it gives it up between two events."""
        self._then: list[Callable[[], object]] = []
        """What is to be done once this thread has the turn no more, where no other can wait."""

    @contextlib.contextmanager
    def alone(self, patience: float = -1) -> Generator[bool, None, None]:
        """Have the turn; False: another thread, whose filter may not end, kept it all the time.

        `patience`: seconds to wait for it; without limit where it is -1.
        """
        if not self._lock.acquire(timeout=patience):
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()
            self._do_then()

    def is_here(self) -> bool:
        """Whether this thread has it: what a callback or a signal's handler cannot wait for."""
        # What `threading.Condition` asks of its lock: nothing public tells whose a lock is.
        return bool(self._lock._is_owned())

    def afterwards(self, then: Callable[[], object], patience: float) -> None:
        """Call `then`, on a thread of its own, once nobody has it; or after `patience` seconds."""

        def wait() -> None:
            with self.alone(patience):
                pass
            then()

        try:
            threading.Thread(target=wait, name="posthog-llm-signal", daemon=True).start()
        except RuntimeError:  # the process ends, or has too many
            self._then.append(then)

    def _do_then(self) -> None:
        while self._then and not self.is_here():
            self._then.pop()()

    def pause(self) -> None:
        """Let nobody have it while a process forks.

        The child of a fork amid our work would keep every lock held then, ours or others', for
        good: of an import, or of what the official client looks up for its first event.
        """
        self.is_wanted = True
        self._lock.acquire(timeout=BRIEF)

    def resume(self) -> None:
        """Go on after `pause`."""
        self.is_wanted = False
        with contextlib.suppress(RuntimeError):  # it was not acquired in time
            self._lock.release()
        self._do_then()


class Flag:
    """As `threading.Event`, on a queue whose every step is one of C's.

    `threading.Event` holds its lock over several lines of Python. A signal's handler that comes
    between two of them, and waits for what another thread does with that event, waits for what
    it has interrupted.
    """

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
