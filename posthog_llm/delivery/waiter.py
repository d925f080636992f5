"""Somebody who waits for what was captured before."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .flag import Flag

if TYPE_CHECKING:
    from .dispatcher import Dispatcher


@dataclass(slots=True)
class Waiter:
    """Put on the call queue, so that it stands behind what it waits for."""

    client: Any = None
    """Wait until this client has its events; `None`: until every event has arrived."""
    until: float | None = None
    number: int | None = None
    """The last event that is waited for; `None` until the calls before it have been read."""
    done: Flag = field(default_factory=Flag)

    def left(self) -> float:
        """Return the seconds that it still waits; an hour where there is no limit."""
        return 3600.0 if self.until is None else max(0.0, self.until - time.monotonic())


class Waiters:
    """All who wait now. Any thread may add one; the worker's turn takes them out."""

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, waiter: Waiter) -> None:
        self._waiting.append(waiter)

    def serve(self, dispatcher: Dispatcher) -> bool:
        """Tell those whose events have arrived; returns whether somebody still waits."""
        for waiter in list(self._waiting):
            if waiter.number is not None and _is_served(waiter, waiter.number, dispatcher):
                waiter.done.set()
            if waiter.done.is_set() or not waiter.left():
                self._waiting.remove(waiter)
            elif waiter.client is None:
                dispatcher.hurry(waiter.left())
        return bool(self)


def _is_served(waiter: Waiter, number: int, dispatcher: Dispatcher) -> bool:
    if waiter.client is not None:
        return dispatcher.has_handed_over(waiter.client, number)
    return dispatcher.is_settled(number)
