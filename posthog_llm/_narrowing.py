"""Type guards for parsed JSON: with `isinstance` alone, the types of its items are unknown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))


def is_collection(value: object) -> TypeGuard[Collection[Any]]:
    """Whether a value is a list, a tuple or a set."""
    return isinstance(value, (list, tuple, set, frozenset))


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    # A check against an abstract class takes several times as long, and most are plain.
    return type(value) is dict or (value is not None and isinstance(value, Mapping))


def first_given(*values: Any) -> Any:
    """Return the first value that is not `None`; an empty value counts as given."""
    return next((value for value in values if value is not None), None)


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one."""
    return value if is_mapping(value) else {}
