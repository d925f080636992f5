"""The events for each destination, in order, and the state of its delivery."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._event import Event
from .._faults import interrupts, report
from .._settings import settings
from . import results
from .destinations import Project, has_own_capture, is_queued, official_client, parameters
from .results import DeliveryResult
from .trimming import fitted

if TYPE_CHECKING:
    from .spool_file import Stored

_LIMIT = 800 << 10
"""Most bytes of JSON of one event, for the endpoint that every PostHog has. The official client
silently drops events above 900 KiB; the difference leaves space for what it adds itself."""
_AI_LANE_LIMIT = 7_500 << 10
"""The same for the AI lane (`capture_ai`), which accepts 8 MiB."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks for events that were silently lost."""
_MOST_SENT = 1000
_MOST_SENT_BYTES = 16 << 20
"""Most events and bytes that may await results from the official client at a time."""
_PROBE = 100
"""Events that are tried at a time while a destination is failing."""
_PROBE_SHARE = 0.25
"""Share of `queue_bytes` that they may take: the client holds an uncounted copy."""
_ONCE = 20
"""Events that a thread sends before the next destination has its turn."""
_LONGEST_WAIT = 30.0
"""Most seconds between two attempts."""
_PAUSE = 0.5
"""Seconds before events that were too large are retried."""
_LEAST = 4096
"""Smallest size in bytes that an event is trimmed to before it is dropped as too large."""
_MOST_IDLE = 256
"""Most idle destinations that are remembered; the oldest is forgotten first."""
_POLL = 0.02
"""Seconds between two checks whether a full client has space again."""
_MOST_ATTEMPTS = 5
"""Most attempts with an object that declines events without a reason."""


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way to its destination."""

    uuid: str
    number: int
    """Place in the order of capture, over all destinations."""
    event: Event | None
    """`None` means that it is only in the spool."""
    length: int
    """Bytes as JSON."""
    size: int
    """Approximate bytes of memory."""
    since: float
    """When it was captured, by the monotonic clock."""
    stored: Stored | None = None
    """Its place in the spool; `None` if it is not there."""
    limit: int | None = None
    """Most bytes that it may have, because PostHog refused it as too large."""
    content_dropped: bool = False
    """Whether its content was dropped."""
    trimmed: bool = False
    """Whether it was sent smaller than it was captured."""
    sent_as: str = ""
    """The uuid under which its delivery result arrives."""
    attempts: int = 0
    weight: int = 0
    """Bytes that it was counted with when it was sent."""

    def load(self) -> Event | None:
        """Return the event; `None` if the spool cannot read it any more."""
        if self.event is None and self.stored is not None:
            return self.stored.file.load(self.stored.seq)
        return self.event


class DestinationQueue:
    """Submits events to one destination. Used only by the worker, except for `capture`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.official = official_client(client)
        self.is_queued = is_queued(self.official)
        """Whether the destination sends in the background, and reports delivery results."""
        self.declines = has_own_capture(self.official)
        """Whether `None` from `capture` means that an event was not accepted."""
        self.waiting: deque[Entry] = deque()
        self.sent: dict[str, Entry] = {}
        self.sent_bytes = 0
        self.busy = False
        """Whether a thread is submitting to it now."""
        self.flushing = self.unflushed = False
        self.failures = 0
        self.retry_at = 0.0
        self.suspects: list[Entry] = []
        """Events of batches that PostHog refused as too large, while the largest is tried alone."""
        self._refused_bytes = _MOST_SENT_BYTES
        """What the smallest of these batches weighed."""
        self._most_batch: int | None = None
        """Most that a batch may weigh; `None` unless a refusal has shown a limit."""
        self._has_ai_lane = True
        """Whether the server has an AI lane, as far as known."""

    def may_block(self) -> bool:
        """Whether the destination's `capture` runs application code, or sends a request."""
        return (
            not (self.is_queued and self.declines)
            or getattr(self.official, "before_send", None) is not None
        )

    # -- waiting -------------------------------------------------------------------

    def ready(self, now: float) -> bool:
        """Whether the first waiting event may be submitted now."""
        if not self.waiting or self.busy or now < self.retry_at:
            return False
        if not self.is_queued:
            return True
        most, most_bytes = _MOST_SENT, _MOST_SENT_BYTES
        if self.failures:
            most, most_bytes = _PROBE, int(settings().queue_bytes * _PROBE_SHARE)
        if len(self.sent) >= most or (self.sent and self.sent_bytes >= most_bytes):
            return False
        if self.sent and (self.suspects or self._is_too_much()):
            return False
        # Half of the client's queue is left for the application's own events.
        return all(q.qsize() <= q.maxsize // 2 for q in self._client_queues() if q.maxsize > 0)

    def _is_too_much(self) -> bool:
        """Whether the next event would make a batch that PostHog refuses as too large."""
        if self._most_batch is None:
            return False
        return self.sent_bytes + self.waiting[0].size > self._most_batch

    def is_full(self) -> bool:
        """Whether the official client has no space for another event."""
        return any(0 < queue.maxsize <= queue.qsize() for queue in self._client_queues())

    def _client_queues(self) -> list[Any]:
        queues = getattr(self.official, "_lanes", None)
        return [queue.queue for queue in queues] if queues else [self.official.queue]

    def next(self) -> Entry:
        """Take out the first waiting event, to be submitted."""
        entry = self.waiting.popleft()
        entry.attempts += 1
        self.sent[entry.uuid] = entry
        entry.weight = entry.size
        self.sent_bytes += entry.weight
        self.unflushed = True
        return entry

    def some(self) -> list[Entry]:
        """Take out the first few waiting events, for a thread to submit."""
        self.busy = True
        return [self.next() for _ in range(min(_ONCE, len(self.waiting)))]

    def forget(self, entry: Entry) -> None:
        """Remove an event for good."""
        if entry in self.suspects:
            self.suspects.remove(entry)
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

    # -- submitting ----------------------------------------------------------------

    def prepared(self, entry: Entry, event: Event) -> tuple[Any, Event | None]:
        """Return the capture function for an event, and the event in a size that it accepts."""
        capture_ai = getattr(self.client, "capture_ai", None) if self._has_ai_lane else None
        full = getattr(self.official, "enable_full_ai_capture", False) is True
        limit = min(entry.limit or _LIMIT, _LIMIT)
        if not full and entry.length <= limit:
            return self.client.capture, event
        if not callable(capture_ai):
            return self.client.capture, fitted(event, limit)
        limit = min(entry.limit or _AI_LANE_LIMIT, _AI_LANE_LIMIT)
        return capture_ai, event if entry.length <= limit else fitted(event, limit)

    def is_idle(self) -> bool:
        """Whether the official client has processed everything it was given."""
        return not any(queue.unfinished_tasks for queue in self._client_queues())

    # -- results -------------------------------------------------------------------

    def refused_as_large(self, result: DeliveryResult) -> bool:
        """Whether the server has no AI lane, or a smaller one; it is then not used again."""
        if not result.path.endswith("/ai/batch/") or result.status not in (404, 405, 413):
            return False
        self._has_ai_lane = False
        return True

    def failed(self, now: float) -> None:
        """Wait longer after each failed attempt; failures during a wait count once."""
        if now < self.retry_at:
            return
        self.failures += 1
        self.retry_at = now + min(0.25 * 2**self.failures, _LONGEST_WAIT)

    def pause(self, now: float) -> None:
        """Wait a little before events that were too large are retried in another size."""
        self.retry_at = max(self.retry_at, now + _PAUSE)

    def works(self) -> None:
        """Note that the destination accepts events."""
        self.failures, self.retry_at = 0, 0.0
        if self.suspects:
            self._most_batch, self.suspects = self._refused_bytes // 2, []

    def refused(self, batch: list[Entry]) -> list[Entry]:
        """Handle a batch that was too large; return the events to drop.

        The largest event is tried alone next. If it is accepted, batches become smaller, but no
        event; if not, all events that may be as large become smaller.
        """
        self.suspects += [entry for entry in batch if entry not in self.suspects]
        if len(batch) > 1 and self.is_queued:
            self._refused_bytes = min(self._refused_bytes, sum(entry.weight for entry in batch))
            return []
        suspects, self.suspects = self.suspects, []
        return shrink(suspects, self.waiting)

    def try_largest(self) -> None:
        """Move the largest of the events that were refused together to the front."""
        if self.suspects:
            largest = max(self.suspects, key=lambda entry: entry.limit or entry.length)
            self.waiting.remove(largest)
            self.waiting.appendleft(largest)


def shrink(refused: list[Entry], waiting: Iterable[Entry]) -> list[Entry]:
    """Limit refused events, and those behind them, to a quarter of the largest's size.

    Returns the events to drop: all refused ones if none can become smaller.
    """
    if all(entry.limit == _LEAST for entry in refused):
        return refused
    largest = max(min(entry.length, entry.limit or entry.length) for entry in refused)
    quarter = max(largest // 4, _LEAST)
    for entry in (*refused, *waiting):
        entry.limit = min(entry.limit or quarter, quarter)
    return []


class DestinationQueues:
    """One queue per destination. Changed only by the worker, iterated over in any thread."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Any, DestinationQueue] = OrderedDict()

    def __iter__(self) -> Iterator[DestinationQueue]:
        return iter(list(self._queues.values()))  # atomic: runs no Python code

    def of(self, client: Any) -> tuple[DestinationQueue, bool]:
        """Return the queue of a client, and whether it is new."""
        key = _key(client)
        is_new = key not in self._queues
        if is_new:
            self._queues[key] = DestinationQueue(client)
            if len(self._queues) > _MOST_IDLE:
                self._forget_idle()
        self._queues.move_to_end(key)
        return self._queues[key], is_new

    def waiting(self, client: Any) -> int:
        """Return how many events are waiting for a client."""
        queue = self._queues.get(_key(client))
        return len(queue.waiting) if queue else 0

    def _forget_idle(self) -> None:
        for key, queue in list(self._queues.items())[:-1]:
            if not (queue.waiting or queue.sent or queue.busy):
                del self._queues[key]

    def due(self) -> Iterator[float]:
        """Yield the seconds until each queue needs attention."""
        now = time.monotonic()
        for queue in self:
            if queue.waiting and not queue.busy:
                yield max(_POLL, queue.retry_at - now)
            if queue.sent:
                yield CHECK_INTERVAL

    def retry_now(self) -> None:
        """Let every destination retry now."""
        for queue in self:
            queue.retry_at = 0.0

    def unanswered(self) -> list[Any]:
        """Return the official clients that still await a response."""
        return [queue.official for queue in self if queue.is_queued and queue.sent]

    def have_submitted(self, client: Any, number: int) -> bool:
        """Whether everything captured for a client up to `number` was submitted to it."""
        return not any(
            queue.busy or any(entry.number <= number for entry in queue.waiting)
            for queue in self
            if queue.client is client or queue.official is client
        )


def _key(client: Any) -> Any:
    """Return a destination's key. Equal projects are one destination; other objects are compared
    by identity, as their `==` may be redefined. The `posthog` module is a new destination with
    each client that is set on it."""
    return client if isinstance(client, Project) else (id(client), id(official_client(client)))


def submit(queue: DestinationQueue, entry: Entry, event: Event | None) -> DeliveryResult | None:
    """Submit one event; return its delivery result, or `None` if that arrives later.

    A `LookupError` in the result names the reason why the event can never be accepted.
    """
    if event is None:
        return DeliveryResult(LookupError("spool_damaged"))
    results.last()
    try:
        capture, smaller = queue.prepared(entry, event)
        if smaller is None:
            return DeliveryResult(LookupError("too_large"))
        entry.trimmed = entry.content_dropped or smaller is not event
        answer = capture(**_arguments(capture, smaller))
    except BaseException as error:  # `sys.exit` or a cancellation: the sink may have kept the event
        if interrupts(error):
            raise
        report("capture", error)
        return DeliveryResult(LookupError("capture_failed"))
    return _queued(queue, entry, answer) if queue.is_queued else _taken(queue, entry, answer)


def _queued(queue: DestinationQueue, entry: Entry, answer: Any) -> DeliveryResult | None:
    """Read the official client's return value: the sent uuid; `None` if it accepted nothing."""
    if answer is None and queue.declines:
        return DeliveryResult(BlockingIOError() if queue.is_full() else LookupError("declined"))
    # A subclass may return anything; events that it did not queue stay unconfirmed.
    entry.sent_as = answer if isinstance(answer, str) else entry.uuid
    return None


def _taken(queue: DestinationQueue, entry: Entry, answer: Any) -> DeliveryResult:
    """Read the return value of an object that sends, or queues, before it returns."""
    result = results.last()
    if result is None and answer is None and queue.declines:
        # `AsyncPosthog` does not say whether its queue is full.
        is_full = not hasattr(queue.official, "sync_mode") and entry.attempts < _MOST_ATTEMPTS
        return DeliveryResult(BlockingIOError() if is_full else LookupError("declined"))
    return result or DeliveryResult()


def _arguments(capture: Any, event: Event) -> dict[str, Any]:
    """Return the arguments for `capture`, without those that a custom object does not accept."""
    arguments: dict[str, Any] = {
        "event": event.name,
        "distinct_id": event.distinct_id,
        "properties": event.properties,
        "timestamp": event.timestamp,
        "uuid": event.uuid,
    }
    if event.groups:
        arguments["groups"] = event.groups
    names = parameters(getattr(capture, "__func__", capture))
    return arguments if names is None else {k: v for k, v in arguments.items() if k in names}
