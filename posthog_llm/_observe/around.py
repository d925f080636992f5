"""Functions of ours around an SDK's own, which other libraries may have wrapped or will wrap.

Plain functions, not `wrapt`'s: what undoes another library's wrapper takes the outermost one of
`wrapt`'s away, whosever it is.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

_ours: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every function that was ever put around one; others may still hold it."""


class Underway:
    """How many calls run in functions of ours; what they need is taken away after the last.

    A call is watched to its end, or not at all: what one part of ours did to its request,
    another undoes in its answer.
    """

    def __init__(self) -> None:
        self._marks: list[None] = []  # appended to and popped from in one step, by any thread
        self.then: Callable[[], object] | None = None
        """Called, while there is one, when nothing runs any more."""

    def __bool__(self) -> bool:
        return bool(self._marks)

    def __enter__(self) -> None:
        self._marks.append(None)

    def __exit__(self, *exc_info: object) -> None:
        self._marks.pop()
        then = self.then
        if then is not None and not self._marks:
            then()


running = Underway()


def put(
    undo: list[Callable[[], object]],
    is_off: Callable[[Any], bool],
    cls: Any,
    name: str,
    observe: Any,
    waits: bool = False,
) -> None:
    """Put `observe` around `cls.name`, unless something of ours is in there already.

    It is called with the bound function, the instance and the arguments, unless `is_off` says
    of the instance that there is nothing to observe. `waits`: whether the result is awaited.
    What was put there takes itself away in `undo`, if it is still the outermost.
    """
    found: Any = cls.__dict__[name]
    if hasattr(found, "__get__") and not _leads_to_ours(found):
        make = functools.partial(_awaited if waits else _plain, is_off=is_off, observe=observe)
        setattr(cls, name, _made(make, undo, cls, name, found))


def _made(make: Any, undo: list[Callable[[], object]], cls: Any, name: str, found: Any) -> Any:
    """Return ours around `found`.

    Libraries undo their wrapper by putting the outermost's `__wrapped__` in its place, whosever
    that is. So that of ours is ours again, around what is below theirs.
    """
    ours = make(found)
    _ours.add(ours)
    undo.append(functools.partial(_take_away, ours, cls, name, found))
    below = getattr(found, "__wrapped__", None)
    if hasattr(below, "__get__"):
        ours.__wrapped__ = _made(make, undo, cls, name, below)
    return ours


def _take_away(ours: Any, cls: Any, name: str, found: Any) -> None:
    if cls.__dict__.get(name) is ours:
        setattr(cls, name, found)


def _plain(found: Any, is_off: Callable[[Any], bool], observe: Any) -> Any:
    @functools.wraps(found)
    def ours(self: Any, *args: Any, **kwargs: Any) -> Any:
        send = found.__get__(self, type(self))
        with running:  # before it is asked: what is on stays until this has ended
            if not is_off(self):
                return observe(send, self, args, kwargs)
        return send(*args, **kwargs)

    return ours


def _awaited(found: Any, is_off: Callable[[Any], bool], observe: Any) -> Any:
    @functools.wraps(found)
    async def ours(self: Any, *args: Any, **kwargs: Any) -> Any:
        send = found.__get__(self, type(self))
        with running:
            if not is_off(self):
                return await observe(send, self, args, kwargs)
        return await send(*args, **kwargs)

    return ours


def _leads_to_ours(found: Any) -> bool:
    while found is not None and found not in _ours:
        found = getattr(found, "__wrapped__", None)
    return found is not None
