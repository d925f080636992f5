"""An event that `json` cannot tell, made one that it can.

Else it would cost others: a batch with it fails, and some official clients lose their sender.
"""

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


def writable(event: Event) -> tuple[Event, int]:
    """Return the event, as JSON can tell it, and its length as JSON."""
    try:
        return event, _length(event)
    except Exception:  # whatever the caller's objects raise
        groups = _plain(event.groups) if event.groups else None
        event = replace(event, properties=_plain(event.properties), groups=groups)
        return event, _length(event)


def _length(event: Event) -> int:
    return len(json.dumps([event.properties, event.groups], default=str))


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
