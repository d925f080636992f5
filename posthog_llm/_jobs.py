"""A job that ends: everything is delivered, and what became of it is said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._checks import duration
from ._delivery.lifecycle import aflush, flush
from ._delivery.stats import Stats
from ._delivery.worker import worker

_WANTED = ("before_capture", "no_destination")
"""Reasons that are the program's own doing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the events of a job, and of whatever else this process captured meanwhile."""

    delivered: int = 0
    """Events that PostHog accepted, or that an object of yours with `capture` took."""
    spooled: int = 0
    """Events that are on disk: the next process with the same spool delivers them."""
    waiting: int = 0
    """Events and calls that are in memory alone. Later they are delivered, if the process lives."""
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events that were lost, by reason; docs/delivery.md names the reasons."""

    @property
    def is_safe(self) -> bool:
        """Whether nothing was lost, and nothing is lost if the process ends now."""
        return not (self.waiting or self.lost)


class job:
    """Deliver at the end of a block what was captured in it, and say what became of it.

        with posthog_llm.job() as labelling:
            ...
        if not labelling.delivery.is_safe:
            sys.exit(1)

    A context manager (`with` and `async with`), for one job. `timeout` is how many seconds the end
    of the block may wait. `delivery` is `None` before that; it counts what this whole process did
    meanwhile. An exception goes on unchanged, after the delivery.

    Raises `TypeError` or `ValueError` for a timeout that cannot be.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = duration("timeout", timeout)
        self._before = Stats()
        self._process = 0
        self.delivery: Delivery | None = None

    def __enter__(self) -> job:
        self._before, self._process = worker.stats(), os.getpid()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._process == os.getpid():  # a forked child has a copy of the block
            flush(self._timeout)
            self.delivery = self._since_then()

    async def __aenter__(self) -> job:
        return self.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        if self._process == os.getpid():
            await aflush(self._timeout)
            self.delivery = self._since_then()

    def _since_then(self) -> Delivery:
        now, before = worker.stats(), self._before
        lost = {name: count - before.dropped.get(name, 0) for name, count in now.dropped.items()}
        spooled, waiting = worker.undelivered()
        return Delivery(
            delivered=now.delivered - before.delivered,
            spooled=spooled,
            waiting=waiting,
            lost={name: count for name, count in lost.items() if count and name not in _WANTED},
        )
