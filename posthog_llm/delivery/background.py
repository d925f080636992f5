"""Background responses: asked for once, finished later, fetched often, told once.

`responses.create(background=True)` answers at once that the work is queued. The event is due
when a later answer shows the work's end.
https://platform.openai.com/docs/guides/background
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

from ..observe.event_ids import background_id
from ..record import Asked, Record

_MOST = 10_000
"""Responses that wait for their end; the oldest is forgotten first."""
_MOST_TOLD = 200_000
"""Ids of responses, and of requests of batches, that were told: one batch may have 100,000."""


class Backgrounds:
    """Holds what was asked until the answer comes. Used by the worker alone."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, Record] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def due(self, record: Record) -> Record | None:
        """Return the record to tell now, or `None` where nothing is due yet, or any more."""
        if record.exchange.batch is not None:
            return self._once(record)
        if record.exchange.reader is not None:
            return record  # who told of it tells of it once
        answered, poll = record.answered, record.exchange.endpoint == "response_poll"
        identity = answered.response_id
        background = poll or answered.pending or _asked_in_background(record.asked)
        if not background or (identity is None and not poll):
            return record
        if identity is None or identity in self._told:
            return None
        if answered.pending or not answered.complete:
            if not poll:
                self._remember(self._asked, identity, record, _MOST)
            return None
        first = self._asked.pop(identity, None)
        if first is None and poll and not answered.background:
            return None
        self._remember(self._told, identity, None, _MOST_TOLD)
        return _joined(record, first, identity)

    def _once(self, record: Record) -> Record | None:
        """Tell a request of a batch the first time that its results are read."""
        identity = record.exchange.id
        if identity in self._told:
            return None
        self._remember(self._told, identity, None, _MOST_TOLD)
        return record

    @staticmethod
    def _remember(table: OrderedDict[str, Any], key: str, value: Any, most: int) -> None:
        table[key] = value
        while len(table) > most:
            table.popitem(last=False)


def _asked_in_background(asked: Asked) -> bool:
    return asked.parameters.get("background") is True


def _joined(last: Record, first: Record | None, identity: str) -> Record:
    """Tell the end under the identity of the beginning."""
    base = first or last
    exchange = replace(
        base.exchange,
        id=background_id(identity),
        client=last.exchange.client,
        status=last.exchange.status,
        endpoint="response",
        request=None,
    )
    return replace(
        last,
        exchange=exchange,
        asked=base.asked,
        latency=last.answered.elapsed if last.exchange is not base.exchange else last.latency,
        time_to_first_token=last.time_to_first_token if first in (None, last) else None,
        retries=base.retries,
    )
