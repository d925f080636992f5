"""Which calls become events, if not all of them do.

One decision per trace, by the number drawn where it began: see `roots.Root`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from ._exchange import Arguments, Exchange, Outcome
from ._record import Record
from ._roots import Draw, Root, number_of, remember, remembered
from ._settings import settings


@dataclass(frozen=True, slots=True)
class Sample:
    """The sampling decision for one call when it starts."""

    rate: float
    only_errors: bool = False
    deferred: bool = False
    number: float | None = None

    def note(self, exchange: Exchange) -> None:
        exchange.sample_rate = self.rate if self.rate < 1 else None
        exchange.only_errors, exchange.deferred = self.only_errors, self.deferred
        exchange.sample_number = self.number


_ALL = Sample(1.0)
_random = random.SystemRandom()
"""Not the application's generator, which it may have seeded."""


def is_partial() -> bool:
    """Whether any calls are left out."""
    return settings().sample_rate < 1


def draw(root: Root | None, *by_precedence: Arguments, later: bool = False) -> Sample | None:
    """Decide about a call or step, by the trace that `root` began; `None` leaves it out.

    Outside of any trace the session decides, else the trace that it names, else chance. A call is
    also left out if the first `capture` argument given is false.

    `later`: only the worker can know its session or trace. A background response is captured by a
    later call, so its own id decides if nothing else is known.
    """
    if not _is_wanted(by_precedence):
        return None
    drawn = _draw_of(root, by_precedence[0])
    rate = settings().sample_rate if drawn is None or drawn.rate is None else drawn.rate
    if drawn is not None:
        drawn.rate = rate
    if rate >= 1:
        return _ALL
    number = None if drawn is None else drawn.number
    if later:
        return Sample(rate, deferred=True, number=number)
    kept = is_kept(rate, identity_of(*by_precedence)) if number is None else number < rate
    if kept:
        return Sample(rate)
    return Sample(rate, only_errors=True) if settings().keep_errors else None


def draw_about(root: Root | None, *by_precedence: Arguments) -> Sample | None:
    """Decide about feedback on a trace or a score for it, as about the trace.

    If the trace began elsewhere, or long ago, its session decides, if named. In all other cases it
    is kept, since the trace's decision is unknown.
    """
    is_known = _draw_of(root, by_precedence[0]) or any(said.session_id for said in by_precedence)
    if is_known or not _is_wanted(by_precedence):
        return draw(root, *by_precedence)
    return _ALL


def _is_wanted(by_precedence: Iterable[Arguments]) -> bool:
    """Whether the first `capture` argument given is not false."""
    said = (arguments.capture for arguments in by_precedence if arguments.capture is not None)
    return next(said, True)


def _draw_of(root: Root | None, call: Arguments) -> Draw | None:
    """Return what was drawn for a call's trace; `None` if it is in none, or in another's."""
    if root is None or (call.trace_id is not None and call.trace_id != root.trace_id):
        return remembered(call.trace_id)
    if settings().sample_rate < 1 and root.draw.rate is None:
        remember(root)
    return root.draw


def identity_of(*by_precedence: Arguments) -> str | None:
    """Return the session id of a call, else its trace id, else `None`."""
    for name in ("session_id", "trace_id"):
        for arguments in by_precedence:
            if (found := getattr(arguments, name)) is not None:
                return str(found)
    return None


def is_kept(rate: float, identity: str | None) -> bool:
    """Decide by `identity`, the same way in every process. Without one, chance decides."""
    return (_random.random() if identity is None else number_of(identity)) < rate


def is_sampled(record: Record) -> bool:
    """Whether sampling lets an event through; notes the rate that applies to it."""
    exchange = record.exchange
    if exchange.sample_rate is None:
        return True
    if settings().keep_errors and record.outcome is Outcome.ERROR:
        exchange.sample_rate = 1.0
        return True
    if not exchange.deferred:
        return not exchange.only_errors
    if exchange.sample_number is not None:
        return exchange.sample_number < exchange.sample_rate
    return is_kept(exchange.sample_rate, _late_identity(record))


def _late_identity(record: Record) -> str | None:
    """Return the id that decides about a call, now that its request and response are read."""
    scope, router = record.exchange.scope, record.request.router_arguments or Arguments()
    known = identity_of(scope.call, scope.context, scope.client, router)
    if known is None and record.exchange.batch is not None:
        return str(record.exchange.batch.id)
    return known or record.response.response_id
