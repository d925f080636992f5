"""Wrappers around SDK functions that other libraries may also wrap, before or after us.

Plain functions, not `wrapt` wrappers: another library that undoes its own wrapper removes the
outermost `wrapt` wrapper, whoever's it is.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

_ours: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every wrapper ever made; others may still hold it."""


class Underway:
    """Counts calls that run in our wrappers; what they need is removed after the last.

    A call is observed to its end, or not at all: what one part changes in the request, another
    part undoes in the response.
    """

    def __init__(self) -> None:
        self._marks: list[None] = []  # append and pop are atomic, in any thread
        self.then: Callable[[], object] | None = None
        """Called, if set, when no call is running any more."""

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
    """Wrap `cls.name` in `observe`, unless it already contains a wrapper of ours.

    `observe` is called with the bound function, the instance and the arguments, unless `is_off`
    is true for the instance. `waits`: whether the result is awaited. Adds a function to `undo`
    that removes the wrapper if it is still the outermost.
    """
    found: Any = cls.__dict__[name]
    if hasattr(found, "__get__") and not _leads_to_ours(found):
        make = functools.partial(_awaited if waits else _plain, is_off=is_off, observe=observe)
        setattr(cls, name, _made(make, undo, cls, name, found))


def _made(make: Any, undo: list[Callable[[], object]], cls: Any, name: str, found: Any) -> Any:
    """Return our wrapper around `found`.

    Libraries undo their wrapper by replacing the outermost one with its `__wrapped__`, whoever's
    it is. So the `__wrapped__` of ours is again ours, around what is below theirs.
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
        with running:  # before `is_off` is checked: what is on stays on until this call ends
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
