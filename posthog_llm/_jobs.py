"""A job that ends: everything is delivered, and the result is reported."""

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
"""Reasons that the application chose itself."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the events of a job, and of all else that this process captured meanwhile."""

    delivered: int = 0
    """Events that PostHog accepted, or that an object of yours with a `capture` method took."""
    spooled: int = 0
    """Events on disk: the next process with the same spool delivers them."""
    waiting: int = 0
    """Events and calls that are only in memory. They are delivered later, if the process lives."""
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    """Lost events by reason; docs/delivery.md lists the reasons."""

    @property
    def is_safe(self) -> bool:
        """Whether nothing was lost, and nothing is lost if the process ends now."""
        return not (self.waiting or self.lost)


class job:
    """Deliver at the end of a block what was captured in it, and report the result.

        with posthog_llm.job() as labelling:
            ...
        if not labelling.delivery.is_safe:
            sys.exit(1)

    A context manager (`with` and `async with`) for one job. The end of the block waits at most
    `timeout` seconds. Until then `delivery` is `None`; it counts what the whole process did
    meanwhile. An exception propagates unchanged after the delivery.

    Raises `TypeError` or `ValueError` for an invalid timeout.
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
