"""How large a value is, in memory and as JSON, without running the caller's code."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from json.encoder import encode_basestring_ascii
from math import isfinite, isqrt
from operator import attrgetter
from sys import getsizeof
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from ._turns import let_others_run

_NODE = 64
"""Approximate bytes of a value that is not examined, and of a key."""
_MOST_NODES = 1000
"""Maximum values examined, which takes less than a millisecond of the caller's thread."""
_DEEPEST = 40
"""Maximum nesting depth examined."""
_FEW = 16
"""A mapping with at most this many keys likely has names from code, which exist anyway."""
# By id: a class of the caller's may have no hash, or its own equality.
_FLAT = frozenset(map(id, (str, bytes, bytearray, int, float, bool, complex, type(None))))
_ITEMS: dict[Any, Callable[[Any], Iterable[Any]]] = {
    dict: attrgetter("values")(dict),
    **{kind: attrgetter("__iter__")(kind) for kind in (list, tuple, set, frozenset, deque)},
}
"""Containers, and how to iterate over them without a subclass's code."""
_TEXT = (str, bytes, bytearray)
_TEXTS = frozenset(map(id, _TEXT))
_CONTAINERS = tuple(_ITEMS)
_GLANCE, _DEEPEST_GLANCE, _DEEPEST_OBJECT, _WIDE = 16, 10, 4, 4096
"""For `rough_size_of`: parts at each end of a level; levels; levels in which objects are opened
that are no containers, as one may refer to half of the program; and the size of a container that
is only looked into."""
_EXACT = {id(kind): items for kind, items in _ITEMS.items()}
_LONG = 2048
"""Characters from which counting what JSON escapes is faster than escaping it."""
_STEP = 64 << 10
"""Characters counted at a time: another thread may run in between."""
_WHOLE = bytes(char for char in range(32, 127) if char not in b'"\\')
"""Characters that JSON writes as they are."""
_PAIRS = b'"\\\n\r\t\b\f'
"""Characters that JSON writes as two; the other ASCII ones take six."""
_SHARED: Any = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
"""Referenced by an object, but shared with all others."""


def size_of(value: Any) -> int:
    """Return about how many bytes a value holds, extrapolated from its first nodes.

    A shared part counts once, however many paths lead to it. Methods that the caller's class
    overrides may raise, block or never end, so none is called.
    """
    if id(type(value)) in _FLAT:  # pyright: ignore[reportUnknownArgumentType]
        return _leaf(value)
    return _estimate(value, _MOST_NODES, _DEEPEST, set())[0]


def rough_size_of(value: Any) -> int:
    """Return about how many bytes a value holds, by the first and the last parts of each level.

    In a tenth of the time of `size_of`, for the content of steps: each of a run holds the whole
    conversation, whose newest message is the last. Runs none of the caller's code either.
    """
    if id(type(value)) in _FLAT:  # pyright: ignore[reportUnknownArgumentType]
        return _leaf(value)
    total, scale = 0, 1.0
    level: list[Any] = [value]
    for depth in range(_DEEPEST_GLANCE):
        held = _NODE * len(level)
        inner: list[Any] = []
        for item in level:
            kind: Any = type(item)  # pyright: ignore[reportUnknownVariableType]
            if id(kind) in _TEXTS:
                held += len(item)
            elif id(kind) in _FLAT:
                continue
            elif issubclass(kind, _TEXT):
                held += _opened(item, kind)[0]
            elif issubclass(kind, _CONTAINERS) and (id(kind) not in _EXACT or len(item) > _WIDE):
                held += _estimate(item, _GLANCE, _DEEPEST_OBJECT, set())[0]
            elif id(kind) in _EXACT or (depth < _DEEPEST_OBJECT and not issubclass(kind, _SHARED)):
                inner.append(item)
        total += int(scale * held)
        level = gc.get_referents(*inner) if inner else []
        if len(level) > 2 * _GLANCE:
            scale *= len(level) / (2 * _GLANCE)
            level = level[:_GLANCE] + level[-_GLANCE:]
    return total


def size_of_plain(value: Any) -> int:
    """Return how many bytes a plain JSON value holds, by examining every node."""
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        kind: Any = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is dict:
            total += _own(item, kind)
            waiting.extend(item.values())
        elif kind is list or kind is tuple:
            total += _own(item, kind)
            waiting.extend(item)
        else:
            total += _leaf(item) if id(kind) in _FLAT else _NODE
    return total


def sizes_of_json(value: Any) -> tuple[int, int]:
    """Return the bytes that a plain value holds, and the length of what `json.dumps` makes of it.

    That JSON is not made. Raises `TypeError` for a value that is not plain. No container may
    contain itself.
    """
    held = length = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind: Any = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            held += getsizeof(item)
            is_short = len(item) < _LONG
            length += len(encode_basestring_ascii(item)) if is_short else _length_of_long(item)
        elif kind is dict:
            held += _own(item, kind)
            keys = map(encode_basestring_ascii, item)  # raises for a key that is not a text
            length += 4 * len(item) + (not item) * 2 + sum(map(len, keys))
            waiting.extend(item.values())
        elif kind is list or kind is tuple:
            held += _own(item, kind)
            length += 2 * len(item) + (not item) * 2
            waiting.extend(item)
        elif kind is bool or item is None:
            length += 5 if item is False else 4
        elif kind is int or (kind is float and isfinite(item)):
            held += _leaf(item)
            length += len(repr(item))
        else:
            raise TypeError(kind)
    return held, length


def _length_of_long(text: str) -> int:
    total = 2
    for start in range(0, len(text), _STEP):
        part = text[start : start + _STEP]
        if part.isascii():
            escaped = part.encode().translate(None, _WHOLE)
            total += len(part) + len(escaped) + 4 * len(escaped.translate(None, _PAIRS))
        else:
            total += len(encode_basestring_ascii(part)) - 2
        let_others_run()
    return total


def _leaf(item: Any) -> int:
    if item is None or item is True or item is False:
        return 0
    return 0 if type(item) is int and -6 < item < 257 else getsizeof(item)


def _own(value: Any, kind: Any) -> int:
    """Return the bytes of a container and its keys, without its values."""
    size = int(kind.__sizeof__(value)) + 16
    count: int = kind.__len__(value)
    return size + _NODE * count if kind is dict and count > _FEW else size


def _estimate(value: Any, most: int, levels: int, known: set[int]) -> tuple[int, int]:
    """Return about how many bytes a value holds, and how many nodes were examined.

    `most`: nodes to examine; `levels`: how deep; `known`: ids of what was examined already.
    """
    if id(value) in known:
        return 0, 1
    known.add(id(value))
    size, count, items = _opened(value, type(value))  # pyright: ignore[reportUnknownArgumentType]
    if not count:
        return size, 1
    if not levels or most < 1:
        return size + _NODE * count, 1
    parts = list(islice(items, most))  # at once: another thread may write to it
    share = max(isqrt(most), most // count)
    looked = seen = inside = 0
    for part in parts:
        if looked >= most:
            break
        if id(type(part)) in _FLAT:  # pyright: ignore[reportUnknownArgumentType]
            held, nodes = _leaf(part), 1
        else:
            held, nodes = _estimate(part, min(share, most - looked) - 1, levels - 1, known)
        inside, looked, seen = inside + held, looked + nodes, seen + 1
    return size + inside * count // max(1, seen), looked + 1


def _opened(value: Any, kind: Any) -> tuple[int, int, Iterable[Any]]:
    """Return a value's own bytes, the number of its parts, and an iterable of them."""
    if id(kind) in _FLAT:
        return _leaf(value), 0, ()
    if (exact := _EXACT.get(id(kind))) is not None:
        return _own(value, kind), len(value), exact(value)
    for base in (str, bytes, bytearray):
        if issubclass(kind, base):
            return int(base.__sizeof__(value)), 0, ()
    for base, items in _ITEMS.items():
        if issubclass(kind, base):
            return _own(value, base), base.__len__(value), items(value)
    if issubclass(kind, _SHARED):
        return 0, 0, ()
    # Attributes in `__dict__` and in slots alike, as the garbage collector sees them.
    inside = [part for part in gc.get_referents(value) if not issubclass(type(part), _SHARED)]
    return _NODE, len(inside), inside
