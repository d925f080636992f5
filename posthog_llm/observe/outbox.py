"""Where finished calls wait for the worker. Putting one there is all a caller ever pays."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from ..exchange import Exchange
from ..roots import waiting
from ..settings import settings

_SHARE = 0.75
"""Share of the allowed bytes that calls may take before they are read."""
_ROOM = 0.7
"""Share that they take once room was made."""


class Outbox:
    """A queue that wakes its reader late and is born again, empty, after a fork.

    A finaliser may put something here whatever lock its thread holds: nothing here waits.
    """

    def __init__(self) -> None:
        self.on_first: Callable[[], None] | None = None
        """Starts the reader; called from the caller's thread, once a process."""
        self.on_large: Callable[[], None] | None = None
        """Asks the reader to come at once: memory that is not given back makes calls slower."""
        self.on_client: Callable[[Any], None] | None = None
        """Told of every new client's destination."""
        self.empty_again()

    def empty_again(self) -> None:
        self._items: deque[Any] = deque()
        self._bared: deque[Any] = deque()
        """What came before `_items`, less the requests that were too much to keep."""
        self._room = threading.Lock()
        self.bytes = 0
        """About what the waiting calls weigh."""
        self.lost: deque[str] = deque()
        """Uuids of calls that were given up."""
        self.bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rung = False
        self.unended: weakref.WeakSet[Any] = weakref.WeakSet()
        """Calls that may be told only when they are let go of; each has `let_go()`."""
        self._woken = False

    def start(self) -> None:
        """Make sure that somebody will read; called when a call starts."""
        if not self._woken:
            self._woken = True
            if self.on_first is not None:
                self.on_first()

    def attach(self, client: Any) -> None:
        """Tell the reader of a destination: its own `flush` is to wait for what comes here."""
        if self.on_client is not None:
            self.on_client(client)

    def put(self, item: Any) -> None:
        """Append a finished call, or whatever else the reader is to see in its turn."""
        if isinstance(item, Exchange):
            self.bytes += item.weight()
        self._items.append(item)
        self.ring()
        if self.bytes > settings().queue_bytes * _SHARE:
            self._make_room(settings().queue_bytes * _ROOM)

    def ring(self) -> None:
        """Wake the reader, who has not been woken since it last looked."""
        if not self._rung:
            self._rung = True
            self.bell.put(None)

    def stop(self) -> None:
        """Let the next call start a reader."""
        self._woken = False
        self.ring()

    # -- the reader ----------------------------------------------------------------

    def rest(self, timeout: float | None) -> None:
        """Sleep until somebody rings, `timeout` seconds at most."""
        with contextlib.suppress(queue.Empty):
            self.bell.get(timeout=timeout)

    def take(self) -> Any:
        """Return the oldest item. Raises `IndexError` when there is none."""
        try:
            item = self._bared.popleft()
        except IndexError:
            item = self._items.popleft()
        if isinstance(item, Exchange):
            self.bytes -= item.weight()
        return item

    def look(self) -> None:
        """Say that the reader now looks: what comes from now on rings again."""
        self._rung = False

    # -- the bound -----------------------------------------------------------------

    def _make_room(self, wanted: float) -> None:
        """Let go of the oldest requests, then of the oldest calls, until few enough bytes wait.

        The answers hold the numbers; they are kept as long as can be.
        """
        if not self._room.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    item = self._items.popleft()
                    if isinstance(item, Exchange):
                        self.bytes -= item.bare()
                    self._bared.append(item)
            with contextlib.suppress(IndexError):
                while self.bytes > wanted:
                    self._give_up(self._bared.popleft())
        finally:
            self._room.release()

    def _give_up(self, item: Any) -> None:
        if isinstance(item, Exchange):
            self.bytes -= item.weight()
            self.lost.append(item.id)
        else:
            self._items.append(item)


outbox = waiting.calls = Outbox()
if hasattr(os, "register_at_fork"):
    # What the parent has not told yet, the parent tells.
    os.register_at_fork(after_in_child=outbox.empty_again)
