"""One process's events on disk: a SQLite file that is locked while its owner lives.

SQLite holds the lock until the process ends, however it ends. So a file that can be locked is an
orphan, and the process that locks it has claimed it.
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
"""Seconds for which an empty file is treated as one that is just being created."""
_PAGE = 256
"""Rows that are held in memory while a file is copied."""
_OPENING = (
    # Hold the lock from the first access until the connection or the process ends.
    "pragma locking_mode = exclusive",
    # Removed events leave the disk: their bytes are overwritten, and the file shrinks.
    "pragma auto_vacuum = full",
    "pragma secure_delete = on",
    "pragma journal_mode = wal",
    # A killed process loses nothing; a power failure may lose the last moments.
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
"""An event to be written: uuid, Unix time, address, length of its JSON, its JSON."""


def is_being_made(path: str) -> bool:
    """Whether a process may be about to lock this file. Raises `OSError` if it is gone."""
    state = os.stat(path)
    return not state.st_size and time.time() - state.st_mtime < _NEW


@dataclass(frozen=True, slots=True)
class Address:
    """Where a spooled event goes: events outlive the client object that they were meant for."""

    project: Project
    filtered: bool = False
    """Whether the client had a `before_send`: then only a client with one may send the event."""

    def line(self) -> str:
        return json.dumps([self.project.api_key, self.project.host, self.filtered])

    @classmethod
    def read(cls, line: Any) -> Address | None:
        """Parse a line; `None` if it is damaged."""
        try:
            api_key, host, filtered = json.loads(line)
        except (ValueError, TypeError):
            return None
        if not (isinstance(api_key, str) and isinstance(host, str)):
            return None
        return cls(Project(api_key, host), bool(filtered))


@dataclass(frozen=True, slots=True)
class Stored:
    """The place of one event on disk."""

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
    """Unix time in seconds, by its writer's clock; 0 if that is damaged."""


class SpoolFile:
    """Events in the order in which they were written. Every method may raise `sqlite3.Error`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        """Events in it."""
        self.bytes = 0
        """Bytes of JSON of the events that were written through this object."""
        self.dirty_since: float | None = None
        """Since when removed content may be readable on disk (monotonic clock)."""
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
        # A reference cycle through SQLite, so that only `close` ends the connection: dropping it
        # in a forked child would delete the parent's write-ahead log.
        self._db.create_function("owner", 0, self.close)

    @classmethod
    def new(cls, directory: str) -> SpoolFile:
        """Create our own file, readable only by its owner."""
        path = os.path.join(directory, uuid.uuid4().hex + SUFFIX)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return cls(path)

    def is_in_place(self) -> bool:
        """Whether the file is still where it was created."""
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
        """Read one event; `None` if it is damaged or gone."""
        try:
            return _event(json.loads(self._one("select body from events where seq = ?", seq)))
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError):
            return None

    def remove(self, done: Sequence[Stored]) -> None:
        """Remove events. Their content stays readable on disk until `scrub`.

        On a full disk, space is freed by emptying the write-ahead log, or else by deleting the
        file if it holds nothing else: events that PostHog has must not be sent again.
        """
        try:
            self._delete(done)
        except sqlite3.OperationalError:
            with contextlib.suppress(sqlite3.OperationalError):  # no space even for that
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
        """Erase removed events from the disk."""
        self.dirty_since = time.monotonic()  # if this fails, it is retried later
        self._empty_log()
        self.dirty_since = None

    def totals(self) -> dict[Any, int]:
        """Count the events by address; a damaged address may have another type than `str`."""
        counts = "select address, count(*) from events group by address"
        totals: dict[Any, int] = dict(self._db.execute(counts).fetchall())
        self.count = sum(totals.values())
        return totals

    def page(self, address: Any, after: int, most: int) -> list[Row]:
        """Return the next events of an address after the event `after`."""
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
        """Yield all events up to where the file is damaged."""
        found = self._db.execute("select uuid, created, address, size, body from events")
        while page := found.fetchmany(_PAGE):
            yield [line for line in page if isinstance(line[4], str)]

    def close(self) -> None:
        """Release the file to the next process; remove it if it is empty."""
        try:
            is_empty = self._one("select 1 from events limit 1") is None
        finally:
            self._db.close()
        if is_empty and self.is_in_place():
            os.unlink(self.path)

    def abandon(self) -> None:
        """Close the file without changes."""
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
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back already
                self._db.execute("rollback")
            raise


def _connected(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=rw",  # never recreates a deleted file
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )


def packed(event: Event) -> str:
    """Return an event as JSON. Raises what `json` raises for a value it cannot encode."""
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
