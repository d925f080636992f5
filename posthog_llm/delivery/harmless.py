"""An event that `json` cannot tell, made one that it can."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ..event import Event
from ..narrowing import is_list, is_mapping

_LONGEST_INT = 4000
"""Bits of an integer: Python refuses to write one of more than 4,300 digits."""
_DEEPEST = 100
"""Levels of a value that are kept; one may hold itself."""


def writable(event: Event) -> Event:
    """Return the event as it is where JSON can tell it, else made harmless."""
    try:
        json.dumps([event.properties, event.groups], default=str)
    except Exception:  # whatever the caller's objects raise
        return harmless(event)
    return event


def harmless(event: Event) -> Event:
    """Return the event with a text for each value that cannot be written as JSON."""
    return replace(
        event,
        properties={_text(key): _plain(value) for key, value in event.properties.items()},
        groups={_text(k): _plain(v) for k, v in event.groups.items()} if event.groups else None,
    )


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"[integer of {value.bit_length()} bits]"
    if value is None or isinstance(value, (str, int, float)):
        return value
    if id(value) in above or len(above) > _DEEPEST:
        return f"[{value.__class__.__name__}]"
    inside = (*above, id(value))
    if is_mapping(value):
        return {_text(key): _plain(item, inside) for key, item in value.items()}
    if is_list(value) or value.__class__ in (tuple, set, frozenset):
        return [_plain(item, inside) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # an object of the caller's, or an integer of too many digits
        return f"[{value.__class__.__name__}]"
