"""Events on disk, until PostHog has them.

A directory holds one SQLite file a process. A file's lock is its owner's life: SQLite holds it
until the process ends, however it ends, so a file that can be locked is an orphan, and whoever
locks it has adopted it. Nothing here runs on a caller's thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Container, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..event import Event
from ..settings import Spool
from .project import Project

_SUFFIX = ".events"
_DAMAGED = ".damaged"
_LOCK = "lock"
_LONGEST_LOOK = 1.0
"""Seconds to wait for another process that is trying files."""
_TABLE = """create table if not exists events (
    uuid text primary key, created real, address text, body text
) without rowid"""
_ROW = "insert or replace into events values (?, ?, ?, ?)"
Line = tuple[str, float, str, str]
"""One row of a file: uuid, Unix time, address and event as JSON."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a spooled event goes: it outlives the client object that it was meant for."""

    project: Project
    filtered: bool = False
    """Whether the client had a `before_send`: then only another client that has one may send."""

    def line(self) -> str:
        return json.dumps([self.project.api_key, self.project.host, self.filtered])

    @classmethod
    def read(cls, line: str) -> Address:
        """Raises `ValueError` for a damaged line."""
        api_key, host, filtered = json.loads(line)
        return cls(Project(api_key, host), filtered)


@dataclass(frozen=True, slots=True)
class Row:
    """One event on disk, without its content."""

    uuid: str
    created: float
    """Unix time, seconds."""
    address: Address
    size: int


class SpoolFile:
    """One process's events. Every method may raise `sqlite3.Error`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sizes: dict[str, int] = {}
        self.bytes = 0
        """Of the events in it, as JSON."""
        self._db = sqlite3.connect(
            f"{Path(path).absolute().as_uri()}?mode=rw",  # never makes a file that is gone
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        # Kept from the first access until the connection or the process ends.
        self._db.execute("pragma locking_mode = exclusive")
        self._db.execute("pragma journal_mode = wal")
        # A killed process loses nothing by this; a power cut may cost the last moments.
        self._db.execute("pragma synchronous = normal")
        self._db.execute("begin exclusive")
        self._db.execute(_TABLE)
        self._db.execute("commit")

    @classmethod
    def new(cls, directory: str) -> SpoolFile:
        """Make a file of our own, for the owner's eyes only."""
        path = os.path.join(directory, uuid.uuid4().hex + _SUFFIX)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return cls(path)

    def put(self, lines: list[Line]) -> None:
        """Write events, all or none."""
        with self._transaction():
            self._db.executemany(_ROW, lines)
        for line in lines:
            self._count(line[0], len(line[3]))

    def load(self, uuid: str) -> Event | None:
        """Read one event; `None` where it is damaged or gone."""
        row = self._db.execute("select body from events where uuid = ?", (uuid,)).fetchone()
        try:
            return _event(json.loads(row[0]))
        except (ValueError, TypeError, KeyError):
            return None

    def remove(self, uuids: list[str]) -> None:
        """Remove events."""
        with self._transaction():
            self._db.executemany("delete from events where uuid = ?", ((u,) for u in uuids))
        self.bytes -= sum(self._sizes.pop(u, 0) for u in uuids)

    def _count(self, uuid: str, size: int) -> None:
        self._sizes[uuid] = size
        self.bytes += size

    def lines(self) -> Iterator[Line]:
        """Yield everything, up to where the file is damaged."""
        yield from self._db.execute("select * from events")

    def rows(self, damaged: Callable[[str], None]) -> list[Row]:
        """Return what is in the file, the oldest first; tells `damaged` what cannot be read."""
        found: list[Row] = []
        query = "select uuid, created, address, length(body) from events order by created"
        for name, created, address, size in self._db.execute(query).fetchall():
            self._count(name, size)
            try:
                found.append(Row(name, created, Address.read(address), size))
            except (ValueError, TypeError):
                damaged(name)
                self.remove([name])
        return found

    def close(self) -> None:
        """Let go of the file, and remove it when nothing is in it."""
        empty = self._db.execute("select 1 from events limit 1").fetchone() is None
        self._db.close()
        if empty:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise
        self._db.execute("commit")


class SpoolDirectory:
    """Our own file, and those of ended processes that we have adopted."""

    def __init__(self, place: Spool, damaged: Callable[[str], None]) -> None:
        self.place = place
        self._damaged = damaged
        """Told of each thing that cannot be read."""
        os.makedirs(place.path, mode=0o700, exist_ok=True)
        self._own: SpoolFile | None = None
        self._adopted: list[SpoolFile] = []
        self._others = 0
        """Bytes of files that are not ours, when last looked at."""

    def put(self, entries: list[tuple[Event, Address]]) -> SpoolFile | None:
        """Write events; returns the file, or `None` where the directory has no room for them."""
        now = time.time()
        return self._put([(e.uuid, now, a.line(), _packed(e)) for e, a in entries])

    def _put(self, lines: list[Line]) -> SpoolFile | None:
        in_use = self._others + sum(file.bytes for file in (self._own, *self._adopted) if file)
        if in_use + sum(len(line[3]) for line in lines) > self.place.max_bytes:
            return None
        if self._own is None:
            self._own = SpoolFile.new(self.place.path)
        self._own.put(lines)
        return self._own

    def orphans(self) -> list[tuple[SpoolFile, list[Row]]]:
        """Adopt each file whose process has ended, and return its events."""
        with contextlib.closing(_lock(self.place.path)) as lock:
            try:
                lock.execute("begin exclusive")
            except sqlite3.OperationalError:  # another process is looking
                return []
            return list(self._adopt_all())

    def _adopt_all(self) -> Iterator[tuple[SpoolFile, list[Row]]]:
        ours = {file.path for file in (self._own, *self._adopted) if file}
        self._others = 0
        for entry in list(os.scandir(self.place.path)):
            if entry.path in ours or not entry.name.endswith(_SUFFIX):
                continue
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat().st_size
                if found := self._adopt(entry.path) if size else None:  # 0: just being made
                    yield found
                else:
                    self._others += size

    def _adopt(self, path: str) -> tuple[SpoolFile, list[Row]] | None:
        """Lock and read a file; `None` while its process lives, or when nothing is in it."""
        try:
            file = SpoolFile(path)
            rows = file.rows(self._damaged)
        except sqlite3.OperationalError:  # locked: its process lives; or already gone
            return None
        except sqlite3.DatabaseError:
            return self._salvage(path)
        self._adopted.append(file)
        if not rows:
            self.release(file)
        return (file, rows) if rows else None

    def _salvage(self, path: str) -> tuple[SpoolFile, list[Row]] | None:
        """Take over what a damaged file still tells, and set the file aside."""
        lines: list[Line] = []
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(SpoolFile(path)) as old:
            lines.extend(old.lines())  # up to where reading fails
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path + suffix, path + _DAMAGED + suffix)
        self._damaged(os.path.basename(path))
        file = self._put(lines) if lines else None
        if file is None:
            return None
        return (file, [Row(u, c, Address.read(a), len(b)) for u, c, a, b in lines])

    def release(self, file: SpoolFile) -> None:
        """Let go of a file once all of its events are settled; our own is used again."""
        if file is not self._own:
            if file in self._adopted:
                self._adopted.remove(file)
            file.close()

    def close(self, keep: Container[SpoolFile]) -> None:
        """Let go of the files whose events are settled."""
        for file in (self._own, *self._adopted):
            if file is not None and file not in keep:
                file.close()
        self._own, self._adopted = None, []


def _lock(directory: str) -> sqlite3.Connection:
    """Return what one process at a time may lock, to try files.

    Two that try the same file at once would both find it locked, and leave it.
    """
    path = os.path.join(directory, _LOCK)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    return sqlite3.connect(path, timeout=_LONGEST_LOOK, isolation_level=None)


def _packed(event: Event) -> str:
    """Return an event as JSON."""
    return json.dumps(
        {
            "name": event.name,
            "uuid": event.uuid,
            "distinct_id": event.distinct_id,
            "timestamp": event.timestamp.isoformat(),
            "properties": event.properties,
            "groups": event.groups,
        },
        default=str,
    )


def _event(values: dict[str, Any]) -> Event:
    timestamp = datetime.fromisoformat(values.pop("timestamp"))
    return Event(**values, timestamp=timestamp, size=0)
