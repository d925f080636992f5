"""Which calls become events, where not all of them do."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from .exchange import Arguments, Exchange, Outcome
from .record import Record
from .settings import settings


@dataclass(frozen=True, slots=True)
class Sample:
    """What sampling says of one call when it starts."""

    rate: float
    only_errors: bool = False
    deferred: bool = False

    def note(self, exchange: Exchange) -> None:
        exchange.sample_rate = self.rate if self.rate < 1 else None
        exchange.only_errors, exchange.deferred = self.only_errors, self.deferred


_ALL = Sample(1.0)


def draw(background: bool, *by_precedence: Arguments) -> Sample | None:
    """Decide about a call, by its session, else by its trace; `None`: it is left out.

    So is a call for which the first that says anything of `capture` says no.
    A background response is told by a later call, so it is decided by its own id when that is
    known.
    """
    for arguments in by_precedence:
        if arguments.capture is not None:
            if not arguments.capture:
                return None
            break
    rate = settings().sample_rate
    if rate >= 1:
        return _ALL
    if background:
        return Sample(rate, deferred=True)
    if is_kept(rate, identity_of(*by_precedence)):
        return Sample(rate)
    return Sample(rate, only_errors=True) if settings().keep_errors else None


def identity_of(*by_precedence: Arguments) -> str | None:
    """Return the session id of a call, else its trace id, else `None`."""
    for name in ("session_id", "trace_id"):
        for arguments in by_precedence:
            if (found := getattr(arguments, name)) is not None:
                return str(found)
    return None


def is_kept(rate: float, identity: str | None) -> bool:
    """Decide by `identity`: the same answer in every process. Without one, chance decides."""
    if identity is None:
        return random.random() < rate
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=7).digest()
    return int.from_bytes(digest, "big") < rate * (1 << 56)


def is_sampled(record: Record) -> bool:
    """Whether sampling lets an event through; notes the rate that holds for it."""
    exchange = record.exchange
    if exchange.sample_rate is None:
        return True
    if settings().keep_errors and record.outcome is Outcome.ERROR:
        exchange.sample_rate = 1.0
        return True
    if exchange.deferred:
        scope = exchange.scope
        identity = identity_of(scope.call, scope.context, scope.client)
        identity = identity or record.answered.response_id
        return is_kept(exchange.sample_rate, identity)
    return not exchange.only_errors
