"""One event into one destination's `capture`, and what its answer means."""

from __future__ import annotations

from typing import Any

from ..event import Event
from ..faults import interrupts, report
from . import receipts
from .lane import Entry, Lane
from .receipts import Receipt
from .timeout import parameters

_PATIENCE = 5
"""Attempts for an object that takes no event and does not say why."""


def hand_over(lane: Lane, entry: Entry, event: Event | None) -> Receipt | None:
    """Hand one event over; returns its receipt, or `None` where that comes later.

    A receipt's `LookupError` names the reason why the event can never be taken.
    """
    if event is None:
        return Receipt(LookupError("spool_damaged"))
    receipts.last()
    try:
        capture, smaller = lane.prepared(entry, event)
        if smaller is None:
            return Receipt(LookupError("too_large"))
        entry.trimmed = entry.bared or smaller is not event
        answer = capture(**_arguments(capture, smaller))
    except BaseException as error:  # `sys.exit` or a cancellation: the sink may have kept the event
        if interrupts(error):
            raise
        report("capture", error)
        return Receipt(LookupError("capture_failed"))
    return _queued(lane, entry, answer) if lane.is_queued else _taken(lane, entry, answer)


def _queued(lane: Lane, entry: Entry, answer: Any) -> Receipt | None:
    """Read the official client's answer: the uuid it sends, or `None` when it took nothing."""
    if answer is None and lane.declines:
        return Receipt(BlockingIOError() if lane.is_full() else LookupError("declined"))
    # A subclass may return anything; what it did not queue stays unconfirmed.
    entry.sent_as = answer if isinstance(answer, str) else entry.uuid
    return None


def _taken(lane: Lane, entry: Entry, answer: Any) -> Receipt:
    """Read the answer of an object that sends, or queues, before it returns."""
    receipt = receipts.last()
    if receipt is None and answer is None and lane.declines:
        # `AsyncPosthog` does not say whether its queue is full.
        is_full = not hasattr(lane.official, "sync_mode") and entry.attempts < _PATIENCE
        return Receipt(BlockingIOError() if is_full else LookupError("declined"))
    return receipt or Receipt()


def _arguments(capture: Any, event: Event) -> dict[str, Any]:
    """Return the arguments for `capture`, less those that a caller's own object lacks."""
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
