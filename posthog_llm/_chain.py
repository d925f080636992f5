"""The values in effect: the blocks around the caller, an immutable chain in a context variable.

A block that ends removes only its own link, and only from the chain that contains it: a
generator's block may end in another context than it began in (the garbage collector's, a
thread's, the next request's), where other values are in effect. Tasks share the links that
existed when they were created; links are never modified.

An interrupt at the very start of an `__exit__`, before any of its lines can guard, leaves a link
behind: see `Ended`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

INHERITED: Any = object()
"""Marks a block that begins no trace: it belongs to the one around it."""
_DEEPEST = 10_000
"""Most links of a chain. Blocks are never nested that deeply, but a task that starts its own
successor inside its block adds one each time."""
F = TypeVar("F")


class Link:
    """One block, on top of the values around it.

    `combine(around, given)` returns the values inside. `root` is the trace that the block is in;
    `begun` is a trace that replaces the one around the block. `step` is a framework's step inside
    `outer` which the block is in.
    """

    __slots__ = (
        *("begun", "combine", "depth", "framework", "given", "is_captured_elsewhere", "key"),
        *("model_step", "outer", "root", "step", "values"),
    )

    def __init__(
        self,
        key: object,
        combine: Callable[[Any, Any], Any],
        given: Any,
        outer: Link | None,
        begun: Any = INHERITED,
        step: Link | None = None,
    ) -> None:
        self.key, self.combine, self.given, self.begun = key, combine, given, begun
        self.step = None if step is outer else step
        self.framework: str | None = None
        """The framework whose step this is, or is in."""
        self.model_step: Any = None
        """A framework's own step of a model call that this is in; see `_steps.ModelStep`."""
        self.is_captured_elsewhere = False
        """Whether another library captures the calls in here."""
        if outer is None:
            self.values, self.root, self.depth = given, None, 0
        else:
            around = step or outer
            self.values = combine(around.values, given)
            self.root = around.root if begun is INHERITED else begun
            self.framework, self.model_step = around.framework, around.model_step
            self.is_captured_elsewhere = around.is_captured_elsewhere
            self.depth = outer.depth + 1
            if self.depth > _DEEPEST:
                outer, self.depth = outer.flat(), 1
        self.outer = outer

    def over(self, outer: Link) -> Link:
        """Return the same block on top of another link."""
        return Link(self.key, self.combine, self.given, outer, self.begun, self.step)

    def is_inside(self, other: Link) -> bool:
        """Whether this is the same as `other`, or inside of it."""
        link: Link | None = self
        while link is not None and link.key is not other.key:  # a generator's is made anew
            link = link.step or link.outer
        return link is not None

    @property
    def began(self) -> Any:
        """The trace that begins and ends with this block; `None` if there is none."""
        return None if self.begun is INHERITED or self.combine is only else self.begun

    def flat(self) -> Link:
        """Return a single link with the values in effect here."""
        bottom = Link(None, only, self.values, None)
        bottom.root = self.root
        return bottom


Chain = ContextVar[Link]


class Ended(weakref.ref[Any]):
    """Records that a `with` statement has ended, in the context where it ended.

    Only the statement holds the `__exit__` that it looked up, from its start to its end, so that
    object dies with the statement in the same context; the callback is C code, which no interrupt
    can stop. Tasks that began inside never see it. The manager's own death would tell less:
    variables and tracebacks hold managers, and nothing holds one whose `__enter__` was called
    directly.
    """

    key: object = object()
    """The block's key; matches no block before it is set."""
    outer: Link
    """The chain when the statement began."""


_ended: ContextVar[Ended | None] = ContextVar("posthog_llm_ended", default=None)


class _Exit:
    """The `__exit__` of a block with `_chain` and `_key`: a new object for each `with`."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __get__(self, block: Any, owner: Any = None) -> Any:
        if block is None:
            return self._function
        leaving: Any = partial(self._function, block)
        ended = Ended(leaving, _ended.set)
        ended.key, ended.outer = block._key, block._chain.get()
        leaving.ended = ended
        return leaving


def ends(function: F) -> F:
    """Decorate `__exit__` or `__aexit__`: the block never outlasts its `with` statement."""
    made: Any = _Exit(function)
    return made  # type: ignore[no-any-return]


def here(chain: Chain, leaving: object = None) -> Link:
    """Return the chain in effect; it still contains a block that is `leaving` by itself."""
    return chain.get() if _ended.get() is None else _mended(chain, leaving)


def _mended(chain: Chain, leaving: object) -> Link:
    """Remove the block whose `with` has ended, if an interrupt left it behind."""
    ended, link = _ended.get(), chain.get()
    if ended is None or ended.key is leaving:
        return link
    found = find(link, ended.key)
    while found is not None and found.outer is not ended.outer:
        found = None if found.outer is None else find(found.outer, ended.key)
    if found is not None:
        inside = [] if found.combine is only else _above(link, found)  # else: its body's own
        link = _stacked(ended.outer, inside)
        chain.set(link)
    _ended.set(None)
    return link


def only(around: Any, given: Any) -> Any:
    """Combine: the given values, ignoring those around."""
    return given


def find(chain: Link, key: object) -> Link | None:
    """Return the innermost link of a block; `None` if it is not in this chain."""
    link: Link | None = chain
    while link is not None and link.key is not key:
        link = link.outer
    return link


def without(chain: Link, key: object) -> Link:
    """Return the chain without the innermost link of a block; unchanged if it has none."""
    if chain.key is key and chain.outer is not None:
        return chain.outer
    found = find(chain, key)
    if found is None or found.outer is None:
        return chain
    return _stacked(found.outer, _above(chain, found))


def _above(chain: Link, base: Link) -> list[Link]:
    """Return the links above `base`, lowest first."""
    links: list[Link] = []
    link: Link | None = chain
    while link is not None and link is not base:
        links.append(link)
        link = link.outer
    links.reverse()
    return links


def _stacked(chain: Link, links: list[Link]) -> Link:
    for link in links:
        chain = link.over(chain)
    return chain


def leave(chain: Chain, key: object) -> None:
    """Remove a block from the chain in effect. Idempotent if its key is unique."""
    chain.set(without(here(chain, key), key))


class Held:
    """A block with given values that ignores those around it; for one use at a time."""

    def __init__(self, chain: Chain, link: Link) -> None:
        self._chain, self._values, self._root = chain, link.values, link.root
        self._key = object()

    def __enter__(self) -> None:
        outer = here(self._chain)
        try:
            self._chain.set(Link(self._key, only, self._values, outer, self._root))
        except BaseException:  # a signal handler raised between two of these instructions
            self._chain.set(outer)
            raise

    @ends
    def __exit__(self, *exc_info: object) -> None:
        try:
            leave(self._chain, self._key)
        except BaseException:  # as above
            leave(self._chain, self._key)
            raise


class Resumed:
    """The values inside a generator, set each time that it runs and removed again.

    Made by entering the generator's block. Blocks that the generator's body leaves open between
    two items are its own: they apply neither to its consumer nor to the context that resumes it.
    """

    def __init__(self, manager: Any, chain: Chain) -> None:
        self._manager, self._chain = manager, chain
        outer = here(chain)
        try:
            self.block = manager.__enter__()
            base = chain.get()
        finally:
            chain.set(outer)
        self._base = Link(base.key, only, base.values, outer, base.root)
        self._key, self._begun = base.key, base.began
        self._links: list[Link] = []

    def __enter__(self) -> None:
        outer = here(self._chain)
        try:
            if self._base.outer is not outer:
                self._base = self._base.over(outer)
            self._chain.set(_stacked(self._base, self._links))
        except BaseException:  # a signal handler raised between two of these instructions
            self._chain.set(outer)
            raise

    @ends
    def __exit__(self, *exc_info: object) -> None:
        try:
            self._suspend()
        except BaseException:  # as above
            self._suspend()
            raise

    def _suspend(self) -> None:
        inner = here(self._chain, self._key)
        base = find(inner, self._base.key)
        if base is None or base.outer is None:
            return  # torn down in another context: none of it is in effect here
        self._links = _above(inner, base) if base is not inner else []
        self._chain.set(base.outer)

    def end(self, error: BaseException | None = None) -> None:
        """Leave the block; the consumer's values stay in effect."""
        self._manager.__exit__(type(error) if error else None, error, None)
        if self._begun is not None:
            self._begun.end()
