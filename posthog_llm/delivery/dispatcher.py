"""From built events to receipts: every event is delivered, or counted as lost.

Everything here runs on the worker's thread, but for `capture` of destinations that may block
and for receipts, which come back through `results`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from typing import Any

from ..event import Event
from ..faults import report
from ..settings import settings
from ..weighing import size_of_plain
from .destinations import flush, project_of
from .queues import SWEEP, Entry, Lane, Lanes, hand_over, shrink
from .results import Receipt, listen
from .spool_policy import IN_MEMORY, Shelf
from .stats import Ledger, Stats
from .trimming import bare, weigh, writable

_WEIGHT = 2048
"""Bytes that an event takes beside its properties."""
_MOST_STRANGE = 1000
"""Receipts that are kept until `capture` has returned under which uuid it took an event."""
_SHARE = 0.25
"""Share of the allowed bytes that built events may take, however many calls wait to be read."""
MOST_SENDERS = 32
"""Threads at once, however many destinations there are."""
_IDLE_SECONDS = 10.0
"""Seconds that a thread waits for work before it ends."""


class Dispatcher:
    """Holds every event from when it is built until PostHog has it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.ledger = Ledger()
        self.entries: OrderedDict[str, tuple[Lane, Entry]] = OrderedDict()
        """Every event that is not settled, the oldest first."""
        self._aliases: dict[str, str] = {}
        """Uuids that a `before_send` gave, to ours."""
        self._strange: OrderedDict[str, Receipt] = OrderedDict()
        """The last receipts for uuids that are not known: of the user's own events, mostly."""
        self.bytes = 0
        """Memory that they take, about."""
        self._whole: OrderedDict[str, Entry] = OrderedDict()
        """Those of them whose content is in memory."""
        self.lanes = Lanes()
        self._numbers = count(1)
        self.last_number = 0
        self._results: deque[tuple[Lane | None, dict[str, Receipt]]] = deque()
        self.senders = Senders()
        self.shelf = Shelf(self.ledger)
        self._swept_at = 0.0
        self._new = 0

    # -- in ------------------------------------------------------------------------

    def add(self, event: Event, client: Any, *, bared: bool = False) -> None:
        """Take an event for `client`; `None`: there is no destination for it.

        `bared`: its content was given up before it was built.
        """
        if client is None:
            self.ledger.lose(event.uuid, "no_destination", wanted=True)
        elif event.uuid not in self.entries:
            event, length = writable(event)
            entry = self._enter(client, event.uuid, event, length)
            self._new += 1
            entry.bared = bared
            self.shelf.add(entry, self.entries[event.uuid][0])

    def adopt(self, find: Callable[[Any, bool], Any]) -> None:
        """Take in what earlier processes left in the spool."""
        for row, client in self.shelf.read(find, self._has_room):
            known = self.entries.get(row.uuid)
            entry = known[1] if known else self._enter(client, row.uuid, None, row.stored.size)
            if entry.stored is not None:  # two files have it: a copy's writer was killed
                self.shelf.remove(row.stored)
                continue
            entry.stored, entry.number = row.stored, 0  # it came before what was captured here

    def _has_room(self, client: Any) -> bool:
        return self.lanes.waiting(client) < IN_MEMORY // 2

    def _enter(self, client: Any, uuid: str, event: Event | None, length: int) -> Entry:
        lane, is_new = self.lanes.of(client)
        if is_new and project_of(client) is not None:
            listen(self.note)
        self.last_number = next(self._numbers)
        size = _weight(event) if event else length
        entry = Entry(uuid, self.last_number, event, length, size, time.monotonic(), sent_as=uuid)
        lane.waiting.append(entry)
        self.entries[uuid] = (lane, entry)
        if event is not None:
            self._whole[uuid] = entry
            self.bytes += entry.size
        return entry

    def next_turn(self) -> float | None:
        """Return in how many seconds a turn is due; `None`: when something comes."""
        return min(chain(self.ledger.next_line(), self.lanes.due(), self.shelf.due()), default=None)

    def save(self) -> None:
        """Write what is new to the spool, and close it."""
        self._write()
        self._settle_all()
        self.shelf.clean()
        self.shelf.close()

    def _write(self) -> None:
        for entry in reversed(self.shelf.write()):
            self._take_out(entry)
        self.ledger.captured += self._new  # told only when it is safe
        self._new = 0

    # -- the turn ------------------------------------------------------------------

    def turn(self, others: int) -> None:
        """Do what can be done now. `others`: bytes of calls that wait to be read."""
        self._write()
        self._settle_all()
        self.keep_bound(others)
        now = time.monotonic()
        for lane in self.lanes:
            self._pump(lane, now)
        if now - self._swept_at > SWEEP:
            self._swept_at = now
            self._sweep()
        self.ledger.tell()
        self.shelf.clean()

    def _pump(self, lane: Lane, now: float) -> None:
        while lane.ready(now):
            if lane.may_block():
                entries = [(entry, entry.load()) for entry in lane.some()]
                self.senders.run(partial(self._send, lane, entries))
                return
            entry = lane.next()
            receipt = hand_over(lane, entry, entry.load())
            if receipt is not None:
                self._settle(lane, {entry.uuid: receipt})

    def _send(self, lane: Lane, entries: list[tuple[Entry, Event | None]]) -> None:
        """Hand events to a destination that may block, on a thread that may wait."""
        results: dict[str, Receipt] = {}
        left = deque(entries)
        try:
            while left:
                entry, event = left[0]
                receipt = hand_over(lane, entry, event)
                left.popleft()
                if entry.sent_as != entry.uuid:  # its `before_send` gave another
                    self._known_as(entry.sent_as, entry.uuid)
                if receipt is None:
                    continue
                results[entry.uuid] = receipt
                if receipt.may_pass and not isinstance(receipt.error, LookupError):
                    break  # the rest is tried again with this one
        finally:
            for entry, _ in left:
                results[entry.uuid] = Receipt(ConnectionError("not tried yet"))
            self._results.append((lane, results))
            self._wake()

    def _known_as(self, alias: str, uuid: str) -> None:
        self._aliases[alias] = uuid
        receipt = self._strange.pop(alias, None)
        if receipt is not None:  # the client was faster than its `capture`
            self.note({alias: receipt})

    # -- out -----------------------------------------------------------------------

    def note(self, results: dict[str, Receipt]) -> None:
        """Take receipts, in any thread; those of the user's own events are left alone."""
        strange = {uuid: one for uuid, one in results.items() if uuid not in self.entries}
        self._strange.update(strange)  # before the look: the alias may come meanwhile
        while len(self._strange) > _MOST_STRANGE:
            self._strange.popitem(last=False)
        if self._aliases:
            results = {self._aliases.pop(uuid, uuid): one for uuid, one in results.items()}
        ours = {uuid: receipt for uuid, receipt in results.items() if uuid in self.entries}
        if ours:
            self._results.append((None, ours))
            self._wake()

    def _settle_all(self) -> None:
        while self._results:
            lane, results = self._results.popleft()
            if lane is not None:
                lane.busy = False
            by_lane: dict[Lane, dict[str, Receipt]] = {}
            for uuid, receipt in results.items():
                if uuid in self.entries:
                    by_lane.setdefault(self.entries[uuid][0], {})[uuid] = receipt
            for lane, batch in by_lane.items():
                self._settle(lane, batch)

    def _settle(self, lane: Lane, batch: dict[str, Receipt]) -> None:
        """Act on the receipts of one batch."""
        again: list[Entry] = []
        for uuid, receipt in batch.items():
            entry = self.entries[uuid][1]
            if receipt.error is None:
                self.ledger.delivered += 1
                self.ledger.trimmed += entry.trimmed
                self._forget(uuid)
                lane.works()
            elif isinstance(receipt.error, LookupError):
                self.drop(uuid, str(receipt.error.args[0]))
            elif lane.refused_as_large(receipt) or receipt.may_pass or receipt.status == 413:
                again.append(entry)
            else:
                self.drop(uuid, f"refused_{receipt.status}")
        if not again:
            return
        too_large = [entry for entry in again if batch[entry.uuid].status == 413]
        if too_large or any(batch[entry.uuid].may_pass for entry in again):
            lane.failed(time.monotonic())
        hopeless = shrink(too_large)
        for entry in hopeless:
            self.drop(entry.uuid, "refused_413")
        lane.again([entry for entry in again if entry not in hopeless])

    def _forget(self, uuid: str) -> None:
        self.shelf.remove(self._take_out(self.entries[uuid][1]).stored)

    def _take_out(self, entry: Entry) -> Entry:
        """Hold an event in memory no more."""
        lane, _ = self.entries.pop(entry.uuid)
        lane.forget(entry)
        self._whole.pop(entry.uuid, None)
        if entry.event is not None:
            self.bytes -= entry.size
        return entry

    def drop(self, uuid: str, reason: str) -> None:
        """Give an event up."""
        self._forget(uuid)
        self.ledger.drop(uuid, reason)

    def _sweep(self) -> None:
        """Count events that the official client dropped without a word."""
        for lane in self.lanes:
            if lane.busy or not (lane.is_queued and lane.sent and lane.is_idle()):
                continue
            self._settle_all()  # a receipt comes before the client calls the work done
            for entry in list(lane.sent.values()):
                self.drop(entry.uuid, "unconfirmed")

    # -- the bound -----------------------------------------------------------------

    def stats(self, waiting: int) -> Stats:
        """Return the counts; `waiting`: bytes of calls that were not read yet."""
        # At once, whatever thread asks: no code of Python's runs while a list is made.
        oldest = next(iter(list(self.entries.values())), None)
        age = None if oldest is None else time.monotonic() - oldest[1].since
        return self.ledger.stats(self.shelf.count, self.bytes + max(0, waiting), age)

    def unsettled(self) -> tuple[int, int]:
        """Return how many events of this process are in the spool, and how many in memory alone."""
        entries = [entry for _, entry in list(self.entries.values()) if entry.number]
        stored = sum(entry.stored is not None for entry in entries)
        return stored + self.shelf.own, len(entries) - stored

    def keep_bound(self, others: int) -> None:
        """Give up the oldest content, then events, until few enough bytes are held.

        What is in the spool is only let go of: it is read again in its turn.
        """
        limit = max(settings().queue_bytes - others, settings().queue_bytes * _SHARE)
        while self.bytes > limit and self._whole:
            _, entry = self._whole.popitem(last=False)
            self.bytes -= entry.size
            if entry.stored is not None:
                entry.event = None
                continue
            if entry.event is not None:
                entry.event, entry.bared = bare(entry.event), True
                entry.length, entry.size = weigh(entry.event.properties), _weight(entry.event)
                self.bytes += entry.size
        for uuid, (lane, entry) in list(self.entries.items()) if self.bytes > limit else ():
            if self.bytes > limit and entry.event is not None and uuid not in lane.sent:
                self.drop(uuid, "queue_full")

    # -- those who wait ------------------------------------------------------------

    def hurry(self, timeout: float) -> None:
        """Make the clients that hold events send them at once."""
        for lane in self.lanes:
            if lane.unflushed and not lane.flushing:
                lane.flushing, lane.unflushed = True, False
                self.senders.run(partial(self._flush, lane, timeout))

    def _flush(self, lane: Lane, timeout: float) -> None:
        try:
            flush(lane.client, timeout)
        except Exception as error:
            report("flush", error)
        lane.flushing = False
        self._wake()

    def is_settled(self, number: int) -> bool:
        """Whether everything that was captured up to `number` has arrived, or was given up."""
        waits = any(entry.number <= number for _, entry in self.entries.values())
        return not (waits or self.shelf.is_waiting())

    def has_handed_over(self, client: Any, number: int) -> bool:
        """Whether a client has everything that was captured for it up to `number`."""
        unread = self.shelf.has_unread(project_of(client))
        return not unread and self.lanes.have_handed_over(client, number)


def _weight(event: Event) -> int:
    """Return how many bytes of memory an event takes."""
    return _WEIGHT + size_of_plain(event.properties) + size_of_plain(event.groups)


class Senders:
    """Runs jobs in daemon threads, so that no job can keep a process alive."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._pending = 0
        self._here = threading.local()

    def is_here(self) -> bool:
        """Whether this thread does a job: what that calls cannot wait for it."""
        return getattr(self._here, "has_job", False)

    def run(self, job: Callable[[], None]) -> None:
        """Run `job` soon, or here and now where no thread can be started and none is there."""
        with self._lock:
            self._pending += 1
            more = self._pending > self._threads and self._threads < MOST_SENDERS
            self._threads += more
        self._jobs.put(job)
        if more:
            try:
                self._start()
            except RuntimeError:  # the process ends, or has too many
                self._work_here()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="posthog-llm-send", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work_here(self) -> None:
        with contextlib.suppress(queue.Empty):
            while not self._threads:
                self._done(self._jobs.get_nowait())

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._pending:
                        continue
                    self._threads -= 1
                    return
            try:
                self._done(job)
            except BaseException as error:  # such as `sys.exit` in a sink: the thread must live on
                report("send", error)

    def _done(self, job: Callable[[], None]) -> None:
        """Do a job; it guards itself."""
        self._here.has_job = True
        try:
            job()
        finally:
            self._here.has_job = False
            with self._lock:
                self._pending -= 1
