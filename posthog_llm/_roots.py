"""The root of a trace: what is decided once for everything in it.

Whether sampling keeps it, and where steps without a destination of their own go.
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
"""Most steps of a trace that wait for a destination; beyond that, they go to the default."""
_MOST_BYTES = 8 << 20
"""Most bytes of the waiting steps of one trace."""
_MOST_OF_ALL = 32 << 20
"""Most bytes of the waiting steps of all traces."""
_MOST_DRAWS = 10_000
"""Latest traces whose draw is remembered."""
_STEPS = 1_000_000_000
"""Possible draws: as many as nine decimals, which a header carries exactly."""


def number_of(identity: str) -> float:
    """Draw a number in [0, 1) for a session or a trace: the same in every process.

    It is kept if the number is below the rate, so a higher rate keeps all that a lower rate keeps.
    """
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=7).digest()
    return ((int.from_bytes(digest, "big") * _STEPS) >> 56) / _STEPS


class Draw:
    """What sampling decided for one trace: the drawn number, and the rate at that time."""

    __slots__ = ("_identity", "_number", "rate")

    def __init__(self, identity: str, number: float | None) -> None:
        self._identity, self._number = identity, number
        self.rate: float | None = None
        """The rate for the whole trace; `None` before its first step or call."""

    @property
    def number(self) -> float:
        """Number in [0, 1) that decides whether sampling keeps the trace."""
        if self._number is None:
            self._number = number_of(self._identity)
        return self._number


_draws: OrderedDict[str, Draw] = OrderedDict()


def remember(root: Root) -> None:
    """Remember a trace's draw: feedback refers to the trace after it has ended."""
    _draws[root.trace_id] = root.draw
    if len(_draws) > _MOST_DRAWS:
        _draws.popitem(last=False)


def forget() -> None:
    """Forget all draws, and the clients' redactors; waiting steps are lost."""
    _draws.clear()
    waiting.forget()
    waiting.for_redactor = waiting.for_privacy = False


def remembered(trace_id: str | None) -> Draw | None:
    """Return the draw of a trace that began here; `None` if it is unknown."""
    return None if trace_id is None else _draws.get(trace_id)


class _Steps(deque[Any]):
    """Waiting steps of one trace, and their approximate size in bytes."""

    bytes = 0


class Waiting:
    """Steps of traces whose destination is not known yet.

    Without locks, because a finalizer may end a step; and without a finalizer of its own, which
    would run at the end of each trace and swallow an interrupt that comes then.
    """

    calls: Any
    """The call queue that events go to; `observe.call_queue` sets it."""

    def __init__(self) -> None:
        self.forget()

    for_redactor = False
    """Whether a client of this process has a redactor: then steps wait for the first call of
    their trace even if their destination is known."""

    for_privacy = False
    """Whether a client of this process withholds content: then so do the steps of frameworks,
    which nobody wrote, and some of which end before the client is called."""

    def forget(self) -> None:
        """Forget everything: after a fork, the parent captures the steps that wait in it."""
        self._steps: dict[weakref.ref[Root], _Steps] = {}
        self._bytes = 0
        """Their total size; threads may get it slightly wrong until none waits."""
        self._gone: deque[weakref.ref[Root]] = deque()

    def add(self, root: Root, exchange: Any) -> _Steps:
        """Let a step wait; return all waiting steps of its trace."""
        while self._gone:  # traces whose block ended in another context, or never
            self._default(self._taken(self._gone.popleft()))
        if root.ref is None or root.ref not in self._steps:
            root.ref = weakref.ref(root, self._gone.append)
        steps = self._steps.setdefault(root.ref, _Steps())
        self.calls.unended.add(self)
        weight = exchange.weight()
        steps.append(exchange)
        steps.bytes += weight
        self._bytes += weight
        return steps

    def has_too_much(self, steps: _Steps) -> bool:
        """Whether these steps must stop waiting, because too much is waiting."""
        return len(steps) > _MOST or steps.bytes > _MOST_BYTES or self._bytes > _MOST_OF_ALL

    def take(self, root: Root) -> deque[Any]:
        """Remove and return the steps that wait for a trace's destination."""
        ref, root.ref = root.ref, None
        return deque() if ref is None else self._taken(ref)

    def _taken(self, ref: weakref.ref[Root]) -> deque[Any]:
        steps = self._steps.pop(ref, _Steps())
        self._bytes = self._bytes - steps.bytes if self._steps else 0
        return steps

    def held(self) -> list[Any]:
        """Return all waiting steps."""
        # Making a list is atomic: it runs no Python code.
        return [exchange for steps in list(self._steps.values()) for exchange in list(steps)]

    def abandon(self, default: Any = None, *, has_default: bool = True) -> None:
        """Enqueue waiting steps: for a flush, or because the process is ending.

        `default` is the destination of steps whose trace has none yet; `has_default`: whether
        that, or the environment, provides one. Without any, they keep waiting.
        """
        for ref, steps in list(self._steps.items()):  # entries stay: a thread may be adding to one
            root = ref()
            is_known = root is not None and root.is_known
            client = root.client if root is not None and is_known else default
            redact = None if root is None else root.redact
            for _ in range(len(steps)):
                with contextlib.suppress(IndexError):  # another thread took the last one
                    exchange = steps.popleft()
                    if exchange.scope.default is None and not (is_known or has_default):
                        steps.append(exchange)
                        continue
                    self.enqueue(exchange, client, redact)
            if not steps:
                self._bytes, steps.bytes = self._bytes - steps.bytes, 0

    def _default(self, steps: deque[Any]) -> None:
        for exchange in drained(steps):
            self.enqueue(exchange, None, None)

    def enqueue(self, exchange: Any, client: Any, redact: Any) -> None:
        """Enqueue a step that waits no longer; without its content if a redactor may follow."""
        if redact is None and self.for_redactor:
            exchange.withhold()
        if exchange.scope.default is None:
            exchange.scope.default = client
        exchange.scope.redact = redact
        self.calls.put(exchange)


def drained(steps: deque[Any]) -> Iterator[Any]:
    """Yield each step to one reader only, even if several threads read them."""
    while steps:
        with contextlib.suppress(IndexError):  # another thread took the last one
            yield steps.popleft()


class Root:
    """One trace, from its beginning in this process: shared by all of its tasks and threads.

    `session_id` is the session known at that time; `number` is another service's draw for the
    trace.
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
        """Whether it is known where steps without a destination of their own go."""
        self.client: Any = None
        """Where they go; `None` means the default."""
        self.sdk_client: Any = None
        """The first client that was called inside: its credentials are removed from the steps."""
        self.redact: Any = None
        """The first redactor of a client that was called inside; it also applies to the steps."""
        self.ref: weakref.ref[Root] | None = None
        self.draw = Draw(session_id or trace_id, number)
        self._outer = None if outer is None or outer.has_ended else outer

    def join(self, session_id: str) -> None:
        """Note a session that is known late; it decides unless something inside was drawn for."""
        if self.draw.rate is None:
            self.draw = Draw(session_id, None)

    def ended(self) -> Root:
        """Return the trace as one that has ended, for what still follows in it. It holds no client
        of an SDK."""
        made = Root(self.trace_id)
        made.draw, made.client, made.redact = self.draw, self.client, self.redact
        made.has_ended = made.is_known = True
        return made

    def found(self, client: Any, redact: Any = None) -> None:
        """Note the destination and redactor of an observed call inside; the first one decides."""
        is_known = self.is_known and (redact is None or self.redact is not None)
        if self.redact is None:
            self.redact = redact
        if not self.is_known:
            self.client = client
            self.is_known = True
        self._release()
        if self._outer is not None and not is_known:
            self._outer.found(client, redact)

    def redacts(self, redact: Any) -> None:
        """Note the redactor of a call inside that does not become an event."""
        self.redact = redact if self.redact is None else self.redact
        self._release()
        if self._outer is not None:
            self._outer.redacts(redact)

    def _release(self) -> None:
        """Enqueue waiting steps if there is nothing left to wait for."""
        if self._is_ready():
            for exchange in drained(waiting.take(self)):
                self.put(exchange)

    def _is_ready(self, *, is_named: bool = False) -> bool:
        """Whether a step's destination, and its redactor if any, are known."""
        if not (self.is_known or is_named):
            return False
        return self.redact is not None or self.has_ended or not waiting.for_redactor

    def put(self, exchange: Any) -> None:
        """Enqueue a finished step, or let it wait until its destination is known.

        Its `scope.default` is its own destination.
        """
        scope = exchange.scope
        is_named = scope.default is not None
        if self._is_ready(is_named=is_named):
            scope.default = scope.default if is_named else self.client
            scope.redact = self.redact
            waiting.calls.put(exchange)
            return
        steps = waiting.add(self, exchange)
        if waiting.has_too_much(steps):
            self.is_known = True  # no destination so far, so it is the default
            waiting.take(self)
            for late in drained(steps):
                waiting.enqueue(late, self.client, self.redact)
        elif self._is_ready():  # another thread observed a call meanwhile
            self._release()

    def end(self) -> None:
        """End the trace: no further call inside will provide a destination for its steps."""
        outer, self._outer, self.has_ended = self._outer, None, True
        if outer is not None and not self.is_known:
            for exchange in drained(waiting.take(self)):
                outer.put(exchange)
        self.found(None)


waiting = Waiting()


def note_redactor(redact: Any) -> None:
    """Note a client's redactor; `None` if it has none."""
    if redact is not None:
        waiting.for_redactor = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=waiting.forget)
