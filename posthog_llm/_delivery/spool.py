"""Events on disk until PostHog has them: a directory with one SQLite file per process.

Nothing here runs on a caller's thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._settings import Spool
from .destinations import Project
from .spool_file import SUFFIX, Address, Line, Row, SpoolFile, Stored, is_being_made

_EARLIEST = 1_735_689_600.0
"""The start of 2025: a clock that shows an earlier time was never set."""
_AHEAD = 3600.0
"""Most seconds that another clock may be ahead of ours."""
_LOCK = "lock"
_DAMAGED = ".damaged"
_MOST_CLAIMED = 32
"""Most files of ended processes that are open at once."""
_LONGEST_LOOK = 0.02
"""Seconds that the worker scans for orphans before it does other work."""
_MEASURED_FOR = 1.0
"""Seconds for which a measured size of the directory is reused."""
_PATIENCE = 5.0
"""Seconds to wait for another process that scans for orphans."""


@dataclass(slots=True)
class Age:
    """Decides which events are too old. Errs on the younger side: dropped events are gone."""

    longest: float
    """Seconds after which an event is dropped."""
    clock: Callable[[], float] = time.time
    _start: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock(), time.monotonic()

    def now(self) -> float:
        """Return the time, ignoring forward changes of the clock since we began."""
        wall, monotonic = self._start
        return min(self.clock(), wall + time.monotonic() - monotonic)

    def is_over(self, created: float, found: float) -> bool:
        """Whether an event is too old; uses `found` if `created` is implausible."""
        stamp = created if self.is_likely(created) else found
        return self.is_likely(stamp) and self.now() - stamp > self.longest

    def is_likely(self, stamp: float) -> bool:
        """Whether a correct clock may have shown this time."""
        return _EARLIEST < stamp < self.now() + _AHEAD

    def of_file(self, path: str) -> float:
        """Return when a file was last written, or first found if its own time is implausible."""
        written = os.stat(path).st_mtime
        if not self.is_likely(written):
            os.utime(path)
            written = os.stat(path).st_mtime
        return written


@contextlib.contextmanager
def turn(directory: str, *, patient: bool) -> Generator[bool]:
    """Yield whether to scan for orphans now. `patient`: not while another process scans.

    Two processes that try the same file at once would both find it locked, and skip it. Nothing
    worse happens without turns, so nobody waits long for one: its holder may be suspended.
    """
    try:
        lock = _locked(os.path.join(directory, _LOCK))
    except (OSError, sqlite3.Error):  # another process is scanning, or locking fails here
        yield not patient
        return
    with contextlib.closing(lock):
        yield True


def _locked(path: str, *, again: bool = True) -> sqlite3.Connection:
    """Return a lock that is released with its connection, or its process."""
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
    os.unlink(path)  # something else wrote into it
    return _locked(path, again=False)


@dataclass(slots=True, eq=False)
class Backlog:
    """The events for one address in one file that are only on disk."""

    file: SpoolFile
    line: Any
    """The address as stored in the file."""
    unread: int
    found: float
    """When its file was found, Unix time."""
    cursor: int = 0
    """The last event that was read."""
    head: float | None = None
    """Unix time of the first event, if no client of this process may send it."""
    is_own: bool = False
    """Whether this process captured them."""
    is_full: bool = False
    """Whether so many of them are in memory that the rest must wait."""

    @property
    def address(self) -> Address | None:
        """Where they go; `None` if the address is damaged."""
        return Address.read(self.line)

    @property
    def is_due(self) -> bool:
        """Whether there are events to read for a client of this process."""
        return self.unread > 0 and self.head is None

    def page(self, most: int) -> list[Row]:
        """Read the next events. Raises `sqlite3.Error`."""
        return self.file.page(self.line, self.cursor, most)


@dataclass(frozen=True, slots=True)
class _Left:
    """A file that was released, because no client of this process may send its events."""

    backlogs: list[Backlog]
    state: tuple[int, int]
    """Shows whether the file has changed since."""


Find = Callable[[Project, bool], Any]
"""Returns a client of this process that may send a project's events, with or without a
`before_send`; `None` if there is none."""


class SpoolDirectory:
    """Our own file, and those of ended processes that we have claimed."""

    def __init__(self, place: Spool, damaged: Callable[[str], None], age: Age) -> None:
        self.place = place
        self._damaged = damaged
        """Called with the name of each file that cannot be read."""
        self._age = age
        os.makedirs(place.path, mode=0o700, exist_ok=True)
        self.own: SpoolFile | None = None
        self.claimed: set[SpoolFile] = set()
        self._left: dict[str, _Left] = {}
        self._names: list[str] = []
        """Files that are still to be tried in this scan."""
        self._others = 0
        """Bytes of all files but our own, when last measured."""
        self._measured_at = -_MEASURED_FOR

    # -- writing -------------------------------------------------------------------

    def put(self, lines: list[Line]) -> list[Stored]:
        """Write events as far as there is space; return the places of those written.

        Raises `OSError` or `sqlite3.Error` if nothing was written.
        """
        lines = self._fitting(lines)
        if not lines:
            return []
        if self.own is not None and not self.own.is_in_place():
            self.own = None  # it was removed: only we still hold its events
        if self.own is None:
            os.makedirs(self.place.path, mode=0o700, exist_ok=True)
            self.own = SpoolFile.new(self.place.path)
        try:
            return self.own.put(lines)
        except sqlite3.DatabaseError as error:
            if not isinstance(error, (sqlite3.OperationalError, sqlite3.DataError)):
                self.own = None  # something wrote into it: the next events go to a new file
            raise

    def _fitting(self, lines: list[Line]) -> list[Line]:
        now = time.monotonic()
        if now - self._measured_at >= _MEASURED_FOR:
            self._measured_at, self._others = now, self._measured()
        room = self.place.max_bytes - self._others - (self.own.bytes if self.own else 0)
        for count, line in enumerate(lines):
            room -= line[3]
            if room < 0:
                return lines[:count]
        return lines

    def _measured(self) -> int:
        own = self.own.path if self.own else ""
        size = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.place.path) as entries:
            for entry in entries:
                if entry.path not in (own, own + "-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat().st_size
        return size

    # -- scanning ------------------------------------------------------------------

    @property
    def is_scanning(self) -> bool:
        """Whether files are left to try."""
        return bool(self._names)

    @property
    def has_room(self) -> bool:
        """Whether another file may be claimed."""
        return len(self.claimed) < _MOST_CLAIMED

    @property
    def left(self) -> int:
        """Events in released files, which no client of this process may send."""
        return sum(b.unread for left in list(self._left.values()) for b in left.backlogs)

    def begin_scan(self) -> None:
        """List the files that may be orphans. Raises `OSError`."""
        ours = {file.path for file in (self.own, *self.claimed) if file}
        with os.scandir(self.place.path) as entries:
            paths = [entry.path for entry in entries if entry.path not in ours]
        for path in paths:
            if _DAMAGED in os.path.basename(path):
                self._outlived(path)
        self._names = [path for path in paths if path.endswith(SUFFIX)]
        random.SystemRandom().shuffle(self._names)  # so that processes start at different files
        self._left = {path: left for path, left in self._left.items() if path in self._names}

    def scan(self, find: Find, *, patient: bool) -> list[list[Backlog]] | None:
        """Claim some orphans, and return their backlogs; `None` if it is not our turn.

        `patient`: whether to wait for another process that scans.
        """
        until = time.monotonic() + _LONGEST_LOOK
        found: list[list[Backlog]] = []
        with turn(self.place.path, patient=patient) as ours:
            if not ours:
                return None
            while self._names and self.has_room and time.monotonic() < until:
                path = self._names.pop()
                with contextlib.suppress(FileNotFoundError):
                    if backlogs := self._tried(path, find):
                        found.append(backlogs)
        return found

    def _tried(self, path: str, find: Find) -> list[Backlog] | None:
        if is_being_made(path):
            return None
        left = self._left.get(path)
        if left and left.state == _state(path) and not self.is_due(left.backlogs, find):
            return None
        found = self._age.of_file(path)
        try:
            file = SpoolFile(path)
        except sqlite3.OperationalError:  # its process is running, or we may not write to it
            return None
        except sqlite3.DatabaseError:
            return self._salvaged(path, find)
        try:
            return self._claimed(file, found, find)
        except BaseException as error:
            self.claimed.discard(file)
            file.abandon()
            if not isinstance(error, sqlite3.DatabaseError):
                raise
        return self._salvaged(path, find)

    def _claimed(self, file: SpoolFile, found: float, find: Find) -> list[Backlog] | None:
        """Return the backlogs of a file that we have locked; `None` if none of them is for us."""
        backlogs = [Backlog(file, line, n, found) for line, n in file.totals().items()]
        for backlog in backlogs:
            if (to := backlog.address) and find(to.project, to.filtered) is None:
                backlog.head = backlog.page(1)[0].created
        self._left.pop(file.path, None)
        self.claimed.add(file)
        if self.is_due(backlogs, find):
            return backlogs
        self.release(file, backlogs)
        return None

    def is_due(self, backlogs: Collection[Backlog], find: Find) -> bool:
        """Whether there are events to send, or to drop, in this process now."""
        for backlog in backlogs:
            head, to = backlog.head, backlog.address
            if head is None or to is None:
                continue
            if self._age.is_over(head, backlog.found) or find(to.project, to.filtered):
                backlog.head = None
        return any(backlog.is_due for backlog in backlogs)

    def _salvaged(self, path: str, find: Find) -> list[Backlog] | None:
        """Copy what is readable in a damaged file into a new one, and set it aside."""
        new = SpoolFile.new(self.place.path)
        pages = _pages(path)
        with contextlib.closing(pages):
            while page := _next(pages):
                new.put(page)
        self.set_aside(path)
        return self._claimed(new, time.time(), find)

    def set_aside(self, path: str) -> None:
        """Rename a damaged file so that no process tries it again."""
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path + suffix, path + _DAMAGED + suffix)
        self._damaged(os.path.basename(path))

    def _outlived(self, path: str) -> None:
        """Remove a file that was set aside long ago."""
        with contextlib.suppress(FileNotFoundError):
            found = self._age.of_file(path)
            if self._age.is_over(found, found):
                os.unlink(path)

    # -- releasing -----------------------------------------------------------------

    def release(self, file: SpoolFile, backlogs: list[Backlog]) -> None:
        """Release a file in which nothing is left for us; a new own file is made when needed."""
        self.claimed.discard(file)
        if file is self.own:
            self.own = None
        rest = [backlog for backlog in backlogs if backlog.unread]
        file.close()
        if rest:
            with contextlib.suppress(FileNotFoundError):
                self._left[file.path] = _Left(rest, _state(file.path))


def _state(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size


def _pages(path: str) -> Generator[list[Line]]:
    file = SpoolFile(path)
    try:
        yield from file.pages()
    finally:
        file.abandon()


def _next(pages: Iterator[list[Line]]) -> list[Line] | None:
    """Return the next page; `None` at the end, or if the file is damaged."""
    try:
        return next(pages, None)
    except sqlite3.DatabaseError:
        return None


@dataclass(slots=True)
class Contents:
    """Events of ended processes; running processes report their own."""

    events: Counter[Address | None] = field(default_factory=Counter[Address | None])
    """Number of events for each address; `None` is an address that cannot be read."""
    oldest: float | None = None
    """Unix time at which the first of them was written; `None` if there are none."""
    in_use: int = 0
    """Files of running processes."""
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
                    with contextlib.suppress(FileNotFoundError):  # its process just removed it
                        _read_into(path, found)
                return found
        time.sleep(0.05)


def _files(directory: str) -> Iterator[str]:
    for name in sorted(os.listdir(directory)):
        if name.endswith(SUFFIX):
            yield os.path.join(directory, name)


def _read_into(path: str, found: Contents) -> None:
    if is_being_made(path):
        found.in_use += 1
        return
    try:
        file = SpoolFile(path)
    except sqlite3.OperationalError:  # its process is running
        found.in_use += 1
        return
    except sqlite3.DatabaseError:
        found.damaged += 1
        return
    with contextlib.closing(file):  # which removes it if it is empty
        for line, count in file.totals().items():
            found.events[Address.read(line)] += count
            if rows := file.page(line, 0, 1):
                found.oldest = min(rows[0].created, found.oldest or rows[0].created)
