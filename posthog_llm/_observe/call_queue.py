"""Where finished calls wait for the worker. Putting one there is all a caller ever pays."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .._exchange import Exchange
from .._faults import contained, guarded, report
from .._roots import waiting
from .._settings import settings
from .event_ids import new_id

P = ParamSpec("P")
R = TypeVar("R")

_SHARE = 0.75
"""Share of the allowed bytes that calls may take before they are read."""
_ROOM = 0.7
"""Share that they take once room was made."""


class OpenCalls:
    """Calls that may be told only when they are let go of; each has `abandon()`.

    None is kept alive. Not a `WeakSet`: that cannot be listed while a thread adds to it.
    """

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[Any]] = {}

    def add(self, call: Any) -> None:
        """Note a call until it is gone."""
        key = id(call)
        self._refs[key] = weakref.ref(call, partial(self._refs.pop, key))  # see `event_ids`

    def now(self) -> list[Any]:
        """Return the calls that are there now."""
        refs = list(self._refs.values())  # at once: no code of Python's runs amid this
        return [call for ref in refs if (call := ref()) is not None]


class CallQueue:
    """A queue that wakes its reader late and is born again, empty, after a fork.

    A finaliser may put something here whatever lock its thread holds: nothing here waits.
    """

    def __init__(self) -> None:
        self.on_prepare: Callable[[], None] | None = None
        """Imports what the reader will use: a thread of ours imports nothing."""
        self.on_first: Callable[[], bool | None] | None = None
        """Starts the reader, on the caller's thread; not true: it did not start."""
        self.on_large: Callable[[], None] | None = None
        """Asks the reader to come at once: memory that is not given back makes calls slower."""
        self.on_client: Callable[[Any], None] | None = None
        """Told of every new client's destination."""
        self.is_reader: Callable[[], bool] = lambda: False
        """Whether this thread reads: then what calls a model is a filter of the program's."""
        self.on_capture: Callable[[], None] | None = None
        """Called after each capture by hand; may wait until there is room for more."""
        self.reset()

    def reset(self) -> None:
        self._items: deque[Any] = deque()
        self._stripped: deque[Any] = deque()
        """What came before `_items`, less the requests that were too much to keep."""
        self._making_room = threading.Lock()
        self.bytes = 0
        """About what the waiting calls weigh. Threads change it without a lock, so an addition
        may get lost: the reader weighs anew what it leaves."""
        self.lost: deque[tuple[str, str]] = deque()
        """Uuids of events that there will not be, and why: the reasons of `Stats.dropped`."""
        self.wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.unended = OpenCalls()
        self._woken = False

    def is_outdated(self) -> bool:
        """Whether a library such as gevent has replaced Python's locks since these were made."""
        return type(self.wake_ups) is not queue.SimpleQueue

    def renew(self) -> None:
        """Make locks anew, of the kind that holds now; what waits goes on waiting."""
        self._making_room = threading.Lock()
        self.wake_ups = queue.SimpleQueue()
        self.wake()  # whoever puts something meanwhile may have woken the old one

    def prepare(self) -> None:
        """Import what the reader will use; called where a client is made, before its calls."""
        if self.on_prepare is not None:
            self.on_prepare()

    def start(self) -> None:
        """Make sure that somebody will read; called when a call starts."""
        if self._woken:
            return
        started = None
        try:
            self._woken = True  # first: a finaliser may come here meanwhile
            self.prepare()
            started = self.on_first() if self.on_first is not None else None
        finally:
            if not started:
                self._woken = False  # the next call tries again

    def abandon_open(self) -> None:
        """End the calls that nobody can end any more, because the process ends."""
        for call in self.unended.now():
            guarded(call.abandon)()

    def attach(self, client: Any) -> None:
        """Tell the reader of a destination: its own `flush` is to wait for what comes here."""
        if self.on_client is not None:
            self.on_client(client)

    def put(self, item: Any) -> None:
        """Append a finished call, or whatever else the reader is to see in its turn."""
        try:
            self._items.append(item)
            weight = _weight(item)  # no call stands between reading and writing the sum
            self.bytes += weight
        finally:  # also where a signal handler raises amid this
            self.wake()
        if self.bytes > settings().queue_bytes * _SHARE:
            self._make_room(settings().queue_bytes * _ROOM)

    def failed(self, where: str, error: Exception, uuid: str) -> None:
        """Count a fault of ours that cost an event; the reader counts the event, as all others."""
        report(where, error)
        self.lose(uuid, "fault")

    def lose(self, uuid: str, reason: str) -> None:
        """Let the reader count an event that there will not be."""
        self.lost.append((uuid, reason))
        self.wake()

    def wait_for_room(self) -> None:
        """Wait for a bounded time while too much waits; for who captures by hand."""
        if self.on_capture is not None:
            self.on_capture()

    def wake(self) -> None:
        """Wake the reader, unless somebody did since it last looked."""
        if self.wake_ups.empty():
            self.wake_ups.put(None)

    def stop(self) -> None:
        """Let the next call start a reader."""
        self._woken = False
        self.wake()

    # -- the reader ----------------------------------------------------------------

    def wait(self, timeout: float | None) -> None:
        """Sleep until somebody rings, `timeout` seconds at most."""
        with contextlib.suppress(queue.Empty):
            self.wake_ups.get(timeout=timeout)

    def take(self) -> Any:
        """Return the oldest item. Raises `IndexError` when there is none."""
        try:
            item = self._stripped.popleft()
        except IndexError:
            item = self._items.popleft()
        weight = _weight(item)
        self.bytes -= weight
        return item

    def count(self) -> int:
        """Return how many calls wait to be read."""
        items = [*list(self._stripped), *list(self._items)]  # at once, whatever thread asks
        return sum(isinstance(item, Exchange) for item in items)

    def clear_wake_ups(self) -> None:
        """Say that the reader now looks: what comes from now on rings again."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.wake_ups.get_nowait()

    def reweigh(self) -> None:
        """Weigh what came while the reader read; whoever puts more rings, and it reads again."""
        with contextlib.suppress(RuntimeError):  # more has come meanwhile
            self.bytes = sum(map(_weight, [*self._stripped, *self._items]))

    # -- the bound -----------------------------------------------------------------

    @guarded
    def _make_room(self, wanted: float) -> None:
        """Let go of the oldest requests, then of the oldest calls, until few enough bytes wait.

        The answers hold the numbers; they are kept as long as can be.
        """
        if not self._making_room.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    self._drop_content(self._items.popleft())
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    self._give_up(self._stripped.popleft())
        finally:
            self._making_room.release()

    def _drop_content(self, item: Any) -> None:
        try:
            gone = item.drop_content() if isinstance(item, Exchange) else 0
            self.bytes -= gone
        finally:  # also where a signal handler raises amid this
            self._stripped.append(item)

    def _give_up(self, item: Any) -> None:
        if isinstance(item, Exchange):
            self.lost.append((item.id, "queue_full"))
            weight = item.weight()
            self.bytes -= weight
        else:
            self._items.append(item)


def _weight(item: Any) -> int:
    return item.weight() if isinstance(item, Exchange) else 0


call_queue = waiting.calls = CallQueue()


def counted(function: Callable[P, R]) -> Callable[P, R | None]:
    """Guard a function that makes an event: one that a fault of ours costs counts as dropped."""
    return contained(function, lambda where, error: call_queue.failed(where, error, new_id()))


if hasattr(os, "register_at_fork"):
    # What the parent has not told yet, the parent tells.
    os.register_at_fork(after_in_child=call_queue.reset)
