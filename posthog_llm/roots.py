"""The beginning of a trace: what is decided once for all that belongs to it.

Whether sampling keeps it, and where its steps go that nobody named a destination for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

_MOST = 1_000
"""Steps of a trace that wait for a destination; more of them, and the default is theirs."""
_MOST_BYTES = 8 << 20
_MOST_DRAWS = 10_000
"""Traces whose draw is remembered, the last ones."""
_STEPS = 1_000_000_000
"""Numbers that may be drawn: as many as nine decimals, which a header carries exactly."""


def number_of(identity: str) -> float:
    """Draw a number in [0, 1) for a session or a trace: the same in every process.

    It is kept where the number is below the rate, so what a low rate keeps a higher one does.
    """
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=7).digest()
    return ((int.from_bytes(digest, "big") * _STEPS) >> 56) / _STEPS


class Draw:
    """What sampling decided for one trace: the number that was drawn, and the rate of then."""

    __slots__ = ("_identity", "_number", "rate")

    def __init__(self, identity: str, number: float | None) -> None:
        self._identity, self._number = identity, number
        self.rate: float | None = None
        """The rate that holds for the trace to its end; `None` before its first step or call."""

    @property
    def number(self) -> float:
        """Number in [0, 1) by which sampling keeps the trace, or not."""
        if self._number is None:
            self._number = number_of(self._identity)
        return self._number


_draws: OrderedDict[str, Draw] = OrderedDict()


def remember(root: Root) -> None:
    """Remember what was drawn for a trace: feedback names it when it is over."""
    _draws[root.trace_id] = root.draw
    if len(_draws) > _MOST_DRAWS:
        _draws.popitem(last=False)


def remembered(trace_id: str | None) -> Draw | None:
    """Return what was drawn for a trace that began here; `None`: nobody knows."""
    return None if trace_id is None else _draws.get(trace_id)


class Waiting:
    """Steps of traces whose destination is not known yet.

    Without locks, because a finaliser may end a step; and without a finaliser of its own, which
    would run at the end of each trace and swallow an interrupt that comes then.
    """

    calls: Any
    """The call queue that events go to; `observe.outbox` sets it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget everything: what waits in the parent of a fork, the parent captures."""
        self._steps: dict[weakref.ref[Root], deque[Any]] = {}
        self._gone: deque[weakref.ref[Root]] = deque()

    def add(self, root: Root, exchange: Any) -> deque[Any]:
        """Let a step wait; returns all that wait with it."""
        while self._gone:  # traces whose block ended in another context, or never
            self._default(self._steps.pop(self._gone.popleft(), deque()))
        if root.ref is None or root.ref not in self._steps:
            root.ref = weakref.ref(root, self._gone.append)
        steps = self._steps.setdefault(root.ref, deque())
        self.calls.unended.add(self)
        steps.append(exchange)
        return steps

    def take(self, root: Root) -> deque[Any]:
        """Return what waits for a trace's destination, and hold it no longer."""
        ref, root.ref = root.ref, None
        return deque() if ref is None else self._steps.pop(ref, deque())

    def let_go(self) -> None:
        """Give all that waits to the default destination, because the process ends."""
        for ref in list(self._steps):
            self._default(self._steps.pop(ref, deque()))

    def _default(self, steps: deque[Any]) -> None:
        for exchange in drained(steps):
            self.calls.put(exchange)


def drained(steps: deque[Any]) -> Iterator[Any]:
    """Yield each of the steps to one reader only, also where several threads read them."""
    while steps:
        with contextlib.suppress(IndexError):  # another thread took the last one
            yield steps.popleft()


class Root:
    """One trace from where it begins in this process: shared by every task and thread in it.

    `session_id` is the session that was known then; `number` is what another service drew for
    the trace.
    """

    def __init__(
        self,
        trace_id: str,
        session_id: str | None = None,
        outer: Root | None = None,
        number: float | None = None,
    ) -> None:
        self.trace_id = trace_id
        self.has_ended = False
        self.is_known = False
        """Whether it is known where steps go that nobody named a destination for."""
        self.client: Any = None
        """Where they go; `None`: the default."""
        self.ref: weakref.ref[Root] | None = None
        self.draw = Draw(session_id or trace_id, number)
        self._outer = None if outer is None or outer.has_ended else outer
        self._bytes = 0

    def found(self, client: Any) -> None:
        """Note where an observed call inside goes; the first one decides."""
        if not self.is_known:
            self.client = client
            self.is_known = True
            for exchange in drained(waiting.take(self)):
                self.put(exchange)
            if self._outer is not None:
                self._outer.found(client)

    def put(self, exchange: Any) -> None:
        """Hand over a finished step, or let it wait until its destination is known."""
        if self.is_known:
            exchange.scope.default = self.client
            waiting.calls.put(exchange)
            return
        steps = waiting.add(self, exchange)
        self._bytes += exchange.weight()
        if len(steps) > _MOST or self._bytes > _MOST_BYTES:
            self.client, self.is_known = None, True
        if self.is_known:  # since just now, or since another thread saw a call
            waiting.take(self)
            for late in drained(steps):
                self.put(late)

    def end(self) -> None:
        """End the trace: no call inside will say any more where its steps go."""
        outer, self._outer, self.has_ended = self._outer, None, True
        if outer is not None and not self.is_known:
            for exchange in drained(waiting.take(self)):
                outer.put(exchange)
        self.found(None)


waiting = Waiting()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=waiting.forget)
