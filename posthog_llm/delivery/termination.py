"""SIGTERM, noticed although Python code may not run: the main thread may be in C code for long."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from collections.abc import Callable

from ..faults import guarded

_MOST = 2.0
"""Seconds that the end may be put off."""
_sockets: list[socket.socket] = []
"""Kept open as long as the signal is watched."""
_here = threading.local()
"""Signals that a thread held back before it began to fork."""


@guarded
def flush_at_sigterm(deliver: Callable[[float | None], object]) -> None:
    """Have `deliver` called when SIGTERM comes; then end by it, as without us.

    Does nothing where somebody handles SIGTERM, and nothing where the system has none.
    """
    if not hasattr(faulthandler, "register") or not _is_default():
        return
    # A handler of Python's own waits for the main thread, so a pool that terminates its workers
    # would wait for a long computation. `faulthandler` has the one handler in C that speaks up
    # at once: what it writes tells our thread.
    hear, speak = socket.socketpair()
    speak.setblocking(False)
    _sockets[:] = [hear, speak]
    listener = threading.Thread(
        target=_listen, args=(hear, deliver), name="posthog-llm-term", daemon=True
    )
    listener.start()
    faulthandler.register(signal.SIGTERM, file=speak.fileno(), all_threads=False)


def _listen(hear: socket.socket, deliver: Callable[[float | None], object]) -> None:
    if not hear.recv(1):
        return
    try:
        deliver(_MOST)
    finally:
        faulthandler.unregister(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def _is_default() -> bool:
    return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _hold() -> None:
    """Let the signal wait while the process forks: a child could not tell whose it is."""
    if _sockets:
        _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _go_on() -> None:
    if hasattr(_here, "mask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, _here.mask)
        del _here.mask


def _leave() -> None:
    """Watch no more, in a forked child: what it would hear is its parent's."""
    if _sockets:
        if _is_default():
            faulthandler.unregister(signal.SIGTERM)
        for one in _sockets:
            one.close()
        _sockets.clear()
    _go_on()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_leave)
