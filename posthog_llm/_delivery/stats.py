"""What became of the events: counted always, logged once a minute at most."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .._faults import interrupts, report, warn
from .._settings import settings

_SILENCE = 60.0
"""Seconds between two lines about lost events."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of this process since it started; in a forked child, since the fork."""

    captured: int = 0
    """Events that were made of calls, and written to the spool where there is one."""
    delivered: int = 0
    """Events that PostHog accepted, or that an object of yours with `capture` took."""
    trimmed: int = 0
    """Events that were made smaller than they came: too large, or too much was waiting."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events that were lost, by reason; docs/delivery.md names the reasons."""
    spooled: int = 0
    """Events that are in the spool now, what earlier processes left included."""
    queue_bytes: int = 0
    """Memory that undelivered calls and events take, about."""
    oldest_age: float | None = None
    """Seconds that the oldest undelivered event has waited; `None`: none waits."""


class Ledger:
    """Counts; written by the worker alone."""

    def __init__(self) -> None:
        self.captured = self.delivered = self.trimmed = 0
        self.dropped: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._logged_at = -_SILENCE

    def drop(self, uuid: str, reason: str, *, wanted: bool = False) -> None:
        """Count a lost event. `wanted`: the user's own doing, which needs no warning."""
        self.dropped[reason] += 1
        if wanted:
            return
        self._unlogged[reason] += 1
        if on_drop := settings().on_drop:
            try:
                on_drop(uuid, reason)
            except BaseException as error:  # `sys.exit`, too: what else was lost is to be counted
                if interrupts(error):
                    raise
                report("on_drop", error)

    def lose(self, uuid: str, reason: str, *, wanted: bool = False) -> None:
        """Count an event that was captured and lost before it could wait for anything."""
        self.captured += 1
        self.drop(uuid, reason, wanted=wanted)

    def lost(self, events: deque[tuple[str, str]]) -> None:
        """Count what callers' threads had to give up, by uuid and reason."""
        while events:
            self.lose(*events.popleft())

    def stats(self, spooled: int, queue_bytes: int, oldest_age: float | None) -> Stats:
        """Return the counts, with what the caller knows of what still waits."""
        return Stats(
            captured=self.captured,
            delivered=self.delivered,
            trimmed=self.trimmed,
            dropped=dict(self.dropped),
            spooled=spooled,
            queue_bytes=queue_bytes,
            oldest_age=oldest_age,
        )

    def next_line(self) -> Iterator[float]:
        """Yield in how many seconds there is something to tell."""
        if self._unlogged:
            yield max(0.0, self._logged_at + _SILENCE - time.monotonic())

    def log_losses(self) -> None:
        """Log what was lost since the last line."""
        now = time.monotonic()
        if self._unlogged and now - self._logged_at >= _SILENCE:
            self._logged_at = now
            reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(self._unlogged.items()))
            total = sum(self._unlogged.values())
            self._unlogged.clear()
            warn("%d events were lost (%s)", total, reasons)
