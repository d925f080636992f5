"""Whose turn it is to look for orphans: one process at a time, where that can be had.

Two that try the same file at once would both find it locked, and leave it. Nothing worse happens
without turns, so nobody waits long for one: its holder may be stopped.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator

_NAME = "lock"


@contextlib.contextmanager
def turn(directory: str, *, patient: bool) -> Generator[bool]:
    """Yield whether to look now. `patient`: not while another process looks."""
    try:
        lock = _locked(os.path.join(directory, _NAME))
    except (OSError, sqlite3.Error):  # another process looks, or nothing can be locked here
        yield not patient
        return
    with contextlib.closing(lock):
        yield True


def _locked(path: str, *, again: bool = True) -> sqlite3.Connection:
    """Return a lock that ends with its connection, or its process."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    lock = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        lock.execute("begin exclusive")
    except sqlite3.DatabaseError as error:
        lock.close()
        if isinstance(error, sqlite3.OperationalError) or not again:
            raise
    else:
        return lock
    os.unlink(path)  # something else was written into it
    return _locked(path, again=False)
