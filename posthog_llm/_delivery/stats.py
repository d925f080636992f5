"""What happened to the events: always counted, logged at most once a minute."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .._faults import interrupts, report, warn
from .._settings import settings

_SILENCE = 60.0
"""Seconds between two log lines about lost events."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of this process since it started; in a forked child, since the fork."""

    captured: int = 0
    """Events built from calls, and written to the spool if there is one."""
    delivered: int = 0
    """Events that PostHog, or your own object with `capture`, accepted."""
    trimmed: int = 0
    """Delivered events that were cut: too large, or too much was waiting."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events that were lost, by reason; docs/delivery.md lists the reasons."""
    spooled: int = 0
    """Events that are in the spool now, including those of earlier processes."""
    queue_bytes: int = 0
    """Approximate memory of undelivered calls and events, in bytes."""
    oldest_age: float | None = None
    """Seconds that the oldest undelivered event has waited; `None` if none is waiting."""


class Ledger:
    """The counts; written only by the worker."""

    def __init__(self) -> None:
        self.captured = self.delivered = self.trimmed = 0
        self.dropped: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._logged_at = -_SILENCE

    def drop(self, uuid: str, reason: str, *, wanted: bool = False) -> None:
        """Count a lost event. `wanted`: the user asked for it, so it needs no warning."""
        self.dropped[reason] += 1
        if wanted:
            return
        self._unlogged[reason] += 1
        if on_drop := settings().on_drop:
            try:
                on_drop(uuid, reason)
            except BaseException as error:  # even `sys.exit`: further losses must be counted
                if interrupts(error):
                    raise
                report("on_drop", error)

    def lose(self, uuid: str, reason: str, *, wanted: bool = False) -> None:
        """Count an event that was captured and lost before it was queued."""
        self.captured += 1
        self.drop(uuid, reason, wanted=wanted)

    def lost(self, events: deque[tuple[str, str]]) -> None:
        """Count events that callers' threads had to drop, by uuid and reason."""
        while events:
            self.lose(*events.popleft())

    def stats(self, spooled: int, queue_bytes: int, oldest_age: float | None) -> Stats:
        """Return the counts, combined with the given figures on undelivered events."""
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
        """Yield the seconds until the next log line."""
        if self._unlogged:
            yield max(0.0, self._logged_at + _SILENCE - time.monotonic())

    def log_losses(self) -> None:
        """Log the events lost since the last line."""
        now = time.monotonic()
        if self._unlogged and now - self._logged_at >= _SILENCE:
            self._logged_at = now
            reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(self._unlogged.items()))
            total = sum(self._unlogged.values())
            self._unlogged.clear()
            warn("%d events were lost (%s)", total, reasons)
