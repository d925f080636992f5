"""The end of a process: deliver or save everything within a time limit."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._faults import guarded
from .._imports import imported
from .._observe.call_queue import call_queue

if TYPE_CHECKING:
    from .worker import Worker

_MOST = 4.0
"""Most seconds that interpreter exit waits for us; the official client takes one more."""
_MOST_SPOOLED = 1.0
"""Most seconds that it waits for PostHog when everything is in the spool."""
_LEAST = 0.05
"""Seconds for final steps after the time is up: writing takes less."""
_LAST = -1000
"""Priority of our exit function in `multiprocessing`: the lowest runs last."""
_FAMILY = ("multiprocessing", "multiprocess")
"""`multiprocess` is its fork that pathos and Hugging Face's datasets use."""


class Ending:
    """Runs at process end, perhaps twice: at the end of a `multiprocessing` child, and at exit."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._until: float | None = None
        """When the process stops waiting for us; `None` before it ends."""

    @property
    def has_begun(self) -> bool:
        """Whether the process is ending: orphaned spool files are then left to other processes."""
        return self._until is not None

    def run(self, timeout: float | None) -> None:
        """Deliver what is possible in at most `timeout` seconds; each step may fail on its own.

        `None` means as long as interpreter exit waits. A second run has the time that the first
        left.
        """
        until = time.monotonic() + (_MOST if timeout is None else timeout)
        self._until = min(until, self._until or until)
        self._worker.backpressure.is_closed = self._worker.dispatcher.is_ending = True
        call_queue.abandon_open()
        self._open_spool()
        self._deliver()
        self._worker.save(self._left())

    @guarded
    def _open_spool(self) -> None:
        # Nothing more: a turn runs application code, which may never return.
        with self._worker.turn.alone(self._left()) as is_alone:
            if is_alone:
                self._worker.dispatcher.spool.follow_settings()

    @guarded
    def _deliver(self) -> None:
        dispatcher, left = self._worker.dispatcher, self._left()
        if not self._worker.flush(min(_MOST_SPOOLED, left) if dispatcher.spool.is_open else left):
            self._worker.destinations.wait_no_longer(dispatcher.queues.unanswered())

    def _left(self) -> float:
        return max(_LEAST, (self._until or 0.0) - time.monotonic())


_started: dict[int, Callable[[float | None], object]] = {}
"""What delivers at the end of a process, by process id: a forked child has its own."""


def watch(deliver: Callable[[float | None], object]) -> None:
    """Call `deliver` when this process ends as a child; runs with the process's first call.

    Children may end without interpreter exit; each kind announces its end in its own way. Nothing
    is imported for that: if a library is not loaded, no child of its kind exists.

    `deliver` takes a timeout in seconds; `None` means as long as at interpreter exit.
    """
    if os.getpid() in _started:
        return
    _started.clear()
    _started[os.getpid()] = deliver
    for name in _FAMILY:
        _watch_multiprocessing(name)
    _watch_celery()


@guarded
def disconnect() -> None:
    """Give a forked child its own connections, which early 7.x of the official client do not.

    Two processes that share a connection read each other's responses, and send again.
    """
    request: Any = sys.modules.get("posthog.request")
    if hasattr(request, "_session") and not hasattr(request, "reset_sessions"):
        request._session = copy.deepcopy(request._session)  # without its open connections


def _deliver_at_end(**_: Any) -> None:
    """Deliver what this process captured; does nothing in a forked child that captured nothing.

    Celery passes the ending process as keyword arguments.
    """
    if deliver := _started.get(os.getpid()):
        deliver(None)


@guarded
def _watch_multiprocessing(name: str) -> None:
    util: Any = imported(f"{name}.util")
    if util is None:
        return
    _at_end_of_child(name)
    # A child starts by dropping all exit functions, including ours if the first call was made
    # while its module was imported.
    util.register_after_fork(_deliver_at_end, partial(_at_end_of_child, name))


@guarded
def _at_end_of_child(name: str, _: object = None) -> None:
    process: Any = sys.modules[f"{name}.process"]
    if os.getpid() not in _started or process.parent_process() is None:
        return
    sys.modules[f"{name}.util"].Finalize(None, _deliver_at_end, exitpriority=_LAST)


@guarded
def _watch_celery() -> None:
    ends = getattr(imported("celery.signals"), "worker_process_shutdown", None)
    if ends is not None:
        ends.connect(_deliver_at_end, weak=False)
