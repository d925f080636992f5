"""The `posthog_*` arguments: their names, their checks, and how they travel with a call."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..record import Arguments

PREFIX = "posthog_"
NAMES = {PREFIX + f.name: f.name for f in fields(Arguments)}
_NAMES = frozenset(NAMES)
CARRIER = "posthog_llm.call"
"""Key under which arguments ride in a request's query options, and a call in its extensions.

The query options are the one thing that every helper of every SDK version (stream managers,
tool runners, raw accessors) hands on untouched. The seam takes it out again.
"""

_TEXTS = frozenset(
    {"distinct_id", "trace_id", "session_id", "span_id", "parent_id", "span_name"}
    | {"provider_override"}
)
_FLAGS = frozenset({"privacy_mode", "capture"})
_MAPPINGS = frozenset({"properties", "groups"})


def peel(kwargs: dict[str, Any]) -> Arguments | None:
    """Take the `posthog_*` arguments out of `kwargs`; `None` when there are none.

    An unknown name is left in, so that the SDK's own method names it in a `TypeError`.
    Raises `TypeError` for a value of the wrong type.
    """
    if _NAMES.isdisjoint(kwargs):
        return None
    found = [name for name in kwargs if name in _NAMES]
    return Arguments(**{NAMES[name]: checked(name, kwargs.pop(name)) for name in found})


def checked(name: str, value: Any) -> Any:
    """Return `value` as `Arguments` holds it, or raise a `TypeError` that names the argument."""
    field = NAMES[name]
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


def carry(kwargs: dict[str, Any], arguments: Arguments) -> None:
    """Put `arguments` into the query options of an SDK method's `kwargs`."""
    kwargs["extra_query"] = {**(kwargs.get("extra_query") or {}), CARRIER: arguments}


def unload(options: Any) -> Any:
    """Take the carried value out of an SDK's request options; `None` when there is none.

    The caller's own mapping is left as it is.
    """
    params = options.params
    if not params or CARRIER not in params:
        return None
    options.params = {key: value for key, value in params.items() if key != CARRIER}
    return params[CARRIER]
