"""What a request declares for OpenRouter's Broadcast, read as OpenRouter reads it.

https://openrouter.ai/docs/guides/features/broadcast
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._exchange import Arguments
from .._narrowing import mapping

PROVIDER = "openrouter"
SESSION_HEADER = "x-session-id"
_TRACE = {
    "trace_id": "trace_id",
    "span_name": "span_name",
    "generation_name": "span_name",
    "parent_span_id": "parent_id",
    "trace_name": "trace_name",
}
"""Fields of a request's `trace`; later ones win."""
_LONGEST = 256


def names(body: Mapping[str, Any], session_header: str | None = None) -> Arguments | None:
    """Return what a request names, as arguments of the lowest precedence; `None` if nothing.

    `user` is the distinct id. `session_id`, in the body or the header, is the session. The known
    fields of `trace` describe the trace; the others are custom properties.
    """
    trace = mapping(body.get("trace"))
    given: dict[str, Any] = {
        _TRACE[name]: text for name in _TRACE if (text := _text(trace.get(name)))
    }
    if session := _text(body.get("session_id")) or _text(session_header):
        given["session_id"] = session
    if user := _text(body.get("user")):
        given["distinct_id"] = user
    custom = {str(k): v for k, v in trace.items() if k not in _TRACE or k == "trace_name"}
    if not given and not custom:
        return None
    return Arguments(**given, properties=custom or None)


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        return None
    return str(value)[:_LONGEST]
