"""The thread that captures finished calls: read, build, submit. Never the caller's thread."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._exchange import Scope
from .._faults import guarded, interrupts, report
from .._identity import destination
from .._imports import imported
from .._observe.call_queue import call_queue
from .._settings import on_change, settings
from . import ending, waiting_steps
from .backpressure import Backpressure
from .building import Builder
from .destinations import Destinations, load
from .dispatcher import Dispatcher
from .ending import Ending
from .locks import BRIEF, Flag, Turn
from .stats import Stats

_CALLBACK_PATIENCE = 1.0
"""Seconds that a call which has ended waits for its callback."""
_GATHER = 0.1
"""Seconds that the worker lets calls gather: one wake-up per burst, not per call."""
_GATHER_SPOOLED = 0.002
"""The same with a spool: a call that is not written yet is lost with the process."""
_TURN = 0.01
"""Seconds between two dispatcher turns while calls are read: each turn is a transaction."""
_BUSY = 0.001
"""Seconds that the worker holds the interpreter, where it has a choice."""
_LEAST = 0.05
"""Seconds for final steps after the time is up: writing takes less."""
_POLL = 0.02
"""Seconds between two checks while a thread is waiting."""
before_flush: list[Callable[[float], object]] = []
"""Each is called with the seconds that it may wait for pending callbacks."""


class Pending:
    """Calls that have ended; each has `abandon()`, which captures it unless it was captured.

    Any thread may add calls; the worker and flushing threads remove them.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[tuple[float, Any]] = deque()
        self._taking = threading.Lock()
        """Held until removed calls are captured: a flush must not overtake them."""

    def add(self, call: Any) -> None:
        self._waiting.append((time.monotonic() + _CALLBACK_PATIENCE, call))
        self._wake()

    def due(self) -> float | None:
        """Return the seconds until the first has waited long enough; `None` if none waits."""
        with contextlib.suppress(IndexError):
            return max(0.0, self._waiting[0][0] - time.monotonic())
        return None

    def abandon_due(self) -> None:
        self._abandon(time.monotonic())

    def capture_ended(self, timeout: float | None) -> None:
        """Capture all calls that have ended by now, without waiting for their callbacks."""
        until = time.monotonic()
        for wait in before_flush:
            wait(_CALLBACK_PATIENCE if timeout is None else min(_CALLBACK_PATIENCE, timeout))
        self._abandon(until + _CALLBACK_PATIENCE)

    def _abandon(self, until: float) -> None:
        # With a timeout: a signal handler may flush while the interrupted thread holds the lock.
        is_taken = self._taking.acquire(timeout=_CALLBACK_PATIENCE)
        try:
            with contextlib.suppress(IndexError):
                while self._waiting[0][0] <= until:
                    self._waiting.popleft()[1].abandon()
        finally:
            if is_taken:
                self._taking.release()


@dataclass(slots=True)
class Waiter:
    """A waiting thread's entry in the call queue, behind the calls that it waits for."""

    client: Any = None
    """Wait until this client has its events; `None` means until every event has arrived."""
    until: float | None = None
    number: int | None = None
    """The last event to wait for; `None` until the calls before it have been read."""
    done: Flag = field(default_factory=Flag)

    def left(self) -> float:
        """Return the seconds left to wait; an hour if there is no limit."""
        return 3600.0 if self.until is None else max(0.0, self.until - time.monotonic())


class Waiters:
    """All current waiters. Any thread may add one; the worker's turn removes them."""

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, waiter: Waiter) -> None:
        self._waiting.append(waiter)

    def serve(self, dispatcher: Dispatcher) -> bool:
        """Wake waiters whose events have arrived; return whether any are left."""
        for waiter in list(self._waiting):
            if waiter.number is not None and _is_served(waiter, waiter.number, dispatcher):
                waiter.done.set()
            if waiter.done.is_set() or not waiter.left():
                self._waiting.remove(waiter)
            elif waiter.client is None:
                dispatcher.expedite(waiter.left())
        return bool(self)


def _is_served(waiter: Waiter, number: int, dispatcher: Dispatcher) -> bool:
    if waiter.client is not None:
        return dispatcher.has_submitted(waiter.client, number)
    return dispatcher.is_done(number)


class Worker:
    """Reads the call queue in a daemon thread that starts with a process's first call."""

    def __init__(self) -> None:
        self.destinations = Destinations(self.deliver_for)
        self._begin()

    def _begin(self) -> None:
        self.dispatcher = Dispatcher(call_queue.wake)
        self._builder = Builder(self.dispatcher, self._find, self._yield_interpreter)
        self.pending = Pending(call_queue.wake)
        self._waiters = Waiters()
        self._thread: threading.Thread | None = None
        self._urgent = Flag()
        self._lock = threading.Lock()
        self._is_prepared = False
        self.turn: Turn = Turn()
        self.backpressure = Backpressure(self.dispatcher, self.turn)
        self._ending = Ending(self)

    def forget(self) -> None:
        """Reset in a forked child, where the thread does not exist."""
        self.destinations.forget()
        ending.disconnect()
        self._begin()

    # -- life --------------------------------------------------------------------

    @guarded
    def prepare(self) -> None:
        """Import what the thread will use, on a caller's thread: see `destinations`."""
        if self._is_prepared:
            return
        # Holding the turn: the child of a fork during an import would keep its lock forever.
        with self.turn.alone(BRIEF):
            load()
        self._is_prepared = imported("posthog") is not None
        if self.destinations.attach(None):
            self._last_at_exit()

    @guarded
    def start(self) -> bool:
        """Make sure that the thread runs; a false result means that it does not, or not yet."""
        if not self._lock.acquire(blocking=False):
            return False  # a finalizer may have interrupted this very thread while it holds it
        try:
            if self._thread is None and call_queue.is_outdated():
                self._renew()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="posthog-llm", daemon=True)
                self._thread.start()
        finally:
            self._lock.release()
            self._last_at_exit()
            ending.watch(self.end)
        return self._is_prepared

    def _renew(self) -> None:
        """Recreate locks of the current kind: ours were made when we were imported.

        While nothing runs yet, nobody waits for them. A gevent greenlet that waited for one of
        Python's own locks would block all others.
        """
        is_prepared = self._is_prepared
        call_queue.renew()
        self._begin()
        self._is_prepared = is_prepared

    @guarded
    def attach(self, client: Any) -> None:
        """Register a destination when a client is made for it."""
        if self.destinations.attach(client):
            self._last_at_exit()
            self.dispatcher.spool.look_soon()
        self.look_for_spooled()

    def follow_settings(self) -> None:
        """Register a default destination; deliver what earlier processes left."""
        client = settings().posthog_client
        if client is not None:
            self.attach(client)
        self.look_for_spooled()

    def look_for_spooled(self) -> None:
        """Deliver what earlier processes left, even if no call is made."""
        if settings().spool is not None:
            call_queue.start()
            call_queue.wake()

    def _last_at_exit(self) -> None:
        """Run our exit function before the posthog client's: they run last in, first out."""
        with contextlib.suppress(Exception):  # calls `==` of the application's exit functions
            atexit.unregister(self.end)
        atexit.register(self.end)

    def end(self, timeout: float | None = None) -> None:
        """Deliver what is possible in at most `timeout` seconds, as the process is ending.

        `None` means as long as interpreter exit waits.
        """
        self._ending.run(timeout)

    def is_reader(self) -> bool:
        """Whether this thread delivers: capturing a redactor's model calls would never end."""
        return self.turn.is_here() or self.dispatcher.senders.is_here()

    def reads_itself(self) -> bool:
        """Whether a worker thread reads calls, so that no other must run application code."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """End the thread within `timeout` seconds; the next call starts another.

        Calls that a slow application filter leaves unread wait until then.
        """
        until = time.monotonic() + timeout
        thread, self._thread = self._thread, None
        call_queue.stop()
        self._urgent.set()
        if thread not in (None, threading.current_thread()) and thread.is_alive():
            thread.join(timeout)
        self.save(until - time.monotonic())

    def reset(self, timeout: float) -> None:
        """Reset all counts; events that are not delivered in `timeout` seconds are lost."""
        self.flush(timeout)
        self.stop(timeout)
        call_queue.reset()
        self._begin()

    @guarded
    def save(self, patience: float) -> None:
        """Read all calls and write all events to the spool, in about `patience` seconds."""
        until = time.monotonic() + patience
        with self.turn.alone(max(_LEAST, patience)) as is_alone:
            if is_alone:
                if not self.reads_itself():
                    self._read_all(until)
                self.dispatcher.save()

    def wait_for_room(self) -> None:
        """Wait, for a limited time, until there is capacity for manual capture."""
        self.backpressure.wait()

    def read_now(self) -> None:
        self._urgent.set()

    # -- work --------------------------------------------------------------------

    def _run(self) -> None:
        # Open the spool before the first call ends, so that it is written as fast as any other.
        with self.turn.alone():
            guarded(self.dispatcher.spool.follow_settings)()
        while self._thread is threading.current_thread():
            call_queue.wait(self._due())
            self._urgent.wait(_GATHER if settings().spool is None else _GATHER_SPOOLED)
            self._urgent.clear()
            self.take_turn()

    def _due(self) -> float | None:
        waits = (self.dispatcher.next_turn(), self.pending.due())
        due = min((wait for wait in waits if wait is not None), default=None)
        return min(_POLL if due is None else due, _POLL) if self._waiters else due

    def take_turn(self, patience: float = -1) -> None:
        """Read new calls, and submit events that are ready.

        `patience`: seconds to wait for another thread's turn; -1 means no limit.
        """
        with self.turn.alone(patience) as is_alone:
            if not is_alone:
                return
            try:
                call_queue.clear_wake_ups()
                if not self._ending.has_begun:
                    self.dispatcher.spool.follow_settings()
                self.pending.abandon_due()
                self._read_all()
                self.dispatcher.turn(call_queue.bytes + self._builder.bytes)
                if not self._ending.has_begun:
                    self.dispatcher.claim(self.destinations.find_for)
                if self._waiters.serve(self.dispatcher):
                    self._urgent.set()
            except BaseException as error:  # whatever it is, the thread must survive
                if interrupts(error):
                    raise
                report("worker", error)

    def _read_all(self, until: float = math.inf) -> None:
        self._busy_since = self._turned_at = time.monotonic()
        with contextlib.suppress(IndexError):
            while time.monotonic() < until and not self.turn.is_wanted:
                self.dispatcher.ledger.lost(call_queue.lost)
                self._handle(call_queue.take())
                self._yield_interpreter()
        call_queue.reweigh()
        if self.turn.is_wanted:
            call_queue.wake()  # unread calls are read after the fork

    @guarded
    def _yield_interpreter(self) -> None:
        now = time.monotonic()
        if now - self._busy_since <= _BUSY:
            return
        if now - self._turned_at > _TURN:
            self.dispatcher.turn(call_queue.bytes + self._builder.bytes)
            self._turned_at = time.monotonic()
        time.sleep(0)  # release the interpreter: a caller may need it
        self._busy_since = time.monotonic()

    def _handle(self, item: Any) -> None:
        if isinstance(item, Waiter):
            item.number = self.dispatcher.last_number
            self.dispatcher.queues.retry_now()
            return
        self._builder.build(item)

    def _find(self, scope: Scope) -> Any:
        client = self.destinations.find(destination(scope))
        if self.destinations.attach(client):
            self._last_at_exit()
            self.dispatcher.spool.look_soon()
        return client

    # -- waiting for delivery ------------------------------------------------------

    def deliver_for(self, client: Any, timeout: float | None) -> bool:
        """Submit everything captured for `client` so far; `False` if `timeout` ran out."""
        return self._wait(Waiter(client), timeout)

    def flush(self, timeout: float) -> bool:
        """Deliver everything captured so far; `False` if `timeout` ran out."""
        return self._wait(Waiter(), timeout)

    def _wait(self, waiter: Waiter, timeout: float | None) -> bool:
        thread = self._thread
        if thread is threading.current_thread() or self.is_reader():
            return False  # a user's callback cannot wait for the work that it is part of
        is_whole = waiting_steps.release(waiter.client)
        waiter.until = None if timeout is None else time.monotonic() + timeout
        self.pending.capture_ended(timeout)
        self._waiters.add(waiter)
        call_queue.put(waiter)
        if not self.reads_itself():
            return self._wait_here(waiter) and is_whole
        self._urgent.set()
        return waiter.done.wait(None if timeout is None else waiter.left()) and is_whole

    def _wait_here(self, waiter: Waiter) -> bool:
        """Do the worker's work on this thread, as there is no worker, or none can start."""
        while True:
            self.take_turn(waiter.left())
            if waiter.done.is_set() or not waiter.left():
                return waiter.done.is_set()
            call_queue.wait(min(0.02, waiter.left()))

    def undelivered(self) -> tuple[int, int]:
        """Return how many events of this process are in the spool, and how many only in memory."""
        spooled, waiting = self.dispatcher.undelivered()
        return spooled, waiting + call_queue.count() + len(waiting_steps.held())

    def stats(self) -> Stats:
        """Return the current counts."""
        return waiting_steps.counted(self.dispatcher.stats(call_queue.bytes + self._builder.bytes))


worker = Worker()


call_queue.on_prepare = worker.prepare


call_queue.on_first = worker.start


call_queue.on_large = worker.read_now


call_queue.on_client = worker.attach


call_queue.is_reader = worker.is_reader
call_queue.on_capture = worker.wait_for_room


on_change.append(worker.follow_settings)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: worker.turn.pause(),
        after_in_parent=lambda: worker.turn.resume(),
        after_in_child=worker.forget,
    )
