"""The numbers of a response whose middle was cut out: its fields before and after the cut."""

from __future__ import annotations

import json
import re
from typing import Any

from .._narrowing import is_mapping

_RESPONSE = re.compile(r'"response"\s*:\s*\{\s*')
_AFTER_LIST = re.compile(r'\]\s*,\s*(?="\w+"\s*:)')
"""Between the output, which is a list, and the field after it. In a text, quotes are escaped."""
_END = re.compile(r'\s*(?:,\s*"\w+"\s*:\s*\d+\s*)?\}?\s*\Z')
"""What follows the fields of a response: the end of its event, which may have a number."""
_COLON, _NEXT = re.compile(r"\s*:\s*"), re.compile(r"\s*([,}])\s*")
_FRONT, _BACK = 1 << 10, 1 << 20
"""Where the fields of a response begin in its event, and how many bytes after its output count."""
_decode = json.JSONDecoder().raw_decode


def fields(body: bytes, *, streamed: bool) -> dict[str, Any]:
    """Return the fields of the response that has the usage, except for the output."""
    found: dict[str, Any] = {}
    text = _event(body) if streamed else body.decode(errors="replace")
    if begun := _RESPONSE.search(text, 0, _FRONT):
        found, _ = _fields_from(text, begun.end())
    if not is_mapping(found.get("usage")):
        found |= _last_fields(text[-_BACK:])
    return {k: v for k, v in found.items() if v is not None and k not in ("output", "choices")}


def _event(body: bytes) -> str:
    """Return the line of an event stream that has the usage."""
    at = body.rfind(b'"usage"')
    start, end = body.rfind(b"\n", 0, max(0, at)) + 1, body.find(b"\n", at)
    return body[start : end if end >= 0 else None].decode(errors="replace") if at >= 0 else ""


def _last_fields(text: str) -> dict[str, Any]:
    for after in _AFTER_LIST.finditer(text):
        found, end = _fields_from(text, after.end())
        if is_mapping(found.get("usage")) and end is not None and _END.match(text, end):
            return found
    return {}


def _fields_from(text: str, at: int) -> tuple[dict[str, Any], int | None]:
    """Return an object's fields from one of its names on, and its end; `None`: it is unreadable."""
    found: dict[str, Any] = {}
    try:
        while True:
            name, at = _decode(text, at)
            colon = _COLON.match(text, at)
            if colon is None:
                return found, None
            value, at = _decode(text, colon.end())
            found[str(name)] = value
            following = _NEXT.match(text, at)
            if following is None:
                return found, None
            at = following.end()
            if following[1] == "}":
                return found, at
    except (ValueError, RecursionError):  # cut as well, or nested too deep
        return found, None
