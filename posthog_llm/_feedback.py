"""User feedback on traces, and scores for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._checks import named
from ._checks import text as checked_text
from ._manual import capture
from ._record import Kind
from .types import WhoArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack


def capture_feedback(trace_id: str, text: str, **given: Unpack[WhoArguments]) -> str:
    """Capture a user's feedback on a trace, and return the uuid of the event.

    Contexts apply. Raises `TypeError` or `ValueError` that names the argument.
    """
    return _capture_about("feedback", trace_id, {"input": _words("text", text)}, given)


def capture_metric(
    trace_id: str, name: str, value: float | str | bool, **given: Unpack[WhoArguments]
) -> str:
    """Capture a score for a trace, and return the uuid of the event.

    `value` is a number, a text or a bool. Everything else is as in `capture_feedback`.
    """
    details = {"details": {"name": _words("name", name), "value": _score(value)}}
    return _capture_about("metric", trace_id, details, given)


def _score(value: Any) -> Any:
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"value must be a number, a str or a bool, not {type(value).__name__}")
    return value


def _words(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty")
    return value


def _capture_about(
    kind: Kind, trace_id: str, facts: dict[str, Any], given: Mapping[str, Any]
) -> str:
    who = named(f"capture_{kind}", given, WhoArguments)
    trace = _words("trace_id", checked_text("trace_id", trace_id))
    return capture(kind, {**who, **facts, "trace_id": trace})
