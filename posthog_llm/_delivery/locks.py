"""A lock and a flag that are safe with callbacks and signal handlers."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

BRIEF = 1.0
"""Most seconds that a caller or a fork waits for the turn, which takes milliseconds."""


class Turn:
    """A lock, mostly held by the worker; at process end, or without a worker, by any thread."""

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        self.is_wanted = False
        """Whether a fork waits for it: the holder then releases it between two events."""
        self._then: list[Callable[[], object]] = []
        """Functions to call once this thread releases the turn, if no other thread can wait."""

    @contextlib.contextmanager
    def alone(self, patience: float = -1) -> Generator[bool, None, None]:
        """Hold the turn; yields `False` if another thread, whose filter may hang, kept it.

        `patience`: seconds to wait; -1 means no limit.
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
        """Whether this thread holds it: then a callback or signal handler cannot wait for it."""
        # As `threading.Condition` does: there is no public way to ask for a lock's owner.
        return bool(self._lock._is_owned())

    def afterwards(self, then: Callable[[], object], patience: float) -> None:
        """Call `then` on a new thread once the turn is free, or after `patience` seconds."""

        def wait() -> None:
            with self.alone(patience):
                pass
            then()

        try:
            threading.Thread(target=wait, name="posthog-llm-signal", daemon=True).start()
        except RuntimeError:  # the process is ending, or has too many threads
            self._then.append(then)

    def _do_then(self) -> None:
        while self._then and not self.is_here():
            self._then.pop()()

    def pause(self) -> None:
        """Keep the turn free of work while the process forks.

        The child of a fork during our work would keep every lock that was held then forever: ours,
        an import's, or that of a lookup which the official client makes for its first event.
        """
        self.is_wanted = True
        self._lock.acquire(timeout=BRIEF)

    def resume(self) -> None:
        """Continue after `pause`."""
        self.is_wanted = False
        with contextlib.suppress(RuntimeError):  # not acquired in time
            self._lock.release()
        self._do_then()


class Flag:
    """Like `threading.Event`, but on a queue whose operations are atomic C code.

    `threading.Event` holds its lock over several lines of Python. A signal handler that runs
    between two of them and waits for another thread's use of the event deadlocks with the code
    that it interrupted.
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
        """Wait until it is set; return `False` if it was not set within `timeout` seconds."""
        try:
            self._set.get(timeout=timeout)
        except queue.Empty:
            return False
        self._set.put(None)  # it stays set
        return True
