"""Traces and spans: the caller's own steps around the model calls that they make."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from os import getpid
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._chain import INHERITED, Link, ends, here, leave
from ._checks import checked, named, text
from ._context import NOTHING, ambient, anew, around, chain, decorated, merged
from ._exchange import Ambient, Arguments, outcome_of
from ._faults import guarded
from ._record import Kind
from ._roots import Root
from ._snapshot import snapshot, snapshot_of
from ._steps import FinishedStep, StepContent, capture_step
from ._weighing import size_of
from .types import TraceArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F")


class _Step:
    """The common part of `trace` and `span`: a sync and async context manager, and a decorator."""

    _chain = chain
    _kind: Kind

    def __init__(self, name: str, given: Arguments, input: Any, options: _Options) -> None:
        self.name = text("name", name)
        self.id = ""
        """The parent id of everything inside; empty before the step begins."""
        self.trace_id = ""
        self.input = input
        """The input of the step; stored as it is when the step begins."""
        self.output: Any = None
        """The output of the step; set it before the step ends."""
        self.properties: dict[str, Any] = dict(given.properties or {})
        """Custom properties of the step's own event; add to them before the step ends."""
        self._given, self._options = given, options
        self._outer: Arguments | None = None
        self._root: Any = None
        self._begins_trace, self._key = False, object()
        self._ambient = Ambient()
        self._begun_with: tuple[Any, Any] = None, None
        """The input when the step began, and a snapshot of it."""
        self._started_at = self._clock = 0.0
        self._process = 0

    def _begin(self, outer: Link, around: Link) -> Link:
        """Set the ids and the trace; return the link that applies inside.

        `around` is what the step is in: `outer`, or a framework's step inside of it.
        """
        raise NotImplementedError

    def __enter__(self) -> Any:
        if self._outer is not None:
            raise RuntimeError(f"{self._kind} {self.name!r} was entered before: make another one")
        outer = here(chain)
        try:
            step = around()
            self._outer, self._ambient = step.values, _ambient() or Ambient()
            inner = self._begin(outer, step)
            self._root = inner.root
            self._begins_trace = inner.began is not None
            self._begun_with = self.input, snapshot(self.input)
            self._started_at, self._clock, self._process = time(), perf_counter(), getpid()
            chain.set(inner)
        except BaseException:  # a signal handler raised between two of these instructions
            chain.set(outer)
            raise
        return self

    @ends
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            leave(chain, self._key)
        except BaseException:  # as above
            leave(chain, self._key)
            raise
        if self._process == getpid():  # a forked child has a copy of the step
            self._capture(self._outer or NOTHING, error)
        if self._begins_trace:
            self._root.end()

    async def __aenter__(self) -> Any:
        try:
            return self.__enter__()
        except BaseException:  # as above
            leave(chain, self._key)
            raise

    @ends
    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            self.__exit__(*exc_info)
        except BaseException:  # as above
            leave(chain, self._key)
            raise

    def __call__(self, function: F) -> F:
        """Decorate a function, sync or async, or a generator: each call is a step of its own."""
        return decorated(self._for_call, function)

    def _for_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Step:
        step = copy.copy(self)
        step.properties = dict(self.properties)
        step._outer, step._key = None, object()
        if self._options.arguments:
            step.input = {"args": list(args), "kwargs": kwargs}
        return step

    def note_result(self, value: Any) -> None:
        """Note what a decorated function returned or yielded, if that was requested."""
        if self._options.result:
            self.output = value

    @guarded
    def _capture(self, outer: Arguments, error: BaseException | None) -> None:
        own = Arguments(
            distinct_id=self._given.distinct_id,
            trace_id=self.trace_id,
            session_id=self._given.session_id,
            span_id=self.id,
            parent_id=outer.parent_id if self._kind == "span" else None,
            span_name=self.name,
            properties=snapshot_of(self.properties) or None,
            groups=self._given.groups,
            privacy_mode=self._given.privacy_mode,
            client=self._given.client,
        )
        given, begun = self._begun_with
        begun = begun if self.input is given else snapshot(self.input)
        output = snapshot(self.output)
        details, size = {"type": self._options.type}, size_of((begun, output))
        outcome, failure = outcome_of(error)
        capture_step(
            FinishedStep(
                kind=self._kind,
                own=own,
                around=outer if self._kind == "span" else anew(outer, NOTHING),
                root=self._root,
                ambient=self._ambient,
                started_at=self._started_at,
                latency=perf_counter() - self._clock,
                outcome=outcome,
                failure=failure,
                content=StepContent(begun, output, details, size),
            )
        )


@dataclass(frozen=True, slots=True)
class _Options:
    type: str | None = None
    arguments: bool = False
    result: bool = False


class trace(_Step):
    """One request of your application: the container for its spans and calls.

        with posthog_llm.trace("answer a ticket", distinct_id="user-7", session_id="chat-1") as t:
            ...
            t.output = reply

    A context manager (`with` and `async with`) and a decorator, also for generators. The user, the
    session, the groups, the properties, privacy and the destination apply to everything inside.
    `id` and `trace_id` are known inside; `output` and `properties` may be set until the end. Emits
    `$ai_trace` when it ends, with its latency in seconds; an exception is recorded and propagates
    unchanged.

    - `trace_id`: your own id; generated by default.
    - `input`: the request; withheld in privacy mode, like `output`.
    - `record_arguments`, `record_result`: whether the decorator records the function's arguments as
      the input, and its return value (of a generator, the last item) as the output.

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

    def _begin(self, outer: Link, around: Link) -> Link:
        self.trace_id = self.id = self._given.trace_id or str(uuid.uuid4())
        mine = merged(self._given, Arguments(trace_id=self.trace_id, parent_id=self.id))
        session_id = self._given.session_id or around.values.session_id
        root = Root(self.trace_id, session_id, around.root)
        return Link(self._key, anew, mine, outer, root, around)


class span(_Step):
    """One step of a trace: a tool, a retrieval, an agent's turn.

        with posthog_llm.span("search", type="tool", input=query) as s:
            s.output = search(query)

    A context manager (`with` and `async with`) and a decorator, also for generators. Model calls
    and spans inside are its children. Outside of any trace it is a trace of its own. Emits
    `$ai_span` when it ends, with its latency in seconds; an exception is recorded and propagates
    unchanged.

    - `type`: the kind of step: `tool`, `agent`, `retrieval`, or your own word.
    - `input`: the input of the step; withheld in privacy mode, like `output`.
    - `properties`: of the span's own event; those of `trace` apply to everything inside.
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

    def _begin(self, outer: Link, around: Link) -> Link:
        self.id, values = str(uuid.uuid4()), around.values
        self.trace_id = values.trace_id or str(uuid.uuid4())
        mine = Arguments(trace_id=self.trace_id, parent_id=self.id)
        is_in_one = around.root is not None
        root = INHERITED if is_in_one else Root(self.trace_id, values.session_id)
        return Link(self._key, merged, mine, outer, root, around)


_ambient = guarded(ambient)
