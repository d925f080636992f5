"""The public delivery functions: wait, stop, count, survive a signal."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

from .._imports import imported
from .._running import in_thread
from .locks import Flag
from .stats import Stats
from .worker import worker

_CREDENTIALS = struct.Struct("3i")


def flush(timeout: float = 10.0) -> bool:
    """Deliver everything that was captured before this call, to all destinations.

    Returns `True` when none of it is waiting any more: each event was accepted by PostHog, or
    dropped and counted in `stats()`. Returns `False` if `timeout` seconds ran out first, or if
    steps of an open trace still wait for a destination; delivery of the rest continues in the
    background. Needed before a short-lived process ends without interpreter exit: in serverless
    functions, and before `os._exit`.

    Raises `ValueError` for a negative timeout.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
    return worker.flush(timeout)


async def aflush(timeout: float = 10.0) -> bool:
    """Do what `flush` does without blocking the event loop: it waits in a thread.

    In an event loop other than asyncio's, it blocks. Raises `ValueError` for a negative timeout.
    """
    asyncio: Any = imported("asyncio")
    try:
        loop = asyncio.get_running_loop()
        return bool(await in_thread(loop, lambda: flush(timeout)))
    except RuntimeError:  # another loop is running, or no thread can start
        return flush(timeout)


def shutdown(timeout: float = 10.0) -> bool:
    """Deliver everything, as `flush` does, and end the worker thread.

    `posthog` clients that you made stay open. A later call starts the worker again.
    """
    until = time.monotonic() + timeout
    delivered = flush(timeout)
    worker.stop(max(0.1, until - time.monotonic()))
    return delivered


def stats() -> Stats:
    """Return counts of this process's events so far."""
    return worker.stats()


def install_signal_flush(timeout: float = 5.0) -> None:
    """On SIGTERM, deliver what was captured for at most `timeout` seconds, then go on as before.

    For processes without a spool: Python's default handler ends a process at once, without
    interpreter exit. If there was no handler before, the process then ends by the signal, as it
    would have; streams that are still open are captured first, as far as they got. A handler that
    was installed before is called afterwards, and open streams continue until the process ends.
    Call it from the main thread; raises `ValueError` elsewhere. An event loop's
    `add_signal_handler` replaces it: call `posthog_llm.flush` in that handler instead.

    Pass it as `initializer` to a `multiprocessing.Pool`: leaving `with Pool()` ends the workers
    with SIGTERM. Like every Python handler, it runs between two lines of the main thread, so a
    worker inside C code ends only when that returns.
    """
    previous = signal.getsignal(signal.SIGTERM)
    is_ignored = previous == signal.SIG_IGN
    has_begun = Flag()

    def flush_first(number: int, frame: FrameType | None) -> None:
        has_begun.set()
        if worker.turn.is_here():  # a flush would wait for the code that is interrupted here
            worker.turn.afterwards(partial(os.kill, os.getpid(), number), timeout)
            return
        # In a new thread: the interrupted one may hold a lock that flushing needs.
        deliver = worker.flush if callable(previous) or is_ignored else worker.end
        flushing = threading.Thread(target=deliver, args=(timeout,), daemon=True)
        try:
            flushing.start()
        except RuntimeError:  # the process is ending, or has too many threads
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


_FIRST, _LONGEST = 0.05, 1.0
"""Seconds before a signal is sent again: initial and longest."""


def see_to(number: int, has_begun: Flag) -> None:
    """Resend a signal to the main thread until its handler sets `has_begun`.

    Python runs handlers between two lines. A signal that arrives after Python's check, but before
    the main thread waits for a lock, is handled only when that wait is over. A `Pool` worker waits
    for its next task in this way: pool and worker would wait for each other.

    Only in children of `multiprocessing`: Python's single wakeup descriptor belongs to the
    application's event loop, if there is one. Does nothing if the descriptor is taken, or if the
    system does not report which process wrote to it: a forked child shares it.
    """
    process = imported("multiprocessing.process")
    if sys.platform != "linux" or process is None or process.parent_process() is None:
        return
    import socket

    ours, pythons = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        return
    arguments = (ours, pythons, number, has_begun)
    threading.Thread(target=_watch, args=arguments, name="posthog-llm-signal", daemon=True).start()


def _watch(ours: Any, pythons: Any, number: int, has_begun: Flag) -> None:
    """Read which signals arrived. `pythons` is kept alive because its descriptor is in use."""
    main = threading.main_thread().ident or 0
    while True:
        data, ancillary, _, _ = ours.recvmsg(1, 64)
        sender = _CREDENTIALS.unpack(ancillary[0][2])[0] if ancillary else None
        if data != bytes([number]) or sender != os.getpid():
            continue
        patience = _FIRST
        while not has_begun.wait(patience):
            signal.pthread_kill(main, number)
            patience = min(2 * patience, _LONGEST)
        has_begun.clear()
