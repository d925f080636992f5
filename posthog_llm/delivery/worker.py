"""The thread that tells finished calls: read, build, hand over. Never the caller's."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .. import event
from ..exchange import Exchange
from ..faults import guarded, report
from ..identity import destination
from ..observe.outbox import outbox
from ..observe.outer import tells_itself
from ..providers.batches import records
from ..record import Record
from ..sampling import is_sampled
from ..settings import on_change, settings
from .background import Backgrounds
from .destinations import Destinations, is_private, wait_no_longer
from .dispatcher import Dispatcher
from .filters import Refused, filtered
from .stats import Stats

_GATHER = 0.1
"""Seconds that the worker lets calls gather: one wake-up for a burst, not one a call."""
_GATHER_SPOOLED = 0.002
"""The same with a spool: a call that is not written yet is lost with the process."""
_BUSY = 0.001
"""Seconds that the worker keeps the interpreter from others, where it can choose."""
_POLL = 0.02
"""Seconds between two looks while somebody waits."""
_AT_FORK = 1.0
"""Seconds that a fork may wait for the worker to stand still; a turn takes milliseconds."""
_AT_EXIT = 4.0
"""Seconds that interpreter exit may wait for us; the official client takes one more."""
_AT_EXIT_SPOOLED = 1.0
"""The same when everything is in the spool."""


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits for what was captured before."""

    client: Any = None
    """Wait until this client has its events; `None`: until every event has arrived."""
    until: float | None = None
    number: int | None = None
    """The last event that is waited for; `None` until the calls before it have been read."""
    done: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        return 3600.0 if self.until is None else max(0.0, self.until - time.monotonic())


class Worker:
    """Reads the outbox in a daemon thread that starts with the first call of a process."""

    def __init__(self) -> None:
        self.destinations = Destinations(self.hand_over)
        self._begin()

    def _begin(self) -> None:
        self._backgrounds = Backgrounds()
        self.dispatcher = Dispatcher(outbox.ring)
        self._waiters: list[_Waiter] = []
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._turning = threading.RLock()

    def pause(self) -> None:
        """Stand still while a process forks.

        The child of a fork amid our work would keep every lock held then, ours or others', for
        good: of an import, or of what the official client looks up for its first event.
        """
        self._turning.acquire(timeout=_AT_FORK)

    def resume(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was not acquired in time
            self._turning.release()

    def forget(self) -> None:
        """Start anew in a forked child, where the thread does not exist."""
        self.dispatcher.shelf.leave()
        self.destinations.forget()
        self._begin()

    # -- life --------------------------------------------------------------------

    @guarded
    def start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="posthog-llm", daemon=True)
                self._thread.start()
        self._last_at_exit()

    def attach(self, client: Any) -> None:
        """Take note of a destination when a client is made for it."""
        if self.destinations.attach(client):
            self._last_at_exit()
        self.look_for_spooled()

    def follow_settings(self) -> None:
        """Take note of a default destination; deliver what earlier processes left."""
        client = settings().posthog_client
        if client is not None:
            self.attach(client)
        self.look_for_spooled()

    def look_for_spooled(self) -> None:
        """Deliver what earlier processes left, also where no call is made."""
        if settings().spool is not None:
            outbox.start()
            outbox.ring()

    def _last_at_exit(self) -> None:
        """Exit functions run last in, first out: ours must come before the posthog client's."""
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        for call in list(outbox.unended):
            call.let_go()
        self._turn()  # opens the spool that is configured, and writes what came
        if not self.flush(_AT_EXIT_SPOOLED if self.dispatcher.shelf.is_open else _AT_EXIT):
            for client in self.dispatcher.lanes.unanswered():
                wait_no_longer(client)
        self._save()

    def stop(self, timeout: float) -> None:
        """End the thread, within `timeout` seconds; the next call starts another."""
        thread, self._thread = self._thread, None
        outbox.stop()
        self._hurry.set()
        if thread is not None:
            thread.join(timeout)
        self._save()

    @guarded
    def _save(self) -> None:
        """Leave nothing unread, and nothing outside the spool."""
        with self._turning:
            self._read_all()
            self.dispatcher.save()

    def come_at_once(self) -> None:
        self._hurry.set()

    # -- work --------------------------------------------------------------------

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            outbox.rest(self._due())
            self._hurry.wait(_GATHER_SPOOLED if self.dispatcher.shelf.is_open else _GATHER)
            self._hurry.clear()
            self._turn()

    def _due(self) -> float | None:
        due = self.dispatcher.next_turn()
        if self.dispatcher.shelf.is_open:
            due = min(due or 5.0, 5.0)
        return min(due or _POLL, _POLL) if self._waiters else due

    def _turn(self) -> None:
        """Read what has come, and hand over what may go."""
        with self._turning:
            outbox.look()
            try:
                self.dispatcher.shelf.follow_settings()
                self.dispatcher.adopt(self.destinations.find_for)
                self._read_all()
                self.dispatcher.turn(outbox.bytes)
                self._serve_waiters()
            except BaseException as error:  # whatever it is, the thread must live on
                report("worker", error)

    def _read_all(self) -> None:
        self._busy_since = time.monotonic()
        with contextlib.suppress(IndexError):
            while True:
                self.dispatcher.ledger.lost(outbox.lost)
                self._handle(outbox.take())
                self._breathe()

    def _breathe(self) -> None:
        if time.monotonic() - self._busy_since > _BUSY:
            self.dispatcher.turn(outbox.bytes)
            time.sleep(0)  # give up the interpreter: a caller may want it
            self._busy_since = time.monotonic()

    def _handle(self, item: Any) -> None:
        if isinstance(item, _Waiter):
            item.number = self.dispatcher.last_number
            self.dispatcher.lanes.hurry()
            return
        try:
            self._tell(item)
        except BaseException as error:
            report("worker", error)
        finally:
            release(item)

    def _tell(self, exchange: Exchange) -> None:
        for found in records(exchange):
            record = self._backgrounds.due(found)
            if record is None or tells_itself(record.base_url):
                continue
            if is_sampled(record):
                self._send(record)
                self._breathe()

    def _send(self, record: Record) -> None:
        scope = record.exchange.scope
        client = self.destinations.find(destination(scope), scope.otherwise)
        if self.destinations.attach(client):
            self._last_at_exit()
        built = event.build(record, is_private(client))
        try:
            built = filtered(built)
        except Refused as refusal:
            self.dispatcher.ledger.drop(built.uuid, str(refusal), wanted=refusal.wanted)
            return
        self.dispatcher.add(built, client, bared=bool(record.exchange.bared))

    # -- those who wait ------------------------------------------------------------

    def hand_over(self, client: Any, timeout: float | None) -> bool:
        """Hand over what was captured for `client` before; False: not within `timeout` seconds."""
        return self._wait(_Waiter(client), timeout)

    def flush(self, timeout: float) -> bool:
        """Deliver what was captured before; False: not within `timeout` seconds."""
        return self._wait(_Waiter(), timeout)

    def _wait(self, waiter: _Waiter, timeout: float | None) -> bool:
        thread = self._thread
        if thread is threading.current_thread():
            return False
        waiter.until = None if timeout is None else time.monotonic() + timeout
        self._waiters.append(waiter)
        outbox.put(waiter)
        if thread is None or not thread.is_alive():
            return self._wait_here(waiter)
        self._hurry.set()
        return waiter.done.wait(timeout)

    def _wait_here(self, waiter: _Waiter) -> bool:
        """Do the worker's work on this thread; there is none, or none can be started any more."""
        while True:
            self._turn()
            if waiter.done.is_set() or not waiter.left():
                return waiter.done.is_set()
            outbox.rest(min(0.02, waiter.left()))

    def _serve_waiters(self) -> None:
        for waiter in list(self._waiters):
            if waiter.number is not None and self._is_served(waiter, waiter.number):
                waiter.done.set()
            if waiter.done.is_set() or not waiter.left():
                self._waiters.remove(waiter)
            elif waiter.client is None:
                self.dispatcher.hurry(waiter.left())
        if self._waiters:
            self._hurry.set()

    def _is_served(self, waiter: _Waiter, number: int) -> bool:
        if waiter.client is not None:
            return self.dispatcher.lanes.have_handed_over(waiter.client, number)
        return self.dispatcher.is_settled(number)

    def stats(self) -> Stats:
        """Return what the counts are now."""
        return self.dispatcher.stats(outbox.bytes)


def release(exchange: Exchange) -> None:
    """Let go of what a call kept: its answer may live on in the caller's hands."""
    exchange.request = exchange.body = exchange.form = exchange.content = None
    exchange.client = exchange.sent = None
    exchange.chunks = exchange.times = exchange.tail = ()


worker = Worker()
outbox.on_first = worker.start
outbox.on_large = worker.come_at_once
outbox.on_client = worker.attach
on_change.append(worker.follow_settings)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=worker.pause,
        after_in_parent=worker.resume,
        after_in_child=worker.forget,
    )
