"""Child processes that end without interpreter exit, and how each kind says that it ends.

Nothing here is imported for it: where a library is not loaded, no child of its kind exists.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ..faults import guarded
from ..imports import imported

_LAST = -1000
"""Priority of our exit function among those of `multiprocessing`: the lowest runs last."""
_FAMILY = ("multiprocessing", "multiprocess")
"""`multiprocess` is the fork of it that pathos and Hugging Face's datasets use."""
_started: dict[int, Callable[[float | None], object]] = {}
"""What delivers at this process's end, by process id: a forked child's is another."""


def watch(deliver: Callable[[float | None], object]) -> None:
    """Have `deliver` called when this process ends as a child; called at its first call.

    `deliver` takes the most seconds that it may take; `None`: as many as at interpreter exit.
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
    """Give a forked child connections of its own, where the official client's first 7.x do not.

    Two processes that write to one connection read each other's answers, and send again.
    """
    request: Any = sys.modules.get("posthog.request")
    if hasattr(request, "_session") and not hasattr(request, "reset_sessions"):
        request._session = copy.deepcopy(request._session)  # without its open connections


def _deliver(**_: Any) -> None:
    """Deliver what this process captured; a forked child that captured nothing has nothing.

    Celery says by name which process ends.
    """
    if deliver := _started.get(os.getpid()):
        deliver(None)


@guarded
def _watch_multiprocessing(name: str) -> None:
    util: Any = imported(f"{name}.util")
    if util is None:
        return
    _at_end_of_child(name)
    # A child starts by forgetting all exit functions, ours too where its module made the first
    # call while it was imported.
    util.register_after_fork(_deliver, partial(_at_end_of_child, name))


@guarded
def _at_end_of_child(name: str, _: object = None) -> None:
    process: Any = sys.modules[f"{name}.process"]
    if os.getpid() not in _started or process.parent_process() is None:
        return
    sys.modules[f"{name}.util"].Finalize(None, _deliver, exitpriority=_LAST)


@guarded
def _watch_celery() -> None:
    ends = getattr(imported("celery.signals"), "worker_process_shutdown", None)
    if ends is not None:
        ends.connect(_deliver, weak=False)
