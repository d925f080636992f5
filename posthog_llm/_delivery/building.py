"""From a finished call to its events: parsing, sampling, destination."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .._checks import text
from .._event import Event, builds
from .._exchange import Exchange, Scope
from .._faults import interrupts, report
from .._identity import is_private
from .._narrowing import first_given, is_mapping
from .._observe.call_queue import call_queue
from .._observe.dedup import is_captured_upstream
from .._observe.event_ids import background_id
from .._privacy import Cleaner
from .._providers.batches import records
from .._providers.endpoints import ENDPOINTS
from .._record import Record, RequestFacts
from .._sampling import is_sampled
from .._settings import settings
from .._turns import let_others_run
from .._weighing import size_of_plain
from . import destinations
from .dispatcher import Dispatcher

_MOST = 10_000
"""Most background responses waiting to finish; the oldest is forgotten first."""
_SHARE = 0.25
"""Share of `queue_bytes` that their requests may take; the oldest loses its content first."""
_SHORT = 1024
"""Most bytes of a parameter that does not count as content."""
_WEIGHT = 4096
"""Bytes that a waiting response takes besides its request."""
_MOST_CAPTURED = 200_000
"""Most remembered ids of captured responses and batch requests: one batch may have 100,000."""
_MOST_SEEN = 10_000
"""Latest responses whose ids frameworks may report."""


class Builder:
    """Builds events and passes them to the dispatcher. Used only by the worker."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        find: Callable[[Scope], Any],
        yield_interpreter: Callable[[], object],
    ) -> None:
        self._dispatcher = dispatcher
        self._find = find
        """Returns the client that an event goes to."""
        self._yield_interpreter = yield_interpreter
        """Called between two events of one call."""
        self._backgrounds = Backgrounds()
        self._seen: OrderedDict[str, float] = OrderedDict()
        """When the calls of the latest responses on the wire began, by the response's id."""

    @property
    def bytes(self) -> int:
        """Memory of calls that have been read but not yet captured."""
        return self._backgrounds.bytes

    def build(self, exchange: Exchange) -> None:
        """Build the events of a call. Events lost to an internal fault are counted."""
        try:
            for record in records(exchange):
                self._take(record)
                self._yield_interpreter()
        except BaseException as error:
            if interrupts(error):
                call_queue.put(exchange)  # events that are already built are skipped by uuid
                raise
            self._lose(exchange.id, error)
        exchange.release()

    def _take(self, found: Record) -> None:
        try:
            let_others_run()  # a long text was parsed
            record = self._backgrounds.due(found)
            if record is None or is_captured_upstream(record.base_url):
                return
            if self._was_seen(record):
                return
            if is_sampled(record):
                self._add(record)
        except BaseException as error:
            if interrupts(error):
                raise
            self._lose(found.exchange.id, error)

    def _was_seen(self, record: Record) -> bool:
        """Whether a framework reports a call that was seen on the wire, outside of its step.

        The id of the response shows that, if the call began while the framework's step was open.
        Times alone do not: a model in this process may run while another thread calls another.
        """
        identity, exchange = record.response.response_id, record.exchange
        if identity is None:
            return False
        if exchange.reader is None:
            self._seen[identity] = exchange.started_at
            if len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)
            return False
        is_report = getattr(exchange.content, "is_report", False)
        return is_report and self._seen.get(identity, 0.0) >= exchange.started_at

    def _lose(self, uuid: str, error: BaseException) -> None:
        report("worker", error)
        if uuid not in self._dispatcher.entries:
            self._dispatcher.ledger.lose(uuid, "fault")

    def _add(self, record: Record) -> None:
        client = self._find(record.exchange.scope)
        for built in builds(record, destinations.is_private(client)):
            let_others_run()
            self._submit(built, client, record)

    def _submit(self, built: Event, client: Any, record: Record) -> None:
        try:
            built = filtered(built)
        except Refused as refusal:
            self._dispatcher.ledger.lose(built.uuid, str(refusal), wanted=refusal.wanted)
            return
        self._dispatcher.add(built, client, content_dropped=bool(record.exchange.content_dropped))


class Backgrounds:
    """Holds background requests until their response is finished. Used only by the worker.

    `responses.create(background=True)` returns at once, with the work queued. The event is due
    when one of the later polls shows that the work has ended.
    https://platform.openai.com/docs/guides/background
    """

    def __init__(self) -> None:
        self._requested: OrderedDict[str, Record] = OrderedDict()
        self._captured: OrderedDict[str, None] = OrderedDict()
        self._whole: OrderedDict[str, int] = OrderedDict()
        """Bytes of each request whose content is held."""
        self.bytes = 0
        """Approximate memory of all of them."""

    def due(self, record: Record) -> Record | None:
        """Return the record to capture now; `None` if it is not due yet, or already captured."""
        if record.exchange.batch is not None:
            return self._once(record)
        if record.exchange.reader is not None:
            return record  # the library that reported it reports it once
        endpoint = ENDPOINTS.get(record.exchange.endpoint)
        response, poll = record.response, endpoint is not None and bool(endpoint.polls)
        identity = response.response_id
        background = poll or response.pending or _requests_background(record.request)
        if not background or (identity is None and not poll):
            return record
        if identity is None or identity in self._captured:
            return None
        if response.pending or not response.complete:
            if not poll:
                self._wait(identity, record)
            return None
        first = self._take_out(identity)
        if first is None and poll and not response.background:
            return None
        self._remember(self._captured, identity, None, _MOST_CAPTURED)
        return _joined(record, first, identity)

    def _once(self, record: Record) -> Record | None:
        """Capture a batch request the first time its result is read."""
        identity = record.exchange.id
        if identity in self._captured:
            return None
        self._remember(self._captured, identity, None, _MOST_CAPTURED)
        return record

    def _wait(self, identity: str, record: Record) -> None:
        self._take_out(identity)
        if len(self._requested) >= _MOST:
            self._take_out(next(iter(self._requested)))
        self._requested[identity] = record
        self._whole[identity] = size = _size(record.request)
        self.bytes += _WEIGHT + size
        while self.bytes > settings().queue_bytes * _SHARE and self._whole:
            oldest, size = self._whole.popitem(last=False)
            self._requested[oldest] = stripped = _drop_content(self._requested[oldest], size)
            self.bytes += _size(stripped.request) - size

    def _take_out(self, identity: str) -> Record | None:
        record = self._requested.pop(identity, None)
        size = self._whole.pop(identity, None)
        if record is not None:
            self.bytes -= _WEIGHT + (_size(record.request) if size is None else size)
        return record

    @staticmethod
    def _remember(table: OrderedDict[str, Any], key: str, value: Any, most: int) -> None:
        table[key] = value
        while len(table) > most:
            table.popitem(last=False)


def _size(request: RequestFacts) -> int:
    return size_of_plain([request.input, request.tools, *request.parameters.values()])


def _drop_content(record: Record, size: int) -> Record:
    """Return the record without the content of its request, which is `size` bytes."""
    parameters = {k: v for k, v in record.request.parameters.items() if size_of_plain(v) <= _SHORT}
    request = replace(record.request, input=None, tools=None, parameters=parameters)
    return replace(record, request=request, content_cut=record.content_cut + size - _size(request))


def _requests_background(request: RequestFacts) -> bool:
    return request.parameters.get("background") is True


def _joined_scope(first: Scope, last: Scope) -> Scope:
    """Return the first call's scope; privacy mode and the redactor of either apply to both."""
    call = replace(first.call, privacy_mode=True) if is_private(last) else first.call
    return replace(first, call=call, redact=first_given(first.redact, last.redact))


def _joined(last: Record, first: Record | None, identity: str) -> Record:
    """Combine the final response with the identity of the initial request."""
    base = first or last
    exchange = replace(
        base.exchange,
        scope=_joined_scope(base.exchange.scope, last.exchange.scope),
        id=background_id(identity),
        client=last.exchange.client,
        status=last.exchange.status,
        endpoint=ENDPOINTS[last.exchange.endpoint].polls or last.exchange.endpoint,
        request=None,
    )
    return replace(
        last,
        exchange=exchange,
        request=base.request,
        content_cut=last.content_cut + (first.content_cut if first not in (None, last) else 0),
        latency=last.response.elapsed if last.exchange is not base.exchange else last.latency,
        time_to_first_token=last.time_to_first_token if first in (None, last) else None,
        retries=base.retries,
    )


class Refused(Exception):
    """An event must not be sent; the text is the reason."""

    def __init__(self, reason: str, *, wanted: bool = False) -> None:
        super().__init__(reason)
        self.wanted = wanted
        """Whether the user asked for that."""


def filtered(event: Event) -> Event:
    """Return the event as `before_capture` returns it. Raises `Refused` if it must not be sent."""
    before_capture = settings().before_capture
    if before_capture is None:
        return event
    try:
        answer = before_capture(
            {
                "event": event.name,
                "uuid": event.uuid,
                "distinct_id": event.distinct_id,
                "timestamp": event.timestamp,
                "properties": event.properties,
                "groups": dict(event.groups or {}),
            }
        )
        if answer is None:
            raise Refused("before_capture", wanted=True)
        if not is_mapping(answer):
            raise TypeError(f"before_capture returned {type(answer).__name__}")
        who = answer["distinct_id"]
        left = replace(
            event,
            name=str(answer["event"]),
            distinct_id=text("distinct_id", "" if who is None else who),
            timestamp=answer["timestamp"],
            properties={
                # `before_capture` may have added values of any type.
                str(name): Cleaner(keep_media=True).plain(value)
                for name, value in answer["properties"].items()
            },
            groups=dict(answer.get("groups") or {}) or None,
        )
        return left if left.distinct_id else left.of_nobody()
    except Refused:
        raise
    except Exception as error:
        if interrupts(error):
            raise
        report("before_capture", error)
        raise Refused("before_capture_failed") from None
