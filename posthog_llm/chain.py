"""What holds here: the blocks around the caller, an immutable chain in a context variable.

A block that ends takes away its own link and nothing else, and only from the chain that holds
it: a generator's block may end in another context than it began in (the garbage collector's, a
thread's, the next request's), where others' values hold. Tasks share the links that were there
when they were made; nothing is ever written into one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

INHERITED: Any = object()
"""Says that a block begins no trace: it is in the one around it."""
_DEEPEST = 10_000
"""Links of a chain. Blocks in blocks are never that many, but a task that starts its own
successor inside its block adds one each time."""


class Link:
    """One block, over what holds around it.

    `combine(around, given)` makes what holds inside. `root` is the trace that the block is in.
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

    def flat(self) -> Link:
        """Return what holds here without the blocks that say so."""
        bottom = Link(None, only, self.values, None)
        bottom.root = self.root
        return bottom


Chain = ContextVar[Link]


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
    chain.set(without(chain.get(), key))


class Held:
    """A block that holds given values, whatever holds around it; for one use at a time."""

    def __init__(self, chain: Chain, link: Link) -> None:
        self._chain, self._values, self._root = chain, link.values, link.root

    def __enter__(self) -> None:
        outer = self._chain.get()
        try:
            self._chain.set(Link(self, only, self._values, outer, self._root))
        except BaseException:  # a signal's handler raised between two of these instructions
            self._chain.set(outer)
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            leave(self._chain, self)
        except BaseException:  # as above
            leave(self._chain, self)
            raise


class Resumed:
    """What holds inside a generator, put in place each time that it runs and taken out again.

    Made by entering the generator's block. What the generator's body leaves open between two
    items is its own: it holds neither for its consumer nor in whatever context resumes it next.
    """

    def __init__(self, manager: Any, chain: Chain) -> None:
        self._manager, self._chain = manager, chain
        outer = chain.get()
        try:
            self.block = manager.__enter__()
            base = chain.get()
        finally:
            chain.set(outer)
        self._base = Link(base.key, only, base.values, outer, base.root)
        self._begun = None if base.root is outer.root else base.root
        self._links: list[Link] = []

    def __enter__(self) -> None:
        outer = self._chain.get()
        try:
            if self._base.outer is not outer:
                self._base = self._base.over(outer)
            self._chain.set(_stacked(self._base, self._links))
        except BaseException:  # a signal's handler raised between two of these instructions
            self._chain.set(outer)
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._suspend()
        except BaseException:  # as above
            self._suspend()
            raise

    def _suspend(self) -> None:
        inner = self._chain.get()
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
