"""Finished steps of a trace, whoever defined them: the application, or a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import _sampling as sampling
from ._exchange import Ambient, Arguments, Exchange, Failure, Outcome, Scope
from ._narrowing import first_given
from ._observe.call_queue import call_queue, counted
from ._observe.event_ids import new_id
from ._record import Kind, Record, RequestFacts, ResponseFacts
from ._roots import Root
from ._settings import default_for_steps
from ._snapshot import content_of


@dataclass(slots=True)
class StepContent:
    """What went into a step and came out, until the worker reads it."""

    input: Any = None
    output: Any = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """See `Record.details`."""
    size: int = 0
    """Approximate bytes of input and output."""
    cut: int = 0
    """Bytes of the input that are missing, because too much was held before the step ended."""

    def drop_content(self) -> None:
        self.input = self.output = None


@dataclass(slots=True)
class FinishedStep:
    """One step that has ended, as its event needs it."""

    kind: Kind
    own: Arguments
    """Its identity, ids, name and properties."""
    around: Arguments
    """The values around it."""
    root: Root
    """The trace that it is in."""
    ambient: Ambient
    started_at: float
    """Unix time in seconds."""
    latency: float
    """Seconds."""
    outcome: Outcome
    failure: Failure | None
    content: StepContent
    framework: str | None = None
    default: Any = None
    """Where it goes if no block names a destination; `None`: as set when it ends."""


@counted
def capture_step(step: FinishedStep) -> None:
    """Capture a step, unless sampling leaves it out."""
    sample = sampling.draw(step.root, step.own, step.around)
    if sample is None:
        return
    exchange = Exchange(step.kind, new_id(), Scope(step.own, step.around, step.ambient), 0.0)
    exchange.started_at, exchange.ended = step.started_at, step.latency
    exchange.outcome, exchange.failure = step.outcome, step.failure
    exchange.framework = step.framework
    exchange.client = step.root.sdk_client
    exchange.content = step.content
    exchange.received, exchange.cut = step.content.size + step.content.cut, step.content.cut
    exchange.reader = _record
    sample.note(exchange)
    call_queue.start()
    _put(exchange, step.root, first_given(step.own.client, step.around.client, step.default))


def _put(exchange: Exchange, root: Root, named: Any) -> None:
    """Submit the step, at once if its destination is known: see `roots.Root`."""
    found = default_for_steps() if named is None else named
    if found is not None:
        call_queue.attach(found)
        exchange.scope.default = found
    root.put(exchange)


def _record(exchange: Exchange) -> Record:
    content: StepContent = exchange.content
    return Record(
        kind=exchange.endpoint,  # type: ignore[arg-type]
        exchange=exchange,
        request=RequestFacts(input=content_of(content.input)),
        response=ResponseFacts(output=content_of(content.output)),
        provider="",
        base_url=None,
        latency=exchange.ended,
        time_to_first_token=None,
        outcome=exchange.outcome,
        failure=exchange.failure,
        request_id=None,
        retries=0,
        content_cut=exchange.cut,
        details=content.details,
    )
