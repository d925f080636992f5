"""Where finished calls wait for the worker. Enqueuing is all that a caller ever pays for."""

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
"""Share of `queue_bytes` that unread calls may take."""
_ROOM = 0.7
"""Share that they take after space was freed."""


class OpenCalls:
    """Calls that may end only by being abandoned; each has `abandon()`.

    Holds weak references. Not a `WeakSet`: that cannot be listed while a thread adds to it.
    """

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[Any]] = {}

    def add(self, call: Any) -> None:
        """Note a call until it is gone."""
        key = id(call)
        self._refs[key] = weakref.ref(call, partial(self._refs.pop, key))  # see `event_ids`

    def now(self) -> list[Any]:
        """Return the calls that exist now."""
        refs = list(self._refs.values())  # atomic: runs no Python code
        return [call for ref in refs if (call := ref()) is not None]


class CallQueue:
    """A queue that wakes its reader late, and starts empty again after a fork.

    A finalizer may add an item while its thread holds any lock, so nothing here blocks.
    """

    def __init__(self) -> None:
        self.on_prepare: Callable[[], None] | None = None
        """Imports what the reader will use: our own threads import nothing."""
        self.on_first: Callable[[], bool | None] | None = None
        """Starts the reader, on the caller's thread; a false result means that it did not start."""
        self.on_large: Callable[[], None] | None = None
        """Makes the reader run at once: memory that is not freed makes calls slower."""
        self.on_client: Callable[[Any], None] | None = None
        """Called with every new client's destination."""
        self.is_reader: Callable[[], bool] = lambda: False
        """Whether this thread reads: then a model call comes from an application's filter."""
        self.on_capture: Callable[[], None] | None = None
        """Called after each manual capture; may wait until there is capacity for more."""
        self.reset()

    def reset(self) -> None:
        self._items: deque[Any] = deque()
        self._stripped: deque[Any] = deque()
        """Calls older than `_items`, without the requests that took too much memory."""
        self._enforcing = threading.Lock()
        self.bytes = 0
        """Approximate size of the waiting calls. Threads change it without a lock, so an addition
        may get lost: the reader recomputes it for the calls that it leaves."""
        self.lost: deque[tuple[str, str]] = deque()
        """Uuids of lost events, and why: the reasons of `Stats.dropped`."""
        self.wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.unended = OpenCalls()
        self._woken = False

    def is_outdated(self) -> bool:
        """Whether a library such as gevent has replaced Python's locks since these were made."""
        return type(self.wake_ups) is not queue.SimpleQueue

    def renew(self) -> None:
        """Recreate locks of the current kind; waiting items stay."""
        self._enforcing = threading.Lock()
        self.wake_ups = queue.SimpleQueue()
        self.wake()  # an item put meanwhile may have woken the old one

    def prepare(self) -> None:
        """Import what the reader will use; called when a client is made, before its calls."""
        if self.on_prepare is not None:
            self.on_prepare()

    def start(self) -> None:
        """Make sure that a reader runs; called when a call starts."""
        if self._woken:
            return
        started = None
        try:
            self._woken = True  # first: a finalizer may call this meanwhile
            self.prepare()
            started = self.on_first() if self.on_first is not None else None
        finally:
            if not started:
                self._woken = False  # the next call retries

    def abandon_open(self) -> None:
        """End the calls that are still open, because the process is ending."""
        for call in self.unended.now():
            guarded(call.abandon)()

    def attach(self, client: Any) -> None:
        """Register a destination with the reader, so that its own `flush` waits for our calls."""
        if self.on_client is not None:
            self.on_client(client)

    def put(self, item: Any) -> None:
        """Append a finished call, or any other item that the reader must see in order."""
        try:
            self._items.append(item)
            weight = _weight(item)  # first: no call may run between reading and writing the sum
            self.bytes += weight
        finally:  # even if a signal handler raises in between
            self.wake()
        if self.bytes > settings().queue_bytes * _SHARE:
            self._enforce_limit(settings().queue_bytes * _ROOM)

    def failed(self, where: str, error: Exception, uuid: str) -> None:
        """Count an internal fault that lost an event; the reader counts the event, like others."""
        report(where, error)
        self.lose(uuid, "fault")

    def lose(self, uuid: str, reason: str) -> None:
        """Have the reader count a lost event."""
        self.lost.append((uuid, reason))
        self.wake()

    def wait_for_room(self) -> None:
        """Wait for a limited time while too much is queued; for manual capture."""
        if self.on_capture is not None:
            self.on_capture()

    def wake(self) -> None:
        """Wake the reader, unless a wake-up is already pending."""
        if self.wake_ups.empty():
            self.wake_ups.put(None)

    def stop(self) -> None:
        """Make the next call start a reader."""
        self._woken = False
        self.wake()

    # -- the reader ----------------------------------------------------------------

    def wait(self, timeout: float | None) -> None:
        """Sleep until a wake-up, for at most `timeout` seconds."""
        with contextlib.suppress(queue.Empty):
            self.wake_ups.get(timeout=timeout)

    def take(self) -> Any:
        """Remove and return the oldest item. Raises `IndexError` if there is none."""
        try:
            item = self._stripped.popleft()
        except IndexError:
            item = self._items.popleft()
        weight = _weight(item)
        self.bytes -= weight
        return item

    def count(self) -> int:
        """Return the number of unread calls."""
        items = [*list(self._stripped), *list(self._items)]  # copies: atomic in any thread
        return sum(isinstance(item, Exchange) for item in items)

    def clear_wake_ups(self) -> None:
        """Clear pending wake-ups before reading: later items wake the reader again."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.wake_ups.get_nowait()

    def reweigh(self) -> None:
        """Recompute the size of the items left; a later item wakes the reader again."""
        with contextlib.suppress(RuntimeError):  # an item was added meanwhile
            self.bytes = sum(map(_weight, [*self._stripped, *self._items]))

    # -- the bound -----------------------------------------------------------------

    @guarded
    def _enforce_limit(self, wanted: float) -> None:
        """Drop the oldest requests, then the oldest calls, until few enough bytes wait.

        Responses hold the token counts, so they are kept as long as possible.
        """
        if not self._enforcing.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    self._drop_content(self._items.popleft())
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    self._give_up(self._stripped.popleft())
        finally:
            self._enforcing.release()

    def _drop_content(self, item: Any) -> None:
        try:
            gone = item.drop_content() if isinstance(item, Exchange) else 0
            self.bytes -= gone
        finally:  # even if a signal handler raises in between
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
    """Guard a function that makes an event; an event lost to a fault counts as dropped."""
    return contained(function, lambda where, error: call_queue.failed(where, error, new_id()))


if hasattr(os, "register_at_fork"):
    # The parent captures what it has not captured yet.
    os.register_at_fork(after_in_child=call_queue.reset)
