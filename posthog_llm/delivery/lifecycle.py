"""What a program may ask of the delivery: wait, stop, tell, survive a signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

from ..imports import imported
from .flag import Flag
from .signals import see_to
from .stats import Stats
from .worker import worker


def flush(timeout: float = 10.0) -> bool:
    """Deliver everything that was captured before this call, to all destinations.

    Returns `True` when nothing of it waits any more: each event was accepted by PostHog, or
    given up and counted in `stats()`. `False` when `timeout` seconds ran out first, or where
    steps of a trace that goes on wait for a destination that nothing names yet; what is
    left goes on in the background. Needed before a short-lived process ends without interpreter
    exit: in serverless functions, and before `os._exit`.

    Raises `ValueError` for a negative timeout.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds from 0 on, not {timeout!r}")
    return worker.flush(timeout)


async def aflush(timeout: float = 10.0) -> bool:
    """Do what `flush` does, and let the event loop go on meanwhile: it waits in a thread.

    In an event loop that is not asyncio's, it waits here. Raises `ValueError` for a negative
    timeout.
    """
    asyncio: Any = imported("asyncio")
    try:
        flushing = asyncio.get_running_loop().run_in_executor(None, flush, timeout)
    except RuntimeError:  # another loop runs, or no thread can be started
        return flush(timeout)
    return await flushing  # type: ignore[no-any-return]


def shutdown(timeout: float = 10.0) -> bool:
    """Deliver everything, as `flush` does, and end the worker thread.

    The `posthog` clients that you made are left open: they are yours. A later call starts the
    worker again.
    """
    until = time.monotonic() + timeout
    delivered = flush(timeout)
    worker.stop(max(0.1, until - time.monotonic()))
    return delivered


def stats() -> Stats:
    """Return what became of this process's events so far."""
    return worker.stats()


def install_signal_flush(timeout: float = 5.0) -> None:
    """On SIGTERM, deliver what was captured, for `timeout` seconds at most, then go on as before.

    For processes without a spool: Python's default handler ends a process at once, without
    interpreter exit. Where there was no handler before, the process ends by the signal, as it
    would have; streams that are still open are told first, as far as they came. A handler that
    was installed before is called afterwards, and open streams are left to go on until the
    process ends. Call it from the main thread; raises `ValueError` elsewhere. An event loop's
    `add_signal_handler` replaces it: call `posthog_llm.flush` in that handler instead.

    Workers of a `multiprocessing.Pool` take it as `initializer`: leaving `with Pool()` ends them
    by SIGTERM. Like every Python handler it runs between two lines of the main thread, so that a
    worker deep in C code ends only after that.
    """
    previous = signal.getsignal(signal.SIGTERM)
    is_ignored = previous == signal.SIG_IGN
    has_begun = Flag()

    def flush_first(number: int, frame: FrameType | None) -> None:
        has_begun.set()
        if worker.turn.is_here():  # a flush would wait for the very lines that are interrupted here
            worker.turn.afterwards(partial(os.kill, os.getpid(), number), timeout)
            return
        # A thread of its own: the interrupted one may hold a lock that flushing needs.
        deliver = worker.flush if callable(previous) or is_ignored else worker.end
        flushing = threading.Thread(target=deliver, args=(timeout,), daemon=True)
        try:
            flushing.start()
        except RuntimeError:  # the process ends, or has too many
            deliver(timeout)
        else:
            flushing.join(timeout)
        if callable(previous):
            previous(number, frame)
        elif not is_ignored:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, flush_first)
    see_to(signal.SIGTERM, has_begun)
