"""A signal's handler that runs although the main thread has just begun to wait in C.

Python runs handlers between two lines. A signal that comes after it has looked, and before the
main thread waits for a lock, is seen only once that wait is over. A worker of a `Pool` waits so
for its next task: its pool would wait for it, and it for its pool.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from typing import Any

from ..imports import imported
from .flag import Flag

_FIRST, _LONGEST = 0.05, 1.0
"""Seconds that a handler has before its signal is sent again, at first and at most."""
_CREDENTIALS = struct.Struct("3i")


def see_to(number: int, has_begun: Flag) -> None:
    """Send a signal to the main thread again until its handler sets `has_begun`.

    In children of `multiprocessing` alone: the one descriptor that Python has for this belongs to
    the program's event loop, where there is one. Nothing is done where it is taken, or where the
    system does not say which process wrote to it: a forked child has it, too.
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
    """Read which signals came; `pythons` is held, since its descriptor is in use."""
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
