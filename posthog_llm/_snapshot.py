"""Copies what the caller passes, which may change before the worker reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_NODES = 10_000
"""Maximum items examined on the caller's thread; those of flat containers weigh less."""
_FLAT = 64
"""In a container of only texts and numbers, this many items weigh as much as one other."""
_DEEPEST = 64
_MOST_COPIES = 64
"""Containers that `shallow` copies below the first two levels."""
# By id: a class of the caller's may have no hash, or its own equality.
_LEAVES = frozenset(map(id, (str, bytes, int, float, bool, type(None))))
_CONTAINERS = frozenset(map(id, (dict, list, tuple, set)))


@dataclass(slots=True)
class Unread:
    """Content as a framework wrote it, of values that nobody changes: the worker reads it."""

    read: Callable[[Any], Any]
    raw: Any


def content_of(value: Any) -> Any:
    """Return content that is to be read now; any other value as it is."""
    return value.read(value.raw) if type(value) is Unread else value


def held_by(value: Any) -> Any:
    """Return what takes the memory of content."""
    return value.raw if type(value) is Unread else value


def snapshot(value: Any) -> Any:
    """Return a deep copy of plain containers, in which shared parts stay shared.

    Other objects stay the caller's own. Containers that are too many, too large or too deep are
    described by type and size; the outermost come first. Tuples whose items may change become
    lists.
    """
    if id(_kind(value)) not in _CONTAINERS:
        return value
    top = [value]
    copies: dict[int, tuple[Any, Any]] = {}
    """Copies by the original's id; with the original, so that its id stays unique."""
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


def shallow(value: Any) -> Any:
    """Return a copy of a container, of those directly in it, and of the next few; others stay.

    For what a framework passes from step to step, which is often large: a conversation grows by new
    messages, and each message stays as it is.
    """
    if id(_kind(value)) not in _CONTAINERS or _kind(value) is tuple:
        return value
    top = value.copy()
    level, left = [top] if _kind(top) is not set else [], _MOST_COPIES
    for depth in range(_DEEPEST):
        below: list[Any] = []
        for holder in level:
            for key, item in _parts(holder) if depth == 0 or len(holder) <= _FLAT else ():
                if depth and left <= 0:
                    return top
                if _kind(item) is not tuple:
                    holder[key] = item = item.copy()
                    left -= 1
                    if _kind(item) is not set:
                        below.append(item)
        level = below
    return top


def snapshot_of(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a snapshot of a mapping, which is a dict however large it is."""
    pairs = dict(given)
    if all(id(_kind(item)) in _LEAVES for item in pairs.values()):
        return pairs
    copy = snapshot(pairs)
    return copy if _kind(copy) is dict else pairs


def _parts(holder: Any) -> list[tuple[Any, Any]]:
    """Return the containers in a dict or a list, and their positions."""
    pairs = holder.items() if _kind(holder) is dict else enumerate(holder)
    return [(key, item) for key, item in pairs if id(_kind(item)) in _CONTAINERS]


def _copied(value: Any, left: int) -> tuple[Any, int]:
    """Return a shallow copy, or a description, and its weight."""
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
