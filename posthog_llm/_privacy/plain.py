"""The caller's objects → JSON types, one step at a time.

The objects' own code runs here, on the worker. It may fail, never end, or lead along too many paths
to walk. Its results are limited, and its failures are contained.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from itertools import islice
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from .._faults import interrupts
from .._narrowing import is_collection, is_mapping

_BINARY: Any = (bytes, bytearray, memoryview)
_ITERATED: dict[Any, Any] = {
    dict: attrgetter("values")(dict),
    **{kind: attrgetter("__iter__")(kind) for kind in (list, tuple, set, frozenset, deque)},
}
"""Containers, and how to iterate over them without running their own code."""
_WRITTEN_OUT = ("model_dump", "__dataclass_fields__", "__attrs_attrs__")
"""Attributes of classes whose objects are dumped with everything in them."""
_LOOK_EVERY = 64
"""Items taken between two checks of the clock."""
_MOCKS, _MOCK = ("unittest.mock", "mock.mock"), "NonCallableMock"
"""Modules of the base class of all mocks, and its name."""
TOO_MUCH = "[too much to show]"


def opened(value: Any, most: int, until: float) -> Any:
    """Return a dict, a list or a scalar that represents an object.

    A container yields at most one item more than `most`, and none once the clock has reached
    `until`. If the object's own code fails, its type represents it.
    """
    try:
        if _is_mock(value):
            return f"[{_name(value)}]"
        if is_mapping(value):
            return dict(_taken(value.items(), most, until))
        if is_collection(value):
            return list(_taken(value, most, until))
        return _as_plain(value, most)
    except Exception as error:  # whatever an object's own methods raise, the event is sent
        if interrupts(error):
            raise
        return f"[{_name(value)}]"


def _is_mock(value: Any) -> bool:
    """Whether a value records what is read of it, as those of `unittest.mock` and `mock` do.

    Not `isinstance`: it asks the object, which claims to be of the class of its `spec`.
    """
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    classes: Any = type.__getattribute__(kind, "__mro__")
    return any(cls.__module__ in _MOCKS and _named(cls) == _MOCK for cls in classes)


def _name(value: Any) -> str:
    return _named(type(value))  # pyright: ignore[reportUnknownArgumentType]


def _named(cls: Any) -> str:
    return str(type.__getattribute__(cls, "__name__"))


def _taken(items: Iterable[Any], most: int, until: float) -> Iterator[Any]:
    for number, item in enumerate(items):
        yield item
        if number >= most or (number % _LOOK_EVERY == 0 and time.monotonic() > until):
            return


def _as_plain(value: Any, most: int) -> Any:
    """Convert an object that is not a container; if all else fails, to its name."""
    if isinstance(value, Enum):
        return value.value
    for plain in (str, int, float):  # a subclass of one of these
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, _BINARY):
        return f"[binary, {len(value)} bytes]"
    cls: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    dump: Any = None if issubclass(cls, type) else getattr(value, "model_dump", None)
    if hasattr(cls, "__dataclass_fields__") and not callable(dump):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if not _is_within(value, most):
        return TOO_MUCH  # its own code would walk all of it
    if callable(dump):
        return dump()
    return f"[{_name(value)}]" if cls.__str__ is object.__str__ else str(value)


def _is_within(value: Any, most: int) -> bool:
    """Whether dumping an object takes at most `most` steps, one per path to each part.

    Ten objects that refer to each other have billions of paths, and `model_dump` and `repr` walk
    them all.
    """
    waiting: list[Any] = [value]
    for _ in range(most):
        if not waiting:
            return True
        waiting.extend(islice(_parts(waiting.pop()), most))
    return False


def _parts(value: Any) -> Iterable[Any]:
    """Return the parts that a value's text consists of, as far as known."""
    for kind, items in _ITERATED.items():
        if isinstance(value, kind):
            found: Iterable[Any] = items(value)
            return found
    cls: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if not any(hasattr(cls, mark) for mark in _WRITTEN_OUT) and cls is not SimpleNamespace:
        return ()
    slots = [getattr(value, name, None) for name in getattr(cls, "__match_args__", ())]
    return [*getattr(value, "__dict__", {}).values(), *slots]
