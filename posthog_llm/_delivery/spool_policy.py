"""What is written to the spool, when, and what happens if that fails."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._faults import guarded, warn
from .._settings import Spool, settings
from .destinations import Project, official_client, project_of
from .queues import DestinationQueue, Entry
from .stats import Ledger

if TYPE_CHECKING:
    from .spool import Age, Backlog, Find, SpoolDirectory
    from .spool_file import Line, Row, SpoolFile, Stored

_FIRST_PAUSE = 5.0
"""Seconds between the first two scans."""
_LONGEST_PAUSE = 60.0
"""Most seconds between two scans, once several have found nothing."""
_JITTER = 0.25
"""Random share added to or taken off a pause, to spread processes that start together."""
_RETRY = 0.05
"""Seconds between two attempts to scan while another process scans."""
_PATIENCE = 1.0
"""Seconds after which we scan in parallel: the other process may be suspended."""
_SCRUB = 1.0
"""Seconds for which removed content may stay on disk."""
_REST = 10.0
"""Seconds after which an idle process removes its empty file, which others would try."""
_PAGE = 256
"""Events that are read at a time."""
IN_MEMORY = 4000
"""Waiting events of a destination beyond which new ones are only on disk."""


class Scanner:
    """Scans one directory. Used only by the worker, except for `is_wanted`."""

    def __init__(self, directory: SpoolDirectory) -> None:
        self._directory = directory
        self.is_wanted = True
        """Whether to scan as soon as possible."""
        self._next_at = self._began = 0.0
        self._pause = _FIRST_PAUSE
        self._is_refused = False
        """Whether another process was scanning when we last tried."""

    @property
    def is_pending(self) -> bool:
        """Whether a scan is wanted or unfinished."""
        return self.is_wanted or self._directory.is_scanning

    def due(self) -> Iterator[float]:
        """Yield the seconds until there is something to do."""
        if not self._directory.is_scanning:
            yield max(0.0, self._next_at - time.monotonic())
        elif self._directory.has_room:
            yield _RETRY if self._is_refused else 0.0

    def scan(self, held: Collection[Backlog], find: Find) -> Iterator[list[Backlog]]:
        """Yield the backlogs of each newly claimed file; check again those that we hold."""
        now = time.monotonic()
        if not self._directory.is_scanning:
            if now < self._next_at and not self.is_wanted:
                return
            self.is_wanted, self._began = False, now
            self._schedule(now, self._pause)
            guarded(self._directory.begin_scan)()
            self._directory.is_due(held, find)
        if self._directory.is_scanning and self._directory.has_room:
            patient = now - self._began < _PATIENCE
            found = guarded(self._directory.scan)(find, patient=patient)
            self._is_refused = found is None
            if found:
                self._schedule(now, _FIRST_PAUSE)
            yield from found or ()

    def _schedule(self, now: float, pause: float) -> None:
        self._next_at = now + pause * random.SystemRandom().uniform(1 - _JITTER, 1 + _JITTER)
        self._pause = min(pause * 2, _LONGEST_PAUSE)


@dataclass(slots=True)
class _New:
    """An event that is to be written."""

    entry: Entry
    queue: DestinationQueue
    project: Project
    filtered: bool


class SpoolPolicy:
    """Writes events to the spool before they are submitted; does nothing without a spool.

    If the disk is full or fails, the event continues in memory, without a copy on disk.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._directory: SpoolDirectory | None = None
        self._age: Age | None = None
        self._new: list[_New] = []
        self._gone: dict[SpoolFile, list[Stored]] = {}
        self._files: dict[SpoolFile, dict[Any, Backlog]] = {}
        """Every file that we hold now, with the events that are only on disk, by address."""
        self._in_memory: Counter[SpoolFile] = Counter()
        """Unresolved events in each file that are also in memory."""
        self._scanner: Scanner | None = None

    @property
    def count(self) -> int:
        """Number of events in the spool."""
        left = self._directory.left if self._directory else 0
        return left + sum(file.count for file in list(self._files))

    @property
    def own(self) -> int:
        """Number of events of this process that are only in the spool."""
        backlogs = [b for known in list(self._files.values()) for b in list(known.values())]
        return sum(backlog.unread for backlog in backlogs if backlog.is_own)

    @property
    def is_open(self) -> bool:
        return self._directory is not None

    def follow_settings(self) -> None:
        """Open the directory that is configured now."""
        place = settings().spool
        if self._directory is not None and self._directory.place == place:
            return
        self.close()
        if place is not None:
            self._directory = self._opened(place)
            self._scanner = Scanner(self._directory) if self._directory else None

    @guarded
    def _opened(self, place: Spool) -> SpoolDirectory | None:
        from .spool import (
            Age,
            SpoolDirectory,  # SQLite is loaded only if it is used
        )

        self._age = Age(place.max_age)
        try:
            return SpoolDirectory(place, self._damaged, self._age)
        except OSError as error:
            warn("no spool in %s (%s): events are in memory only", place.path, error)
            return None

    def _damaged(self, name: str) -> None:
        self._ledger.drop(name, "spool_damaged")

    # -- writing -------------------------------------------------------------------

    def add(self, entry: Entry, queue: DestinationQueue) -> None:
        """Note an event that is to be written."""
        project = project_of(queue.client) if self._directory else None
        if project is not None:
            filtered = bool(getattr(official_client(queue.client), "before_send", None))
            self._new.append(_New(entry, queue, project, filtered))

    def write(self) -> list[Entry]:
        """Write all new events in one transaction, before they are submitted.

        Returns the events that need not stay in memory, because many wait before them.
        """
        new, self._new = self._new, []
        if not new or self._directory is None:
            return []
        pairs = [(one, line) for one in new if (line := self._line(one))]
        stored = self._written([line for _, line in pairs]) or ()
        return [
            one.entry
            for (one, line), where in zip(pairs, stored, strict=False)  # fewer: no more space
            if not self._keeps(one, line[2], where)
        ]

    @guarded
    def _line(self, one: _New) -> Line | None:
        from .spool_file import Address, packed

        event = one.entry.event
        if event is None:
            return None
        body = packed(event)
        address = Address(one.project, one.filtered).line()
        return event.uuid.encode("utf-8", "replace").decode(), time.time(), address, len(body), body

    @guarded
    def _written(self, lines: list[Line]) -> list[Stored]:
        assert self._directory is not None
        return self._directory.put(lines)

    def _keeps(self, one: _New, line: str, where: Stored) -> bool:
        """Note where an event is stored; return whether it also stays in memory.

        Once an event of an address is only on disk, so are those after it: they are read in order.
        """
        from .spool import Backlog

        one.entry.stored = where
        backlogs = self._files.setdefault(where.file, {})
        if line not in backlogs and len(one.queue.waiting) <= IN_MEMORY:
            self._in_memory[where.file] += 1
            return True
        backlog = backlogs.setdefault(
            line, Backlog(where.file, line, 0, time.time(), where.seq - 1, is_own=True)
        )
        backlog.unread += 1
        return False

    # -- reading -------------------------------------------------------------------

    def look_soon(self) -> None:
        """Request a scan: there may now be a client for events that had none. For any thread."""
        if (scanner := self._scanner) is not None:
            scanner.is_wanted = True

    def read(self, find: Find, has_room: Callable[[Any], bool]) -> Iterator[tuple[Row, Any]]:
        """Yield some events that are only on disk, each with a client that may send it."""
        if self._scanner is not None:
            held = [b for backlogs in self._files.values() for b in backlogs.values()]
            for found in self._scanner.scan(held, find):
                self._files[found[0].file] = {backlog.line: backlog for backlog in found}
        for backlogs in list(self._files.values()):
            for line, backlog in list(backlogs.items()):
                if backlog.is_due:
                    yield from self._next(backlog, find, has_room)
                if not backlog.unread:
                    del backlogs[line]

    def _next(
        self, backlog: Backlog, find: Find, has_room: Callable[[Any], bool]
    ) -> Iterator[tuple[Row, Any]]:
        address = backlog.address
        client = find(address.project, address.filtered) if address else None
        backlog.is_full = client is not None and not has_room(client)
        if backlog.is_full:
            return
        for row in self._page(backlog):
            is_over = self._age is not None and self._age.is_over(row.created, backlog.found)
            if address is not None and client is None and not is_over:
                backlog.head = row.created
                return
            backlog.cursor = row.stored.seq
            backlog.unread -= 1
            self._in_memory[backlog.file] += 1
            if client is not None and not is_over:
                yield row, client
            else:
                self._ledger.drop(row.uuid, "spool_age" if address else "spool_damaged")
                self.remove(row.stored)

    def _page(self, backlog: Backlog) -> list[Row]:
        rows = guarded(backlog.page)(_PAGE)
        if not rows:  # damaged, or fewer than counted
            backlog.file.count -= backlog.unread
            backlog.unread = 0
        if rows is None and self._directory is not None:
            guarded(self._directory.set_aside)(backlog.file.path)
        return rows or []

    def is_waiting(self) -> bool:
        """Whether events that this process may send, or captured, are only on disk.

        Events that other processes left, and none of our clients may send, do not count.
        """
        is_scanning = self._scanner is not None and self._scanner.is_pending
        return is_scanning or any(
            backlog.is_due or (backlog.is_own and backlog.unread)
            for backlogs in self._files.values()
            for backlog in backlogs.values()
        )

    def has_unread(self, project: Project | None) -> bool:
        """Whether events for a project are only on disk."""
        return any(
            backlog.is_due and backlog.address is not None and backlog.address.project == project
            for backlogs in self._files.values()
            for backlog in backlogs.values()
        )

    # -- removing ------------------------------------------------------------------

    def remove(self, stored: Stored | None) -> None:
        """Note that an event is delivered or dropped; `None` if it was never written."""
        if stored is not None:
            self._gone.setdefault(stored.file, []).append(stored)

    def clean(self) -> None:
        """Remove delivered and dropped events in one transaction, and release finished files."""
        gone, self._gone = self._gone, {}
        for file, done in gone.items():
            if not self._removed(file, done):
                self._gone.setdefault(file, []).extend(done)  # the next turn retries
        now = time.monotonic()
        for file in list(self._files):
            if file.dirty_since is not None and now - file.dirty_since >= _SCRUB:
                guarded(file.scrub)()
            if self._is_done(file) and not (self._is_own(file) and now - file.used_at < _REST):
                self._release(file)

    @guarded
    def _removed(self, file: SpoolFile, done: list[Stored]) -> bool:
        file.remove(done)
        self._in_memory[file] -= len(done)
        return True

    def _is_own(self, file: SpoolFile) -> bool:
        return self._directory is not None and file is self._directory.own

    def _is_done(self, file: SpoolFile) -> bool:
        """Whether this process is finished with a file."""
        backlogs = self._files[file].values()
        is_read = not any(b.is_due or (b.is_own and b.unread) for b in backlogs)
        return is_read and not self._in_memory[file]

    @guarded
    def _release(self, file: SpoolFile) -> None:
        backlogs = list(self._files.pop(file).values())
        del self._in_memory[file]
        if self._directory is None:
            file.close()
        else:
            self._directory.release(file, backlogs)

    def due(self) -> Iterator[float]:
        """Yield the seconds until there is something to do."""
        now = time.monotonic()
        if self._scanner is not None:
            yield from self._scanner.due()
        for file, backlogs in self._files.items():
            if any(backlog.is_due and not backlog.is_full for backlog in backlogs.values()):
                yield 0.0
            if file.dirty_since is not None:
                yield max(0.0, file.dirty_since + _SCRUB - now)
            if self._is_own(file) and self._is_done(file):
                yield max(0.0, file.used_at + _REST - now)

    # -- the end -------------------------------------------------------------------

    def close(self) -> None:
        """Release the directory, and each file once it is finished.

        Until then a file stays ours: PostHog may still accept its events.
        """
        if self._directory is None:
            return
        for file, backlogs in list(self._files.items()):
            for line in [line for line, backlog in backlogs.items() if not backlog.is_own]:
                del backlogs[line]
            if self._is_done(file):
                self._release(file)
        self._directory = self._scanner = None
