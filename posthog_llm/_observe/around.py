"""Wrappers around SDK functions that other libraries may also wrap, before or after us.

Plain functions, not `wrapt` wrappers: another library that undoes its own wrapper removes the
outermost `wrapt` wrapper, whoever's it is.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Mapping
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
        with contextlib.suppress(IndexError):  # a forked child has none of them
            self._marks.pop()
        then = self.then
        if then is not None and not self._marks:
            then()

    def forget(self) -> None:
        """Forget the calls that run, because they run in the parent of this process."""
        self._marks = []


running = Underway()


class Installer:
    """Installs wrappers in an SDK's classes; `undo` holds the steps that remove them."""

    def __init__(
        self,
        undo: list[Callable[[], object]],
        is_off: Callable[[], bool],
        ours: type,
        defaults: Mapping[str, Any],
    ) -> None:
        self._undo = undo
        self._is_off = is_off
        self.ours = ours
        """What our own clients inherit from: they need no wrapper."""
        self._defaults = defaults

    def with_undo(self, undo: list[Callable[[], object]]) -> Installer:
        """Return an installer whose steps that remove its wrappers are in another list."""
        return Installer(undo, self._is_off, self.ours, self._defaults)

    def wrap(
        self, cls: Any, name: str, observe: Any, waits: bool = False, *, is_below: bool = False
    ) -> None:
        """Wrap `cls.name` in `observe`, unless it already contains a wrapper of ours.

        `observe` is called with the bound function, the instance and the arguments. `waits`:
        whether the result is awaited. `is_below`: whether it depends on what another wrapper has
        begun, and so goes on when the installation is being removed.
        """
        found: Any = cls.__dict__[name]
        if not hasattr(found, "__get__") or _leads_to_ours(found):
            return
        is_off = self._is_ours if is_below else self._is_off_for
        make = functools.partial(_awaited if waits else _plain, is_off=is_off, observe=observe)
        setattr(cls, name, _made(make, self._undo, cls, name, found))

    def wrap_function(self, module: Any, name: str, observe: Any) -> None:
        """Wrap a module's function in `observe`, which is called with it and the arguments."""
        found = getattr(module, name)
        if not _leads_to_ours(found):
            make = functools.partial(_function, is_off=self._is_off, observe=observe)
            setattr(module, name, _made(make, self._undo, module, name, found))

    def set_defaults(self, cls: Any) -> None:
        """Give a client class the attributes that the seam reads of a client."""
        for name, value in self._defaults.items():
            self._undo.append(functools.partial(_delete, cls, name))
            setattr(cls, name, value)

    def on_undo(self, step: Callable[[], object]) -> None:
        """Have `step` called when the installation is removed."""
        self._undo.append(step)

    def _is_off_for(self, client: Any) -> bool:
        return self._is_off() or self._is_ours(client)

    def _is_ours(self, client: Any) -> bool:
        return isinstance(client, self.ours)


def _delete(cls: Any, name: str) -> None:
    if name in vars(cls):
        delattr(cls, name)


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


def _function(found: Any, is_off: Callable[[], bool], observe: Any) -> Any:
    @functools.wraps(found)
    def ours(*args: Any, **kwargs: Any) -> Any:
        with running:
            if not is_off():
                return observe(found, args, kwargs)
        return found(*args, **kwargs)

    return ours


def _leads_to_ours(found: Any) -> bool:
    while found is not None and found not in _ours:
        found = getattr(found, "__wrapped__", None)
    return found is not None
