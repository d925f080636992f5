"""Checks of what callers give: a misuse raises at once, and names the argument."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

_TEXTS = frozenset(
    {"distinct_id", "trace_id", "session_id", "span_id", "parent_id", "span_name", "trace_name"}
    | {"provider_override"}
)
_FLAGS = frozenset({"privacy_mode", "capture"})
_MAPPINGS = frozenset({"properties", "groups"})


def checked(name: str, field: str, value: Any) -> Any:
    """Return `value` as a field of `Arguments` holds it.

    Raises `TypeError` that calls the argument by its `name`.
    """
    if value is None:
        return None
    if field in _TEXTS:
        return _text(name, value)
    if field in _FLAGS:
        if isinstance(value, bool):
            return value
        raise TypeError(f"{name} must be True, False or None, not {type(value).__name__}")
    if field in _MAPPINGS:
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
    if not callable(getattr(value, "capture", None)):
        raise TypeError(
            f"{name} must be a posthog.Posthog client, the posthog module or an object with a "
            f"capture method, not {type(value).__name__}"
        )
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, uuid.UUID)) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name} must be a str, int or UUID, not {type(value).__name__}")
