"""What a program hands over, as it is now: it may change it before the worker reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_NODES = 10_000
"""Items that are looked at, on the caller's thread; those of flat containers weigh less."""
_FLAT = 64
"""Items of a container that holds texts and numbers only that weigh what one other does."""
_DEEPEST = 64
# By their ids: a class of the program's may have no hash, or an equality of its own.
_LEAVES = frozenset(map(id, (str, bytes, int, float, bool, type(None))))
_CONTAINERS = frozenset(map(id, (dict, list, tuple, set)))


def snapshot(value: Any) -> Any:
    """Return a copy of plain containers, as deep as they go; what is shared in them stays so.

    Other objects are the program's own, as they are. Containers that are too many, too large or
    too deep are described by their type and size. The outermost ones come first. Tuples of what
    may change become lists.
    """
    if id(_kind(value)) not in _CONTAINERS:
        return value
    top = [value]
    copies: dict[int, tuple[Any, Any]] = {}
    """Copies by the original's id; with the original, which keeps its id its own."""
    level: list[Any] = [top]
    left = _MOST_NODES
    for depth in range(_DEEPEST + 1):
        below: list[Any] = []
        for holder in level:
            for key, item in _parts(holder):
                if id(item) not in copies:
                    copy, weight = _copied(item, left if depth < _DEEPEST else 0)
                    left -= weight
                    copies[id(item)] = copy, item
                    if weight and (_kind(copy) is dict or _kind(copy) is list):
                        below.append(copy)
                holder[key] = copies[id(item)][0]
        level = below
    return top[0]


def snapshot_of(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a snapshot of a mapping, which is a dict however large that is."""
    pairs = dict(given)
    if all(id(_kind(item)) in _LEAVES for item in pairs.values()):
        return pairs
    copy = snapshot(pairs)
    return copy if _kind(copy) is dict else pairs


def _parts(holder: Any) -> list[tuple[Any, Any]]:
    """Return the containers in a dict or a list, and where they are."""
    pairs = holder.items() if _kind(holder) is dict else enumerate(holder)
    return [(key, item) for key, item in pairs if id(_kind(item)) in _CONTAINERS]


def _copied(value: Any, left: int) -> tuple[Any, int]:
    """Return a shallow copy, or a description, and what it weighs."""
    kind, size = _kind(value), len(value)
    if size <= left * _FLAT:
        copy: Any = value if kind is tuple else value.copy()
        items: Any = copy.values() if kind is dict else copy
        is_flat = kind is set or all(id(_kind(item)) in _LEAVES for item in items)
        weight = 1 + (len(copy) // _FLAT if is_flat else len(copy))
        if weight <= left:
            return (list(copy) if kind is tuple and not is_flat else copy), weight
    return f"[{kind.__name__} of {size} items, too much to keep]", 0


_kind: Any = type
