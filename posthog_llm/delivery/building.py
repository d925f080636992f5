"""From a finished call to its events: what it meant, whether it is captured, where it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import event
from ..exchange import Exchange, Scope
from ..faults import interrupts, report
from ..observe.outbox import outbox
from ..observe.outer import tells_itself
from ..providers.batches import records
from ..record import Record
from ..sampling import is_sampled
from .background import Backgrounds
from .destinations import is_private
from .dispatcher import Dispatcher
from .filters import Refused, filtered


class Builder:
    """Builds events and gives them to the dispatcher. Used by the worker alone."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        find: Callable[[Scope], Any],
        breathe: Callable[[], object],
    ) -> None:
        self._dispatcher = dispatcher
        self._find = find
        """Returns the client that an event goes to."""
        self._breathe = breathe
        """Called between two events of one call."""
        self._backgrounds = Backgrounds()

    @property
    def bytes(self) -> int:
        """Memory that calls take which have been read, and are not told yet."""
        return self._backgrounds.bytes

    def build(self, exchange: Exchange) -> None:
        """Build what a call is worth. Every event that a fault of ours costs is counted."""
        try:
            for record in records(exchange):
                self._take(record)
                self._breathe()
        except BaseException as error:
            if interrupts(error):
                outbox.put(exchange)  # those of its events that were built are known by their uuids
                raise
            self._lose(exchange.id, error)
        exchange.release()

    def _take(self, found: Record) -> None:
        try:
            record = self._backgrounds.due(found)
            if record is None or tells_itself(record.base_url):
                return
            if is_sampled(record):
                self._add(record)
        except BaseException as error:
            if interrupts(error):
                raise
            self._lose(found.exchange.id, error)

    def _lose(self, uuid: str, error: BaseException) -> None:
        report("worker", error)
        if uuid not in self._dispatcher.entries:
            self._dispatcher.ledger.lose(uuid, "fault")

    def _add(self, record: Record) -> None:
        client = self._find(record.exchange.scope)
        for built in event.builds(record, is_private(client)):
            self._hand_over(built, client, record)

    def _hand_over(self, built: event.Event, client: Any, record: Record) -> None:
        try:
            built = filtered(built)
        except Refused as refusal:
            self._dispatcher.ledger.lose(built.uuid, str(refusal), wanted=refusal.wanted)
            return
        self._dispatcher.add(built, client, bared=bool(record.exchange.bared))
