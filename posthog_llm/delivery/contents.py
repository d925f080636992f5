"""What lies in a spool directory, for somebody who looks from outside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .spool_file import SUFFIX, Address, SpoolFile, is_being_made
from .spool_turns import turn

_PATIENCE = 5.0
"""Seconds to wait for a process that looks for orphans."""


@dataclass(slots=True)
class Contents:
    """Events of ended processes; those of living ones are theirs to tell."""

    events: Counter[Address | None] = field(default_factory=Counter[Address | None])
    """How many there are for each address; `None`: that cannot be read."""
    oldest: float | None = None
    """Unix time at which the first of them was written; `None`: there are none."""
    in_use: int = 0
    """Files of living processes."""
    damaged: int = 0
    """Files that cannot be read."""


def contents_of(directory: str) -> Contents:
    """Read a spool directory. Raises `OSError`."""
    found = Contents()
    until = time.monotonic() + _PATIENCE
    while True:
        with turn(directory, patient=time.monotonic() < until) as ours:
            if ours:
                for path in _files(directory):
                    with contextlib.suppress(FileNotFoundError):  # its process ended it just now
                        _read(path, found)
                return found
        time.sleep(0.05)


def _files(directory: str) -> Iterator[str]:
    for name in sorted(os.listdir(directory)):
        if name.endswith(SUFFIX):
            yield os.path.join(directory, name)


def _read(path: str, found: Contents) -> None:
    if is_being_made(path):
        found.in_use += 1
        return
    try:
        file = SpoolFile(path)
    except sqlite3.OperationalError:  # its process lives
        found.in_use += 1
        return
    except sqlite3.DatabaseError:
        found.damaged += 1
        return
    with contextlib.closing(file):  # which removes it where it is empty
        for line, count in file.totals().items():
            found.events[Address.read(line)] += count
            if rows := file.page(line, 0, 1):
                found.oldest = min(rows[0].created, found.oldest or rows[0].created)
