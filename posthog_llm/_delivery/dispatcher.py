"""From built events to delivery results: every event is delivered, or counted as lost.

Everything here runs on the worker's thread, except `capture` of destinations that may block, and
delivery results, which arrive through `results`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from queue import Empty, SimpleQueue
from typing import Any

from .._event import Event
from .._faults import report
from .._settings import settings
from .destinations import flush, project_of
from .queues import CHECK_INTERVAL, DestinationQueue, DestinationQueues, Entry, submit
from .results import DeliveryResult, listen
from .spool_policy import IN_MEMORY, SpoolPolicy
from .stats import Ledger, Stats
from .trimming import drop_content, sizes, writable

_MOST_UNROUTABLE = 1000
"""Most results kept until `capture` returns the uuid under which it accepted an event."""
_SHARE = 0.25
"""Share of `queue_bytes` that built events may always take, however many calls are unread."""
MOST_SENDERS = 32
"""Most threads at once, however many destinations there are."""
_IDLE_SECONDS = 10.0
"""Seconds that a thread waits for work before it ends."""


class Dispatcher:
    """Holds every event from when it is built until PostHog has it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.ledger = Ledger()
        self.entries: OrderedDict[str, tuple[DestinationQueue, Entry]] = OrderedDict()
        """Every event that is neither delivered nor dropped, oldest first."""
        self._aliases: dict[str, str] = {}
        """Uuids changed by a `before_send`, mapped to ours."""
        self._unroutable: OrderedDict[str, DeliveryResult] = OrderedDict()
        """The latest results for unknown uuids: mostly of the application's own events."""
        self.bytes = 0
        """Approximate memory of all events."""
        self._whole: OrderedDict[str, Entry] = OrderedDict()
        """The entries whose content is in memory."""
        self.queues = DestinationQueues()
        self._numbers = count(1)
        self.last_number = 0
        self._results: deque[tuple[DestinationQueue | None, dict[str, DeliveryResult]]] = deque()
        self.senders = Senders()
        self.spool = SpoolPolicy(self.ledger)
        self._checked_at = 0.0
        self.is_ending = False
        """Whether the process is ending: official clients then close one after another."""
        self._new = 0

    # -- in ------------------------------------------------------------------------

    def add(self, event: Event, client: Any, *, content_dropped: bool = False) -> None:
        """Add an event for `client`; `None` means that it has no destination.

        `content_dropped`: its content was dropped before it was built.
        """
        if client is None:
            self.ledger.lose(event.uuid, "no_destination", wanted=True)
        elif event.uuid not in self.entries:
            event, length, size = writable(event)
            entry = self._enter(client, event.uuid, event, length, size)
            self._new += 1
            entry.content_dropped = content_dropped
            self.spool.add(entry, self.entries[event.uuid][0])

    def claim(self, find: Callable[[Any, bool], Any]) -> None:
        """Load events that earlier processes left in the spool."""
        for row, client in self.spool.read(find, self._has_room):
            known = self.entries.get(row.uuid)
            size = row.stored.size
            entry = known[1] if known else self._enter(client, row.uuid, None, size, size)
            if entry.stored is not None:  # in two files: a process was killed while copying
                self.spool.remove(row.stored)
                continue
            entry.stored, entry.number = row.stored, 0  # older than anything captured here

    def _has_room(self, client: Any) -> bool:
        return self.queues.waiting(client) < IN_MEMORY // 2

    def _enter(self, client: Any, uuid: str, event: Event | None, length: int, size: int) -> Entry:
        queue, is_new = self.queues.of(client)
        if is_new and project_of(client) is not None:
            listen(self.note)
        self.last_number = next(self._numbers)
        entry = Entry(uuid, self.last_number, event, length, size, time.monotonic(), sent_as=uuid)
        queue.waiting.append(entry)
        self.entries[uuid] = (queue, entry)
        if event is not None:
            self._whole[uuid] = entry
            self.bytes += entry.size
        return entry

    def next_turn(self) -> float | None:
        """Return the seconds until the next turn is due; `None` means when something arrives."""
        return min(
            chain(self.ledger.next_line(), self.queues.due(), self.spool.due()), default=None
        )

    def save(self) -> None:
        """Write new events to the spool, and close it."""
        self._write()
        self._apply_results()
        self.spool.clean()
        self.spool.close()

    def _write(self) -> None:
        for entry in reversed(self.spool.write()):
            self._take_out(entry)
        self.ledger.captured += self._new  # counted only once it is safe
        self._new = 0

    # -- the turn ------------------------------------------------------------------

    def turn(self, others: int) -> None:
        """Do what can be done now. `others`: bytes of unread calls."""
        self._write()
        self._apply_results()
        self.keep_bound(others)
        now = time.monotonic()
        for queue in self.queues:
            self._send_ready(queue, now)
        if now - self._checked_at > CHECK_INTERVAL:
            self._checked_at = now
            self._check_unconfirmed()
        self.ledger.log_losses()
        self.spool.clean()

    def _send_ready(self, queue: DestinationQueue, now: float) -> None:
        while queue.ready(now):
            if queue.may_block():
                entries = [(entry, entry.load()) for entry in queue.some()]
                self.senders.run(partial(self._send, queue, entries))
                return
            entry = queue.next()
            result = submit(queue, entry, entry.load())
            if result is not None:
                self._apply(queue, {entry.uuid: result})

    def _send(self, queue: DestinationQueue, entries: list[tuple[Entry, Event | None]]) -> None:
        """Submit events to a destination that may block, on a thread that may wait."""
        results: dict[str, DeliveryResult] = {}
        left = deque(entries)
        try:
            while left:
                entry, event = left[0]
                result = submit(queue, entry, event)
                left.popleft()
                if entry.sent_as != entry.uuid:  # changed by `before_send`
                    self._known_as(entry.sent_as, entry.uuid)
                if result is None:
                    continue
                results[entry.uuid] = result
                if result.is_retryable and not isinstance(result.error, LookupError):
                    break  # the rest is retried with this one
        finally:
            for entry, _ in left:
                results[entry.uuid] = DeliveryResult(ConnectionError("not tried yet"))
            self._results.append((queue, results))
            self._wake()

    def _known_as(self, alias: str, uuid: str) -> None:
        self._aliases[alias] = uuid
        result = self._unroutable.pop(alias, None)
        if result is not None:  # the client was faster than its `capture`
            self.note({alias: result})

    # -- out -----------------------------------------------------------------------

    def note(self, results: dict[str, DeliveryResult]) -> None:
        """Accept delivery results, in any thread; those of the application's events are ignored."""
        unroutable = {uuid: one for uuid, one in results.items() if uuid not in self.entries}
        self._unroutable.update(unroutable)  # before the check: an alias may arrive meanwhile
        while len(self._unroutable) > _MOST_UNROUTABLE:
            self._unroutable.popitem(last=False)
        if self._aliases:
            results = {self._aliases.pop(uuid, uuid): one for uuid, one in results.items()}
        ours = {uuid: result for uuid, result in results.items() if uuid in self.entries}
        if ours:
            self._results.append((None, ours))
            self._wake()

    def _apply_results(self) -> None:
        while self._results:
            queue, results = self._results.popleft()
            if queue is not None:
                queue.busy = False
            by_queue: dict[DestinationQueue, dict[str, DeliveryResult]] = {}
            for uuid, result in results.items():
                if uuid in self.entries:
                    by_queue.setdefault(self.entries[uuid][0], {})[uuid] = result
            for queue, batch in by_queue.items():
                self._apply(queue, batch)

    def _apply(self, queue: DestinationQueue, batch: dict[str, DeliveryResult]) -> None:
        """Apply the delivery results of one batch."""
        again: list[Entry] = []
        for uuid, result in batch.items():
            entry = self.entries[uuid][1]
            if result.error is None:
                self.ledger.delivered += 1
                self.ledger.trimmed += entry.trimmed
                self._forget(uuid)
                queue.works()
            elif isinstance(result.error, LookupError):
                self._refused(entry, str(result.error.args[0]))
            elif queue.refused_as_large(result) or result.is_retryable or result.status == 413:
                again.append(entry)
            else:
                self.drop(uuid, f"refused_{result.status}")
        if not again:
            return
        too_large = [entry for entry in again if batch[entry.uuid].status == 413]
        if any(batch[entry.uuid].is_retryable for entry in again):
            queue.failed(time.monotonic())
        if too_large:
            queue.pause(time.monotonic())
        hopeless = queue.refused(too_large) if too_large else []
        for entry in hopeless:
            self.drop(entry.uuid, "refused_413")
        queue.again([entry for entry in again if entry not in hopeless])
        queue.try_largest()

    def _refused(self, entry: Entry, reason: str) -> None:
        """Drop what a client declines; if it closed at process end, leave it in the spool."""
        if reason == "declined" and entry.stored is not None and self.is_ending:
            self._take_out(entry)
        else:
            self.drop(entry.uuid, reason)

    def _forget(self, uuid: str) -> None:
        self.spool.remove(self._take_out(self.entries[uuid][1]).stored)

    def _take_out(self, entry: Entry) -> Entry:
        """Remove an event from memory."""
        queue, _ = self.entries.pop(entry.uuid)
        queue.forget(entry)
        self._whole.pop(entry.uuid, None)
        if entry.event is not None:
            self.bytes -= entry.size
        return entry

    def drop(self, uuid: str, reason: str) -> None:
        """Drop an event."""
        self._forget(uuid)
        self.ledger.drop(uuid, reason)

    def _check_unconfirmed(self) -> None:
        """Drop and count events that the official client lost silently."""
        for queue in self.queues:
            if queue.busy or not (queue.is_queued and queue.sent and queue.is_idle()):
                continue
            self._apply_results()  # results arrive before the client marks its work as done
            for entry in list(queue.sent.values()):
                self.drop(entry.uuid, "unconfirmed")

    # -- the bound -----------------------------------------------------------------

    def stats(self, waiting: int) -> Stats:
        """Return the counts. `waiting`: bytes of unread calls."""
        # Atomic in any thread: no Python code runs while a list is made.
        oldest = next(iter(list(self.entries.values())), None)
        age = None if oldest is None else time.monotonic() - oldest[1].since
        return self.ledger.stats(self.spool.count, self.bytes + max(0, waiting), age)

    def undelivered(self) -> tuple[int, int]:
        """Return how many events of this process are in the spool, and how many only in memory."""
        entries = [entry for _, entry in list(self.entries.values()) if entry.number]
        stored = sum(entry.stored is not None for entry in entries)
        return stored + self.spool.own, len(entries) - stored

    def keep_bound(self, others: int) -> None:
        """Drop the oldest content, then events, until few enough bytes are held.

        Spooled content only leaves memory: it is read again when its turn comes.
        """
        limit = max(settings().queue_bytes - others, settings().queue_bytes * _SHARE)
        while self.bytes > limit and self._whole:
            _, entry = self._whole.popitem(last=False)
            self.bytes -= entry.size
            if entry.stored is not None:
                entry.event = None
                continue
            if entry.event is not None:
                entry.event, entry.content_dropped = drop_content(entry.event), True
                entry.length, entry.size = sizes(entry.event)
                self.bytes += entry.size
        for uuid, (queue, entry) in list(self.entries.items()) if self.bytes > limit else ():
            if self.bytes > limit and entry.event is not None and uuid not in queue.sent:
                self.drop(uuid, "queue_full")

    # -- waiting for delivery ------------------------------------------------------

    def expedite(self, timeout: float) -> None:
        """Make clients that hold events send them at once."""
        for queue in self.queues:
            if queue.unflushed and not queue.flushing:
                queue.flushing, queue.unflushed = True, False
                self.senders.run(partial(self._flush, queue, timeout))

    def _flush(self, queue: DestinationQueue, timeout: float) -> None:
        try:
            flush(queue.client, timeout)
        except Exception as error:
            report("flush", error)
        queue.flushing = False
        self._wake()

    def is_done(self, number: int) -> bool:
        """Whether everything captured up to `number` has been delivered or dropped."""
        waits = any(entry.number <= number for _, entry in self.entries.values())
        return not (waits or self.spool.is_waiting())

    def has_submitted(self, client: Any, number: int) -> bool:
        """Whether everything captured for a client up to `number` was submitted to it."""
        unread = self.spool.has_unread(project_of(client))
        return not unread and self.queues.have_submitted(client, number)


class Senders:
    """Runs jobs in daemon threads, so that no job keeps a process alive."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._pending = 0
        self._here = threading.local()

    def is_here(self) -> bool:
        """Whether this thread is running a job: code called by it cannot wait for it."""
        return getattr(self._here, "has_job", False)

    def run(self, job: Callable[[], None]) -> None:
        """Run `job` soon, or on this thread if there is no sender and none can start."""
        with self._lock:
            self._pending += 1
            more = self._pending > self._threads and self._threads < MOST_SENDERS
            self._threads += more
        self._jobs.put(job)
        if more:
            try:
                self._start()
            except RuntimeError:  # the process is ending, or has too many threads
                self._work_here()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="posthog-llm-send", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work_here(self) -> None:
        with contextlib.suppress(Empty):
            while not self._threads:
                self._done(self._jobs.get_nowait())

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._pending:
                        continue
                    self._threads -= 1
                    return
            try:
                self._done(job)
            except BaseException as error:  # such as `sys.exit` in a sink: the thread must survive
                report("send", error)

    def _done(self, job: Callable[[], None]) -> None:
        """Run a job, which handles its own errors."""
        self._here.has_job = True
        try:
            job()
        finally:
            self._here.has_job = False
            with self._lock:
                self._pending -= 1
