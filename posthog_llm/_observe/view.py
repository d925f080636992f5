"""A view of an object: it shares all state with the object, and has a value of its own beside it.

So a value takes part in one call of an SDK without a trace in the SDK's own object, and whatever
the call is: a generator that runs later, a coroutine, a call in another thread.
"""

from __future__ import annotations

import functools
from typing import Any

OWN = "_posthog_own"


def view(original: Any, own: Any, instead_of: str | None = None) -> Any:
    """Return a view of `original`, which it keeps alive.

    `own`: the value that `own_of` returns. `instead_of`: an attribute that has this value, too.
    """
    made: Any = object.__new__(_view_class(_class_of(original), instead_of))
    object.__setattr__(made, "__dict__", original.__dict__)
    object.__setattr__(made, OWN, own)
    object.__setattr__(made, "_posthog_original", original)
    return made


def own_of(thing: Any) -> Any:
    """Return the own value of a view; `None` for anything else."""
    return getattr(thing, OWN, None)


def _class_of(original: Any) -> Any:
    cls: Any = type(original)  # pyright: ignore[reportUnknownVariableType]
    return cls.__mro__[1] if OWN in vars(cls) else cls


@functools.cache
def _view_class(cls: Any, instead_of: str | None) -> Any:
    """Return the class of views: it looks like the original's class, and closes nothing."""
    namespace: dict[str, Any] = {
        "__slots__": (OWN, "_posthog_original"),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    if hasattr(cls, "__del__"):
        namespace["__del__"] = _nothing
    if instead_of is not None:
        namespace[instead_of] = property(own_of)
    return type(cls.__name__, (cls,), namespace)


def _nothing(self: Any) -> None:
    """Close nothing: the original does when it goes."""
