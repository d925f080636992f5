"""One process's events on disk: a SQLite file whose lock is its owner's life.

SQLite holds the lock until the process ends, however it ends, so a file that can be locked is an
orphan, and whoever locks it has claimed it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .._event import Event
from .destinations import Project

SUFFIX = ".events"
_NEW = 3600.0
"""Seconds for which an empty file is taken for one that is just being made."""
_PAGE = 256
"""Rows that are in memory at once while a file is copied."""
_OPENING = (
    # Kept from the first access until the connection or the process ends.
    "pragma locking_mode = exclusive",
    # What is removed leaves the disk: its bytes are overwritten, and the file shrinks.
    "pragma auto_vacuum = full",
    "pragma secure_delete = on",
    "pragma journal_mode = wal",
    # A killed process loses nothing by this; a power cut may cost the last moments.
    "pragma synchronous = normal",
    "pragma cache_size = -256",
    "begin exclusive",
    """create table if not exists events (
        seq integer primary key, uuid text, created real, address text, size integer, body text
    )""",
    "create index if not exists by_address on events (address)",
    "commit",
)
Line = tuple[str, float, str, int, str]
"""An event to be written: uuid, Unix time, address, and its JSON with the length of that."""


def is_being_made(path: str) -> bool:
    """Whether a process may be about to lock this file. Raises `OSError` where it is gone."""
    state = os.stat(path)
    return not state.st_size and time.time() - state.st_mtime < _NEW


@dataclass(frozen=True, slots=True)
class Address:
    """Where a spooled event goes: it outlives the client object that it was meant for."""

    project: Project
    filtered: bool = False
    """Whether the client had a `before_send`: then only another client that has one may send."""

    def line(self) -> str:
        return json.dumps([self.project.api_key, self.project.host, self.filtered])

    @classmethod
    def read(cls, line: Any) -> Address | None:
        """Return what a line says; `None` where it is damaged."""
        try:
            api_key, host, filtered = json.loads(line)
        except (ValueError, TypeError):
            return None
        if not (isinstance(api_key, str) and isinstance(host, str)):
            return None
        return cls(Project(api_key, host), bool(filtered))


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one event lies on disk."""

    file: SpoolFile
    seq: int
    size: int
    """Bytes of its JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event on disk, without its content."""

    stored: Stored
    uuid: str
    created: float
    """Unix time, seconds, by the clock of its writer; 0 where that is damaged."""


class SpoolFile:
    """Events in the order of their writing. Every method may raise `sqlite3.Error`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        """Events in it."""
        self.bytes = 0
        """JSON of the events that were written through this object."""
        self.dirty_since: float | None = None
        """Since when removed content may be readable on disk, by the monotonic clock."""
        self.used_at = time.monotonic()
        """When something was last written."""
        self._db = _connected(path)
        try:
            for statement in _OPENING:
                self._db.execute(statement)
            self._last: int = self._one("select max(seq) from events") or 0
            self._inode = os.stat(path).st_ino
        except BaseException:
            self._db.close()
            raise
        # SQLite holds this function, which holds us: only `close` ends the connection. A forked
        # child that dropped it would take its parent's write-ahead log away.
        self._db.create_function("owner", 0, self.close)

    @classmethod
    def new(cls, directory: str) -> SpoolFile:
        """Make a file of our own, for the owner's eyes only."""
        path = os.path.join(directory, uuid.uuid4().hex + SUFFIX)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return cls(path)

    def is_in_place(self) -> bool:
        """Whether the file still is where it was made."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def put(self, lines: Sequence[Line]) -> list[Stored]:
        """Write events, all or none."""
        first = self._last + 1
        with self._transaction():
            self._db.executemany(
                "insert into events values (?, ?, ?, ?, ?, ?)",
                ((seq, *line) for seq, line in enumerate(lines, first)),
            )
        self._last += len(lines)
        self.count += len(lines)
        self.used_at = time.monotonic()
        self.bytes += sum(line[3] for line in lines)
        return [Stored(self, seq, line[3]) for seq, line in enumerate(lines, first)]

    def load(self, seq: int) -> Event | None:
        """Read one event; `None` where it is damaged or gone."""
        try:
            return _event(json.loads(self._one("select body from events where seq = ?", seq)))
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError):
            return None

    def remove(self, done: Sequence[Stored]) -> None:
        """Remove events. What was said in them is readable until `scrub`.

        On a disk that is full the write-ahead log makes room, else the whole file goes where
        nothing else is in it: what PostHog has must not be sent again.
        """
        try:
            self._delete(done)
        except sqlite3.OperationalError:
            self._empty_log()
            self._delete_or_unlink(done)
        self.count -= len(done)
        self.bytes -= sum(s.size for s in done)
        if self.dirty_since is None:
            self.dirty_since = time.monotonic()

    def _delete(self, done: Sequence[Stored]) -> None:
        with self._transaction():
            self._db.executemany("delete from events where seq = ?", ((s.seq,) for s in done))

    def _delete_or_unlink(self, done: Sequence[Stored]) -> None:
        try:
            self._delete(done)
        except sqlite3.OperationalError:
            if len(done) < self.count:
                raise
            os.unlink(self.path)

    def _empty_log(self) -> None:
        self._db.execute("pragma wal_checkpoint(truncate)").fetchone()

    def scrub(self) -> None:
        """Take what was removed off the disk."""
        self.dirty_since = time.monotonic()  # where it fails, it is tried again later
        self._empty_log()
        self.dirty_since = None

    def totals(self) -> dict[Any, int]:
        """Count the events by address; what is damaged may be no text."""
        counts = "select address, count(*) from events group by address"
        totals: dict[Any, int] = dict(self._db.execute(counts).fetchall())
        self.count = sum(totals.values())
        return totals

    def page(self, address: Any, after: int, most: int) -> list[Row]:
        """Return the next events of an address, behind the event `after`."""
        found = self._db.execute(
            "select seq, size, uuid, created from events where address is ? and seq > ? "
            "order by seq limit ?",
            (address, after, most),
        )
        return [
            Row(Stored(self, seq, size), str(name), created if isinstance(created, float) else 0.0)
            for seq, size, name, created in found
        ]

    def pages(self) -> Iterator[list[Line]]:
        """Yield everything, up to where the file is damaged."""
        found = self._db.execute("select uuid, created, address, size, body from events")
        while page := found.fetchmany(_PAGE):
            yield [line for line in page if isinstance(line[4], str)]

    def close(self) -> None:
        """Let the next process have the file; remove it where nothing is in it."""
        try:
            is_empty = self._one("select 1 from events limit 1") is None
        finally:
            self._db.close()
        if is_empty and self.is_in_place():
            os.unlink(self.path)

    def abandon(self) -> None:
        """Close the file as it is."""
        self._db.close()

    def _one(self, query: str, *values: Any) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have done it already
                self._db.execute("rollback")
            raise


def _connected(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=rw",  # never makes a file that is gone
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )


def packed(event: Event) -> str:
    """Return an event as JSON. Raises what `json` raises for a value that cannot be told."""
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
    return Event(**values, timestamp=timestamp)
