"""What holds here: the blocks around the caller, an immutable chain in a context variable.

A block that ends takes away its own link and nothing else, and only from the chain that holds
it: a generator's block may end in another context than it began in (the garbage collector's, a
thread's, the next request's), where others' values hold. Tasks share the links that were there
when they were made; nothing is ever written into one.

An interrupt at the very start of an `__exit__`, before any line of it can guard, leaves a link
behind: see `Ended`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

INHERITED: Any = object()
"""Says that a block begins no trace: it is in the one around it."""
_DEEPEST = 10_000
"""Links of a chain. Blocks in blocks are never that many, but a task that starts its own
successor inside its block adds one each time."""
F = TypeVar("F")


class Link:
    """One block, over what holds around it.

    `combine(around, given)` makes what holds inside. `root` is the trace that the block is in;
    `begun` is a trace to be in instead of the one around the block.
    """

    __slots__ = ("begun", "combine", "depth", "given", "key", "outer", "root", "values")

    def __init__(
        self,
        key: object,
        combine: Callable[[Any, Any], Any],
        given: Any,
        outer: Link | None,
        begun: Any = INHERITED,
    ) -> None:
        self.key, self.combine, self.given, self.begun = key, combine, given, begun
        if outer is None:
            self.values, self.root, self.depth = given, None, 0
        else:
            self.values = combine(outer.values, given)
            self.root = outer.root if begun is INHERITED else begun
            self.depth = outer.depth + 1
            if self.depth > _DEEPEST:
                outer, self.depth = outer.flat(), 1
        self.outer = outer

    def over(self, outer: Link) -> Link:
        """Return the same block over something else."""
        return Link(self.key, self.combine, self.given, outer, self.begun)

    @property
    def began(self) -> Any:
        """The trace that begins with this block, and ends with it; `None`: none does."""
        return None if self.begun is INHERITED or self.combine is only else self.begun

    def flat(self) -> Link:
        """Return what holds here without the blocks that say so."""
        bottom = Link(None, only, self.values, None)
        bottom.root = self.root
        return bottom


Chain = ContextVar[Link]


class Ended(weakref.ref[Any]):
    """Says, in the context where it did, that a `with` statement has ended.

    The statement alone holds what it looked up as `__exit__`, from its begin to its end, so that
    dies with it in its very context; the callback is C's, which no interrupt can stop. Tasks
    that began inside never see it. A manager's death would say less: variables and tracebacks
    hold those, and nobody one whose `__enter__` was called by hand.
    """

    key: object = object()
    """The block's; of none before it is known."""
    outer: Link
    """What held when the statement began."""


_ended: ContextVar[Ended | None] = ContextVar("posthog_llm_ended", default=None)


class _Exit:
    """The `__exit__` of a block that has `_chain` and `_key`: of its own for each `with`."""

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
    """Decorate a block's `__exit__` or `__aexit__`: it holds no longer than its `with`."""
    made: Any = _Exit(function)
    return made  # type: ignore[no-any-return]


def here(chain: Chain, leaving: object = None) -> Link:
    """Return what holds here; a block that is `leaving` by itself is in it."""
    return chain.get() if _ended.get() is None else _mended(chain, leaving)


def _mended(chain: Chain, leaving: object) -> Link:
    """Take out the block whose `with` has ended, if an interrupt left it behind."""
    ended, link = _ended.get(), chain.get()
    if ended is None or ended.key is leaving:
        return link
    found = find(link, ended.key)
    while found is not None and found.outer is not ended.outer:
        found = None if found.outer is None else find(found.outer, ended.key)
    if found is not None:
        inside = [] if found.combine is only else _above(link, found)  # all its body's own
        link = _stacked(ended.outer, inside)
        chain.set(link)
    _ended.set(None)
    return link


def only(around: Any, given: Any) -> Any:
    """Combine: what is given, whatever holds around it."""
    return given


def find(chain: Link, key: object) -> Link | None:
    """Return the innermost link of a block; `None`: it is not in this chain."""
    link: Link | None = chain
    while link is not None and link.key is not key:
        link = link.outer
    return link


def without(chain: Link, key: object) -> Link:
    """Return the chain without the innermost link of a block; the same where it has none."""
    if chain.key is key and chain.outer is not None:
        return chain.outer
    found = find(chain, key)
    if found is None or found.outer is None:
        return chain
    return _stacked(found.outer, _above(chain, found))


def _above(chain: Link, base: Link) -> list[Link]:
    """Return the links above `base`, the lowest first."""
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
    """Take a block out of what holds here. Once is as good as twice where its key is its own."""
    chain.set(without(here(chain, key), key))


class Held:
    """A block that holds given values, whatever holds around it; for one use at a time."""

    def __init__(self, chain: Chain, link: Link) -> None:
        self._chain, self._values, self._root = chain, link.values, link.root
        self._key = object()

    def __enter__(self) -> None:
        outer = here(self._chain)
        try:
            self._chain.set(Link(self._key, only, self._values, outer, self._root))
        except BaseException:  # a signal's handler raised between two of these instructions
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
    """What holds inside a generator, put in place each time that it runs and taken out again.

    Made by entering the generator's block. What the generator's body leaves open between two
    items is its own: it holds neither for its consumer nor in whatever context resumes it next.
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
        except BaseException:  # a signal's handler raised between two of these instructions
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
            return  # it was torn down in another context: nothing of it holds here
        self._links = _above(inner, base) if base is not inner else []
        self._chain.set(base.outer)

    def end(self, error: BaseException | None = None) -> None:
        """Leave the block; what holds for the consumer goes on holding."""
        self._manager.__exit__(type(error) if error else None, error, None)
        if self._begun is not None:
            self._begun.end()
