"""The events for one destination, in order, and what is known of how it fares."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..event import Event
from ..settings import settings
from .destinations import has_own_capture, is_queued, official_client
from .receipts import Receipt
from .trimming import fitted

if TYPE_CHECKING:
    from .spool_file import Stored

_LIMIT = 800 << 10
"""Bytes of JSON of one event on the way that every PostHog has. The official client drops beyond
900 KiB, without telling; what it adds itself needs room."""
_ROOMY_LIMIT = 7_500 << 10
"""The same for the AI lane (`capture_ai`), which takes 8 MiB."""
SWEEP = 1.0
"""Seconds between two looks whether events were lost without a word."""
_MOST_SENT = 1000
_MOST_SENT_BYTES = 16 << 20
"""What may be with the official client at a time, waiting for its answer."""
_PROBE = 100
"""Events that are tried at a time while a destination fails."""
_PROBE_SHARE = 0.25
"""Share of the allowed bytes that they may take: the client has a copy, which nobody weighs."""
_ONCE = 20
"""Events that one thread sends before another destination has its turn."""
_LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""
_LEAST = 4096
"""Bytes to which an event is brought down at most, before it is given up as too large."""


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way."""

    uuid: str
    number: int
    """Place in the order of capture, over all destinations."""
    event: Event | None
    """`None`: in the spool only."""
    length: int
    """Bytes that it takes as JSON."""
    size: int
    """About how many bytes of memory it takes."""
    since: float
    """When it was captured, by the monotonic clock."""
    stored: Stored | None = None
    """Where it lies in the spool; `None`: it does not."""
    limit: int | None = None
    """Bytes that it must come down to, because PostHog refused it as too large."""
    bared: bool = False
    """Whether its content was given up."""
    trimmed: bool = False
    """Whether it was sent smaller than it came."""
    sent_as: str = ""
    """The uuid under which the receipt comes."""
    attempts: int = 0
    weight: int = 0
    """Bytes that it counted for when it was sent."""

    def load(self) -> Event | None:
        """Return the event; `None` where the spool cannot tell it any more."""
        if self.event is None and self.stored is not None:
            return self.stored.file.load(self.stored.seq)
        return self.event


class Lane:
    """Hands events to one destination. Used by the worker alone, but for `capture`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.official = official_client(client)
        self.is_queued = is_queued(self.official)
        """Whether the destination sends in the background, and sends receipts."""
        self.declines = has_own_capture(self.official)
        """Whether `None` from `capture` says that an event was not taken."""
        self.waiting: deque[Entry] = deque()
        self.sent: dict[str, Entry] = {}
        self.sent_bytes = 0
        self.busy = False
        """Whether a thread is capturing for it now."""
        self.flushing = self.unflushed = False
        self.failures = 0
        self.retry_at = 0.0
        self._roomy = True
        """Whether the server has an AI lane, as far as is known."""

    def may_block(self) -> bool:
        """Whether code of the program's, or a request, runs in the destination's `capture`."""
        return (
            not (self.is_queued and self.declines)
            or getattr(self.official, "before_send", None) is not None
        )

    # -- what may go ---------------------------------------------------------------

    def ready(self, now: float) -> bool:
        """Whether the first waiting event may be handed over now."""
        if not self.waiting or self.busy or now < self.retry_at:
            return False
        if not self.is_queued:
            return True
        most, most_bytes = _MOST_SENT, _MOST_SENT_BYTES
        if self.failures:
            most, most_bytes = _PROBE, int(settings().queue_bytes * _PROBE_SHARE)
        if len(self.sent) >= most or (self.sent and self.sent_bytes >= most_bytes):
            return False
        # Half of the client's queue is left for the events that are not ours.
        return all(q.qsize() <= q.maxsize // 2 for q in self._queues() if q.maxsize > 0)

    def is_full(self) -> bool:
        """Whether the official client has no room for another event."""
        return any(0 < queue.maxsize <= queue.qsize() for queue in self._queues())

    def _queues(self) -> list[Any]:
        lanes = getattr(self.official, "_lanes", None)
        return [lane.queue for lane in lanes] if lanes else [self.official.queue]

    def next(self) -> Entry:
        """Take the first waiting event out, to be handed over."""
        entry = self.waiting.popleft()
        entry.attempts += 1
        self.sent[entry.uuid] = entry
        entry.weight = entry.size
        self.sent_bytes += entry.weight
        self.unflushed = True
        return entry

    def some(self) -> list[Entry]:
        """Take the first few waiting events out, for a thread to hand over."""
        self.busy = True
        return [self.next() for _ in range(min(_ONCE, len(self.waiting)))]

    def forget(self, entry: Entry) -> None:
        """Take an event out for good."""
        if self.sent.pop(entry.uuid, None) is not None:
            self.sent_bytes -= entry.weight
        elif self.waiting and self.waiting[-1] is entry:
            self.waiting.pop()
        elif entry in self.waiting:
            self.waiting.remove(entry)

    def again(self, entries: list[Entry]) -> None:
        """Put events that did not arrive back to the front."""
        for entry in sorted(entries, key=lambda entry: -entry.number):
            if self.sent.pop(entry.uuid, None) is not None:
                self.sent_bytes -= entry.weight
                self.waiting.appendleft(entry)

    # -- handing over --------------------------------------------------------------

    def prepared(self, entry: Entry, event: Event) -> tuple[Any, Event | None]:
        """Return the function that takes an event, and the event in a size that it takes."""
        roomy = getattr(self.client, "capture_ai", None) if self._roomy else None
        full = getattr(self.official, "enable_full_ai_capture", False) is True
        limit = min(entry.limit or _LIMIT, _LIMIT)
        if not full and entry.length <= limit:
            return self.client.capture, event
        if not callable(roomy):
            return self.client.capture, fitted(event, limit)
        return roomy, fitted(event, min(entry.limit or _ROOMY_LIMIT, _ROOMY_LIMIT))

    def is_idle(self) -> bool:
        """Whether the official client is done with all that it was given."""
        return not any(queue.unfinished_tasks for queue in self._queues())

    # -- what came of it -----------------------------------------------------------

    def refused_as_large(self, receipt: Receipt) -> bool:
        """Whether the server has no AI lane, or a smaller one; it is not used again then."""
        if not receipt.path.endswith("/ai/batch/") or receipt.status not in (404, 405, 413):
            return False
        self._roomy = False
        return True

    def failed(self, now: float) -> None:
        """Wait before the next attempt, longer each time; several batches of one are one."""
        if now < self.retry_at:
            return
        self.failures += 1
        self.retry_at = now + min(0.25 * 2**self.failures, _LONGEST_WAIT)

    def works(self) -> None:
        """Note that the destination takes events."""
        self.failures, self.retry_at = 0, 0.0


def shrink(refused: list[Entry]) -> list[Entry]:
    """Bring the events of a batch that was too large down to a quarter of the largest.

    Returns those to give up: all, where none can become smaller.
    """
    if all(entry.limit == _LEAST for entry in refused):
        return refused
    largest = max(min(entry.length, entry.limit or entry.length) for entry in refused)
    quarter = max(largest // 4, _LEAST)
    for entry in refused:
        entry.limit = min(entry.limit or quarter, quarter)
    return []
