"""The dispatcher's side of the spool: what is written when, and what happens when it fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..faults import guarded
from ..settings import Spool, settings
from .destinations import official_client, project_of
from .lane import Entry
from .project import Project
from .stats import Ledger

if TYPE_CHECKING:
    from .spool import Row, SpoolDirectory, SpoolFile

_LOOK = 5.0
"""Seconds between two looks for files of ended processes."""
_inherited: list[Any] = []
"""A parent's connections: closing them in a forked child could disturb the parent."""


class Shelf:
    """Writes events to the spool before they are handed over; does nothing without a spool.

    A disk that is full, or fails, degrades to memory: the event goes on without its copy.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._directory: SpoolDirectory | None = None
        self._new: list[tuple[Entry, tuple[Project, bool]]] = []
        self._gone: dict[SpoolFile, list[str]] = {}
        self._left: Counter[SpoolFile] = Counter()
        """Unsettled events in each file."""
        self._strangers: list[tuple[SpoolFile, Row]] = []
        """What no client of this process may send."""
        self._looked_at = -_LOOK

    @property
    def count(self) -> int:
        """Events that are in the spool."""
        return sum(self._left.values())

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

    @guarded
    def _opened(self, place: Spool) -> SpoolDirectory:
        from .spool import SpoolDirectory  # SQLite is loaded where it is used

        return SpoolDirectory(place, self._damaged)

    def add(self, entry: Entry, client: Any) -> None:
        """Note an event that is to be written."""
        project = project_of(client) if self._directory else None
        if project is not None:
            filtered = bool(getattr(official_client(client), "before_send", None))
            self._new.append((entry, (project, filtered)))

    def write(self) -> None:
        """Write what is new, all at once, before it is handed over."""
        new, self._new = self._new, []
        file = self._written(new) if new and self._directory else None
        if file is not None:
            for entry, _ in new:
                entry.file = file
            self._left[file] += len(new)

    @guarded
    def _written(self, new: list[tuple[Entry, tuple[Project, bool]]]) -> SpoolFile | None:
        from .spool import Address

        assert self._directory is not None
        return self._directory.put(
            [(entry.event, Address(*to)) for entry, to in new if entry.event is not None]
        )

    def remove(self, entry: Entry) -> None:
        """Note that an event is settled."""
        if entry.file is not None:
            self._gone.setdefault(entry.file, []).append(entry.uuid)

    def clean(self) -> None:
        """Remove what is settled, all at once, and let go of files that are empty."""
        gone, self._gone = self._gone, {}
        for file, uuids in gone.items():
            if not self._removed(file, uuids):
                self._gone.setdefault(file, []).extend(uuids)  # the next turn tries again

    @guarded
    def _removed(self, file: SpoolFile, uuids: list[str]) -> bool:
        file.remove(uuids)
        self._left[file] -= len(uuids)
        if not self._left[file]:
            del self._left[file]
            if self._directory is None:
                file.close()
            else:
                self._directory.release(file)
        return True

    def found(self, find: Callable[[Project, bool], Any]) -> Iterator[tuple[SpoolFile, Row, Any]]:
        """Yield what ended processes left, with a client that may send it."""
        if self._directory is None or time.monotonic() - self._looked_at < _LOOK:
            return
        self._looked_at = time.monotonic()
        rows, self._strangers = self._strangers, []
        for file, new in self._orphans() or ():
            self._left[file] += len(new)
            rows += ((file, row) for row in new)
        oldest = time.time() - self._directory.place.max_age
        for file, row in rows:
            client = find(row.address.project, row.address.filtered)
            if row.created < oldest:
                self._ledger.drop(row.uuid, "spool_age")
                self._gone.setdefault(file, []).append(row.uuid)
            elif client is None:
                self._strangers.append((file, row))
            else:
                yield file, row, client

    @guarded
    def _orphans(self) -> list[tuple[SpoolFile, list[Row]]]:
        assert self._directory is not None
        return self._directory.orphans()

    def _damaged(self, name: str) -> None:
        self._ledger.drop(name, "spool_damaged")

    def close(self) -> None:
        """Let go of the directory, and of each file when it is empty.

        Until then a file stays ours: PostHog may still accept what it holds.
        """
        if self._directory is not None:
            guarded(self._directory.close)(keep=self._left)
        self._directory = None

    def leave(self) -> None:
        """Leave everything as it is, in a forked child: it is the parent's."""
        _inherited.append(self._directory)
        self._directory = None
