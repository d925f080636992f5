"""Where finished calls wait for the worker. Putting one there is all a caller ever pays."""

from __future__ import annotations

import os
import queue
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call


class Outbox:
    """A queue that wakes its reader late and is born again, empty, after a fork.

    `SimpleQueue.put` is reentrant, so a finaliser may call it whatever lock its thread holds.
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
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.open_streams: weakref.WeakSet[Call] = weakref.WeakSet()
        self._woken = False

    def wake(self) -> None:
        """Make sure that somebody will read; called when a call starts."""
        if not self._woken:
            self._woken = True
            if self.on_first is not None:
                self.on_first()


outbox = Outbox()
if hasattr(os, "register_at_fork"):
    # What the parent has not told yet, the parent tells.
    os.register_at_fork(after_in_child=outbox.empty_again)
