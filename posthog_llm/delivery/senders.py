"""Threads for work that may take long: few, shared, and gone when idle."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from ..faults import report

MOST = 32
"""Threads at once, however many destinations there are."""
_IDLE = 10.0
"""Seconds that a thread waits for work before it ends."""


class Senders:
    """Runs jobs in daemon threads, so that no job can keep a process alive."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._pending = 0
        self._here = threading.local()

    def is_here(self) -> bool:
        """Whether this thread does a job: what that calls cannot wait for it."""
        return getattr(self._here, "has_job", False)

    def run(self, job: Callable[[], None]) -> None:
        """Run `job` soon, or here and now where no thread can be started and none is there."""
        with self._lock:
            self._pending += 1
            more = self._pending > self._threads and self._threads < MOST
            self._threads += more
        self._jobs.put(job)
        if more:
            try:
                self._start()
            except RuntimeError:  # the process ends, or has too many
                self._work_here()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="posthog-llm-send", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work_here(self) -> None:
        with contextlib.suppress(queue.Empty):
            while not self._threads:
                self._done(self._jobs.get_nowait())

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._pending:
                        continue
                    self._threads -= 1
                    return
            try:
                self._done(job)
            except BaseException as error:  # such as `sys.exit` in a sink: the thread must live on
                report("send", error)

    def _done(self, job: Callable[[], None]) -> None:
        """Do a job; it guards itself."""
        self._here.has_job = True
        try:
            job()
        finally:
            self._here.has_job = False
            with self._lock:
                self._pending -= 1
