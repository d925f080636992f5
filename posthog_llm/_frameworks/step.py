"""Steps of frameworks, which callbacks open and close, in whatever context and thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import getpid
from time import perf_counter, time
from typing import Any, TypeAlias

from .._chain import INHERITED, Link
from .._context import NOTHING, StepSource, ambient, anew, around, inner_of, merged, nested
from .._exchange import Arguments, Failure, Outcome, outcome_of
from .._manual import capture
from .._observe.call_queue import call_queue
from .._observe.event_ids import new_id
from .._record import Kind
from .._roots import Root, waiting
from .._settings import default_for_steps
from .._snapshot import held_by, shallow
from .._steps import FinishedStep, StepContent, capture_step
from .._weighing import rough_size_of

_MOST = 10_000
"""Most open steps of a framework; beyond that, the oldest are captured as they are."""
_MOST_BYTES = 32 << 20
"""Most bytes of their content; beyond that, the oldest lose it."""
_ROOM = 0.7
"""Share of these that is left."""


@dataclass(slots=True)
class StepStart:
    """What a framework says of a step when it begins."""

    name: str
    framework: str
    type: str | None = None
    """`agent`, `tool`, `chain`, `retrieval`, `rerank`, `guardrail` or `handoff`."""
    input: Any = None
    distinct_id: str | None = None
    session_id: str | None = None
    """A user, and a conversation, that the framework knows; the application's own go first."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """See `Record.details`."""
    otel: tuple[int, int] | None = None
    """Trace id and span id of the OpenTelemetry span that the step is; `None`: it is none."""


class StepKey:
    """What the link of a step knows of it. Not the step itself: they would keep each other."""

    __slots__ = ("is_private", "name", "parent_id")

    def __init__(self, name: str, parent_id: str | None) -> None:
        self.name, self.parent_id = name, parent_id
        self.is_private = False
        """Whether something inside is private: its content may go in and out of the step, too."""


class OpenStep:
    """What the sources note of any step of theirs while it is open."""

    given_by: frozenset[int] = frozenset()
    """Ids of the handlers whose arguments apply inside."""
    caller: tuple[Any, Any] = None, None
    """What distinguishes its callbacks from those of another step with its id."""
    handled: int | None = None
    """The id of the exception that was being handled when it began, which is none of the step."""


class Step(OpenStep):
    """One step, from its beginning to its only end. Without any trace around it, it begins one."""

    reported_by: tuple[Any, int] = None, 0
    """The framework's own span of it, and how many attributes that had when it was last read."""

    def __init__(
        self,
        start: StepStart,
        parent: Link | None,
        given: Arguments = NOTHING,
        source: StepSource | None = None,
    ) -> None:
        """`parent`: what the framework knows to be around the step; `None` if it knows nothing.

        `given`: what the application gave the framework for us. `source`: see `inside`.
        """
        outer = inside(parent, source)
        self._ambient = ambient(start.otel)
        self.id = new_id()
        is_nested = outer.root is not None
        self._kind: Kind = "span" if is_nested else "trace"
        self._around = outer.values if is_nested else anew(outer.values, NOTHING)
        own, within = _identities(start, given, outer, self.id)
        self._own = own
        begun: Any = INHERITED
        if not is_nested:
            begun = Root(str(own.trace_id), own.session_id or self._around.session_id)
        self.key = StepKey(start.name, own.parent_id)
        self.link = Link(self.key, nested if is_nested else anew, within, outer, begun)
        """What applies inside the step."""
        self.link.framework = start.framework
        self.link.model_step = None  # a model call inside is another than the one around
        _note_privacy(self.link)
        self._start = start
        self._input: Any = None
        self._size = self._cut = 0
        self.note_input(start.input)
        start.input = None
        self.output: Any = None
        self.error: str | None = None
        """What goes out, and what failed, if the framework says nothing at the end."""
        self.details = dict(start.details)
        self.times: tuple[float, float] | None = None
        """When it began, in Unix time, and how long it took, if the framework says so."""
        self._started_at, self._clock, self._process = time(), perf_counter(), getpid()
        self._default = default_for_steps()
        self._open = [True]
        call_queue.unended.add(self)

    def give(self, given: Arguments) -> None:
        """Add what the application gave another handler; before anything is inside."""
        given = replace(given, trace_id=None)
        self._own = merged(self._own, given)
        self.link.values = nested(self.link.values, given)
        _note_privacy(self.link)

    def identify(self, distinct_id: str | None, session_id: str | None) -> None:
        """Note a user and a session that the framework tells late; known ones go first."""
        known = self.link.values
        distinct_id = None if known.distinct_id else distinct_id
        session_id = None if known.session_id else session_id
        if distinct_id or session_id:
            self.give(Arguments(distinct_id=distinct_id, session_id=session_id))
        if session_id and self._kind == "trace" and self.link.root is not None:
            self.link.root.join(session_id)

    @property
    def is_around(self) -> bool:
        """Whether what happens in its context is inside of it."""
        return bool(self._open)

    @property
    def type(self) -> str | None:
        return self._start.type

    def rename(self, name: str, type: str | None) -> None:
        """Note a name and a type that the framework knows only at the end."""
        self._start.type = type
        if name != self._own.span_name:
            self._own = replace(self._own, span_name=name)

    @property
    def has_input(self) -> bool:
        return self._input is not None

    def note_input(self, given: Any) -> None:
        """Note the input; some frameworks know it only at the end."""
        if self._input is None and not self._cut:
            self._input = shallow(given)
            self._size = rough_size_of(held_by(self._input))

    @property
    def size(self) -> int:
        """Approximate bytes of the content that is held."""
        return self._size

    def drop_content(self) -> None:
        """Drop the input, because too much is held; the event says how many bytes are missing."""
        self._input = None
        self._size, self._cut = 0, self._cut + self._size

    def end(
        self,
        output: Any = None,
        error: BaseException | Failure | str | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        """Capture the step. Only the first end counts, and only in the process that began it."""
        if not self._open or self._process != getpid():
            return
        self._open.clear()
        if call_queue.is_reader():
            return  # an application's redactor runs it: its own content would be redacted, too
        output, error = self.output if output is None else output, error or self.error
        found, failure = _ended_by(error)
        root: Any = self.link.root
        is_withheld = self.key.is_private or waiting.for_privacy
        own = replace(self._own, privacy_mode=True) if is_withheld else self._own
        started_at, latency = self.times or (self._started_at, perf_counter() - self._clock)
        said = shallow(output)
        size = self._size + rough_size_of(held_by(said))
        capture_step(
            FinishedStep(
                kind=self._kind,
                own=own,
                around=self._around,
                root=root,
                ambient=self._ambient,
                started_at=started_at,
                latency=latency,
                outcome=outcome or found,
                failure=failure,
                content=StepContent(
                    self._input, said, {"type": self._start.type, **self.details}, size, self._cut
                ),
                framework=self._start.framework,
                default=self._default,
            )
        )
        if self._kind == "trace":
            root.end()

    def abandon(self) -> None:
        """End the step because it was forgotten, or the process is ending."""
        self.end(outcome=Outcome.DROPPED)


def _note_privacy(link: Link) -> None:
    """Note in the steps around a private one that they contain it."""
    around: Link | None = link if link.values.privacy_mode else None
    while around is not None:
        if isinstance(around.key, StepKey):
            around.key.is_private = True
        around = around.step or around.outer


def inside(parent: Link | None, source: StepSource | None = None) -> Link:
    """Return the innermost of what the framework knows to be around, and what we know.

    `source`: the framework's own; it has nothing to add to a known parent.
    """
    return around() if parent is None else inner_of(around(source), parent)


def _identities(
    start: StepStart, given: Arguments, outer: Link, step_id: str
) -> tuple[Arguments, Arguments]:
    """Return a step's own identity, and what applies inside: the application's own goes first."""
    known = outer.values
    user = None if known.distinct_id else start.distinct_id
    session = None if known.session_id else start.session_id
    trace_id = known.trace_id if outer.root else given.trace_id or known.trace_id
    trace_id = trace_id or step_id
    parent_id = known.parent_id if outer.root else None
    own = Arguments(user, trace_id, session, step_id, parent_id, start.name)
    within = Arguments(user, trace_id, session, parent_id=step_id)
    if given is NOTHING:
        return own, within
    given = replace(given, trace_id=None)
    return merged(own, given), merged(within, given)


def _ended_by(error: BaseException | Failure | str | None) -> tuple[Outcome, Failure | None]:
    if isinstance(error, Failure):
        return Outcome.ERROR, error
    if isinstance(error, str):
        return Outcome.ERROR, Failure("Error", error)
    return outcome_of(error)


class ModelStep(OpenStep):
    """A framework's own step of a model call, which the wire tells more truly.

    It is not captured, unless nothing was seen on the wire inside it.
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        framework: str,
        parent: Link | None,
        given: Arguments = NOTHING,
    ) -> None:
        """`start`: the arguments of `capture_generation` that are known now."""
        outer = inside(parent)
        self.link = Link(self, merged, given, outer)
        self.link.framework, self.link.model_step = framework, self
        _note_privacy(self.link)
        self._around: ModelStep | None = outer.model_step
        self._is_seen = False
        self.kind: Kind = "generation"
        self._given = {**start, "input": shallow(start.get("input"))}
        self.size = rough_size_of(held_by(self._given["input"]))
        """Approximate bytes of the content that is held."""
        self._started_at, self._clock, self._process = time(), perf_counter(), getpid()
        self._first_token: float | None = None
        self._default = default_for_steps()
        self._open = [True]

    def give(self, given: Arguments) -> None:
        """See `Step.give`."""
        self.link.values = nested(self.link.values, replace(given, trace_id=None))
        _note_privacy(self.link)

    @property
    def is_seen(self) -> bool:
        """Whether a call inside was seen on the wire; the seam sets it."""
        return self._is_seen

    @is_seen.setter
    def is_seen(self, value: bool) -> None:
        step: ModelStep | None = self
        while step is not None:  # frameworks wrap a step of a model in another
            step._is_seen, step = value, step._around

    def drop_content(self) -> None:
        """Drop the messages, because too much is held."""
        self.size, self._given["input"] = 0, None

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    @property
    def is_around(self) -> bool:
        """Whether the model has yet to answer. Later, a stream may be read anywhere, or never."""
        return self.is_open and self._first_token is None

    def first_token(self) -> None:
        if self._first_token is None:
            self._first_token = perf_counter() - self._clock

    def end(
        self, facts: Mapping[str, Any], error: BaseException | Failure | str | None = None
    ) -> None:
        """End it; `facts`: the arguments of `capture_generation` that are known only now."""
        was_open = bool(self._open)
        self._open.clear()
        if not was_open or self.is_seen or self._process != getpid() or call_queue.is_reader():
            return
        self.is_seen = True
        given = {**self._given, **facts}
        given.setdefault("latency", perf_counter() - self._clock)
        given.setdefault("timestamp", self._started_at)
        if self._first_token is not None:
            given.setdefault("time_to_first_token", self._first_token)
        if error is not None:
            given["error"] = error
        if self.link.values.client is None:
            given["client"] = self._default
        if waiting.for_privacy:
            given["privacy_mode"] = True
        known = {name: value for name, value in given.items() if value is not None}
        capture(self.kind, known, new_id(), self.link)

    def abandon(self) -> None:
        """Forget it: a model call that nothing saw end is not an event."""
        self._open.clear()


class PassedThrough(OpenStep):
    """A step of a framework's that is not captured: what is inside belongs to what is around."""

    def __init__(self, link: Link | None) -> None:
        self.link = link

    def give(self, given: Arguments) -> None:
        pass

    @classmethod
    def captured_elsewhere(cls) -> PassedThrough:
        """Return a step that another library captures, with the calls inside."""
        link = Link(object(), merged, NOTHING, around())
        link.is_captured_elsewhere = True
        return cls(link)

    def end(self, *args: Any, **kwargs: Any) -> None:
        pass

    def abandon(self) -> None:
        pass


AnyStep: TypeAlias = Step | ModelStep | PassedThrough


class OpenSteps:
    """The open steps of one framework by its own ids: a bounded number, with bounded content."""

    def __init__(self) -> None:
        self._steps: OrderedDict[Hashable, AnyStep] = OrderedDict()
        self._holding: OrderedDict[Hashable, Step | ModelStep] = OrderedDict()
        """Those that hold content."""
        self._bytes = 0
        """Their size. Threads change it without a lock, so it is counted again at the limit."""

    def add(self, key: Hashable, step: AnyStep) -> None:
        self._steps[key] = step
        if not isinstance(step, PassedThrough) and step.size:
            self._holding[key] = step
            self._bytes += step.size
            if self._bytes > _MOST_BYTES:
                self._enforce_limit()
        while len(self._steps) > _MOST:
            _, oldest = self._steps.popitem(last=False)
            oldest.abandon()

    def _enforce_limit(self) -> None:
        self._bytes = sum(step.size for step in list(self._holding.values()))
        with suppress(KeyError):  # another thread took the last one
            while self._bytes > _MOST_BYTES * _ROOM:
                _, oldest = self._holding.popitem(last=False)
                self._bytes -= oldest.size
                oldest.drop_content()

    def get(self, key: Hashable) -> AnyStep | None:
        return self._steps.get(key)

    def take(self, key: Hashable) -> AnyStep | None:
        holding = self._holding.pop(key, None)
        if holding is not None:
            self._bytes = self._bytes - holding.size if self._holding else 0
        return self._steps.pop(key, None)

    def forget(self) -> None:
        """Forget all of them, uncaptured."""
        self._steps.clear()
        self._holding.clear()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._steps)
