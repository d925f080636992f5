"""Traces and spans of the user's own steps, around the calls to models that they make."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import sampling
from .arguments import TraceArguments
from .checks import checked, named, text
from .context import NOTHING, ambient, current, decorated, merged, set_current
from .exchange import Ambient, Arguments, Exchange, Failure, Outcome, Scope, size_of, text_of
from .faults import guarded
from .observe.event_ids import new_id
from .observe.outbox import counted, outbox
from .record import Answered, Asked, Kind, Record

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F")
_CLOSED = (GeneratorExit, KeyboardInterrupt, SystemExit, asyncio.CancelledError)
"""What ends a step without its having failed."""


@dataclass(slots=True)
class _State:
    """What a step was given and what it gave, until the worker reads it."""

    input: Any
    output: Any
    details: Mapping[str, Any]

    def bare(self) -> None:
        self.input = self.output = None


class _Step:
    """What `trace` and `span` share: a context manager, sync and async, and a decorator."""

    _kind: Kind

    def __init__(self, name: str, given: Arguments, input: Any, options: _Options) -> None:
        self.name = text("name", name)
        self.id = ""
        """Id by which what happens inside names its parent; empty before the step begins."""
        self.trace_id = ""
        self.input = input
        """What the step was given; kept as it is when the step begins."""
        self.output: Any = None
        """What the step gave; set it before the step ends."""
        self.properties: dict[str, Any] = dict(given.properties or {})
        """Custom properties of the step's own event; add to them before the step ends."""
        self._given, self._options = given, options
        self._outer: Arguments | None = None
        self._ambient = Ambient()
        self._started_at = self._clock = 0.0

    def _begin(self, outer: Arguments) -> Arguments:
        """Settle ids; returns what holds inside."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        if self._outer is not None:
            raise RuntimeError(f"{self._kind} {self.name!r} was entered before: make another")
        outer = current()
        self._outer, self._ambient = outer, _around() or Ambient()
        inner = self._begin(outer)
        self.input = _snapshot(self.input)
        self._started_at, self._clock = time(), perf_counter()
        set_current(inner)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        outer = self._outer or NOTHING
        set_current(outer)
        self._tell(outer, error)

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self.__exit__(*exc_info)

    def __call__(self, function: F) -> F:
        """Decorate a function, sync or async, or a generator: each call is a step of its own."""
        return decorated(self._for_call, function)

    def _for_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Step:
        step = copy.copy(self)
        step.properties = dict(self.properties)
        step._outer = None
        if self._options.arguments:
            step.input = {"args": list(args), "kwargs": kwargs}
        return step

    def gave(self, value: Any) -> None:
        """Note what a decorated function returned or yielded, where that was asked for."""
        if self._options.result:
            self.output = value

    @counted
    def _tell(self, outer: Arguments, error: BaseException | None) -> None:
        own = Arguments(
            distinct_id=self._given.distinct_id,
            trace_id=self.trace_id,
            session_id=self._given.session_id,
            span_id=self.id,
            parent_id=outer.parent_id if self._kind == "span" else None,
            span_name=self.name,
            properties=self.properties or None,
            groups=self._given.groups,
            privacy_mode=self._given.privacy_mode,
            client=self._given.client,
        )
        around = outer if self._kind == "span" else _without_parent(outer)
        sample = sampling.draw(False, own, around)
        if sample is None:
            return
        exchange = Exchange(self._kind, new_id(), Scope(own, around, self._ambient), 0.0)
        exchange.started_at = self._started_at
        exchange.ended = perf_counter() - self._clock
        exchange.outcome, exchange.failure = _outcome(error)
        output = _snapshot(self.output)
        exchange.content = _State(self.input, output, {"type": self._options.type})
        exchange.received = size_of((self.input, output))
        exchange.reader = _record
        sample.note(exchange)
        named = self._given.client or outer.client
        if named is not None:
            outbox.attach(named)
        outbox.start()
        outbox.put(exchange)


@dataclass(frozen=True, slots=True)
class _Options:
    type: str | None = None
    arguments: bool = False
    result: bool = False


class trace(_Step):
    """One request of your program: the container of the spans and the calls that it makes.

        with posthog_llm.trace("answer a ticket", distinct_id="user-7", session_id="chat-1") as t:
            ...
            t.output = reply

    A context manager (`with` and `async with`) and a decorator, also of generators. Who asked,
    the session, the groups, the properties, privacy and the destination hold for everything
    inside. `id` and `trace_id` are known inside; `output` and `properties` may be set until the
    end. Emits `$ai_trace` when it ends, with its latency in seconds; an exception is recorded
    and goes on unchanged.

    - `trace_id`: an id of your own; one is made otherwise.
    - `input`: what the request was; kept out in privacy mode, like `output`.
    - `record_arguments`, `record_result`: whether the decorator takes the function's arguments
      as the input, and what it returns (of a generator, the last item) as the output.

    Raises `TypeError` for an argument of the wrong type.
    """

    _kind = "trace"

    def __init__(
        self,
        name: str,
        *,
        input: Any = None,
        record_arguments: bool = False,
        record_result: bool = False,
        **given: Unpack[TraceArguments],
    ) -> None:
        options = _Options(arguments=record_arguments, result=record_result)
        arguments = Arguments(**named("trace", given, TraceArguments))
        super().__init__(name, arguments, input, options)

    def _begin(self, outer: Arguments) -> Arguments:
        self.trace_id = self.id = self._given.trace_id or str(uuid.uuid4())
        mine = Arguments(trace_id=self.trace_id, parent_id=self.id)
        return merged(merged(_without_parent(outer), self._given), mine)


class span(_Step):
    """One step of a trace: a tool, a retrieval, an agent's turn.

        with posthog_llm.span("search", type="tool", input=query) as s:
            s.output = search(query)

    A context manager (`with` and `async with`) and a decorator, also of generators. Calls to
    models and spans inside are its children. Outside of any trace it is a trace of its own.
    Emits `$ai_span` when it ends, with its latency in seconds; an exception is recorded and
    goes on unchanged.

    - `type`: what kind of step: `tool`, `agent`, `retrieval`, or a word of yours.
    - `input`: what the step was given; kept out in privacy mode, like `output`.
    - `properties`: of the span's own event; `trace(properties=...)` holds for all inside.
    - `record_arguments`, `record_result`: see `trace`.

    Raises `TypeError` for an argument of the wrong type.
    """

    _kind = "span"

    def __init__(
        self,
        name: str,
        *,
        type: str | None = None,
        input: Any = None,
        properties: Mapping[str, Any] | None = None,
        record_arguments: bool = False,
        record_result: bool = False,
    ) -> None:
        kind = None if type is None else text("type", type)
        given = Arguments(properties=checked("properties", "properties", properties))
        super().__init__(name, given, input, _Options(kind, record_arguments, record_result))

    def _begin(self, outer: Arguments) -> Arguments:
        self.id = str(uuid.uuid4())
        self.trace_id = outer.trace_id or str(uuid.uuid4())
        return merged(outer, Arguments(trace_id=self.trace_id, parent_id=self.id))


def _without_parent(outer: Arguments) -> Arguments:
    """Return what holds around a trace, for what begins anew inside it."""
    return replace(outer, parent_id=None, span_name=None, span_id=None)


_around = guarded(ambient)


def _snapshot(value: Any) -> Any:
    return copy.copy(value) if type(value) in (list, dict) else value


def _outcome(error: BaseException | None) -> tuple[Outcome, Failure | None]:
    if error is None:
        return Outcome.OK, None
    if isinstance(error, _CLOSED):
        return Outcome.CANCELLED, None
    return Outcome.ERROR, Failure(type=type(error).__name__, message=text_of(error))


def _record(exchange: Exchange) -> Record:
    state: _State = exchange.content
    return Record(
        kind=exchange.endpoint,  # type: ignore[arg-type]
        exchange=exchange,
        asked=Asked(input=state.input),
        answered=Answered(output=state.output),
        provider="",
        base_url=None,
        latency=exchange.ended,
        time_to_first_token=None,
        outcome=exchange.outcome,
        failure=exchange.failure,
        request_id=None,
        retries=0,
        content_cut=exchange.cut,
        details=state.details,
    )
