"""All destinations that have events, or had some lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from .destinations import official_client
from .lane import SWEEP, Lane
from .project import Project

_MOST = 256
"""Idle destinations that are remembered; the oldest is forgotten first."""
_POLL = 0.02
"""Seconds between two looks whether a full client has room again."""


class Lanes:
    """One lane a destination. Changed by the worker alone, and iterated over in any thread."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Any, Lane] = OrderedDict()

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))  # at once: no code of Python's runs amid this

    def of(self, client: Any) -> tuple[Lane, bool]:
        """Return the lane of a client, and whether it is a new one."""
        key = _key(client)
        is_new = key not in self._lanes
        if is_new:
            self._lanes[key] = Lane(client)
            if len(self._lanes) > _MOST:
                self._forget_idle()
        self._lanes.move_to_end(key)
        return self._lanes[key], is_new

    def waiting(self, client: Any) -> int:
        """Return how many events wait for a client."""
        lane = self._lanes.get(_key(client))
        return len(lane.waiting) if lane else 0

    def _forget_idle(self) -> None:
        for key, lane in list(self._lanes.items())[:-1]:
            if not (lane.waiting or lane.sent or lane.busy):
                del self._lanes[key]

    def due(self) -> Iterator[float]:
        """Yield in how many seconds each lane is to be looked at."""
        now = time.monotonic()
        for lane in self:
            if lane.waiting and not lane.busy:
                yield max(_POLL, lane.retry_at - now)
            if lane.sent:
                yield SWEEP

    def hurry(self) -> None:
        """Let every destination try again now."""
        for lane in self:
            lane.retry_at = 0.0

    def unanswered(self) -> list[Any]:
        """Return the official clients whose PostHog has not answered yet."""
        return [lane.official for lane in self if lane.is_queued and lane.sent]

    def have_handed_over(self, client: Any, number: int) -> bool:
        """Whether a client has everything that was captured for it up to `number`."""
        return not any(
            lane.busy or any(entry.number <= number for entry in lane.waiting)
            for lane in self
            if lane.client is client or lane.official is client
        )


def _key(client: Any) -> Any:
    """Return what a destination is known by. Equal projects are one; an object's `==` is its
    user's affair. The `posthog` module is another one with each client that it is given."""
    return client if isinstance(client, Project) else (id(client), id(official_client(client)))
