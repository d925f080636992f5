"""Checks of callers' arguments: misuse raises at once, and names the argument."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ._narrowing import is_mapping
from ._snapshot import snapshot_of

_TEXTS = frozenset(
    {"distinct_id", "trace_id", "session_id", "span_id", "parent_id", "span_name", "trace_name"}
    | {"provider_override"}
)
_DAY = 86_400.0
_LONGEST = 30 * _DAY
_YEAR_2000 = 946_684_800.0
_FLAGS = frozenset({"privacy_mode", "capture"})
_MAPPINGS = frozenset({"properties", "groups"})


def checked(name: str, field: str, value: Any) -> Any:
    """Return `value` as a field of `Arguments` holds it.

    An empty text counts as `None`. Raises `TypeError` or `ValueError` that refers to the argument
    as `name`.
    """
    if value is None:
        return None
    if field in _TEXTS:
        return text(name, value) or None  # `user_id or ""` gives an empty id for no user
    if field in _FLAGS:
        if isinstance(value, bool):
            return value
        raise TypeError(f"{name} must be True, False or None, not {type(value).__name__}")
    if field in _MAPPINGS:
        if is_mapping(value):
            return snapshot_of(value)
        raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
    if not callable(getattr(value, "capture", None)):
        raise TypeError(
            f"{name} must be a posthog.Posthog client, the posthog module or an object with a "
            f"capture method, not {type(value).__name__}"
        )
    return value


def named(function: str, given: Mapping[str, Any], known: type) -> dict[str, Any]:
    """Return keyword arguments as fields of `Arguments`.

    `known` is one of the classes of `types.py`. Raises `TypeError` for a name that it does not
    have, and for a value of the wrong type.
    """
    if unknown := given.keys() - known.__annotations__.keys():
        raise TypeError(f"{function}() got an unexpected argument {min(unknown)!r}")
    return {field_of(name): checked(name, field_of(name), value) for name, value in given.items()}


def field_of(name: str) -> str:
    """Return the field of `Arguments` for an argument without the prefix."""
    return "client" if name == "posthog_client" else name


def redactor(value: Any) -> Any:
    """Return a `posthog_redact`. Raises `TypeError` unless it is `None` or callable."""
    if value is not None and not callable(value):
        raise TypeError("posthog_redact must be a callable that takes and returns a str")
    return value


def count(name: str, value: Any) -> int:
    """Return a count, such as of tokens. Raises `TypeError` or `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative; omit it if it is unknown")
    return value


def status(name: str, value: Any) -> int:
    """Return an HTTP status. Raises `TypeError` or `ValueError`."""
    if not 100 <= count(name, value) <= 599:
        raise ValueError(f"{name} must be an HTTP status, from 100 to 599")
    return int(value)


def url(name: str, value: Any) -> str:
    """Return a URL unchanged. Raises `TypeError` or `ValueError`."""
    given = text(name, value)
    try:
        urlsplit(given)
    except ValueError as error:
        raise ValueError(f"{name} must be a URL: {error}") from None
    return given


def duration(name: str, value: Any) -> float:
    """Return a number of seconds, at most 30 days. Raises `TypeError` or `ValueError`."""
    seconds = _amount(name, value, "seconds")
    if seconds > _LONGEST:
        raise ValueError(f"{name} must be in seconds, not milliseconds: {value} is over 30 days")
    return seconds


def moment(name: str, value: Any) -> float:
    """Return a Unix time between the year 2000 and a day from now.

    Raises `TypeError` or `ValueError`.
    """
    seconds = _amount(name, value, "seconds")
    if seconds > time.time() + _DAY:
        raise ValueError(
            f"{name} must be Unix time in seconds, not milliseconds or less: {value} is in the "
            f"future. time.time() and datetime.timestamp() give seconds"
        )
    if seconds < _YEAR_2000:
        raise ValueError(
            f"{name} must be Unix time in seconds: {value} is before the year 2000. time.time() "
            f"and datetime.timestamp() give it; a duration goes into `latency`"
        )
    return seconds


def usd(name: str, value: Any) -> float:
    """Return an amount in USD. Raises `TypeError` or `ValueError`."""
    return _amount(name, value, "USD")


def _amount(name: str, value: Any, unit: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of {unit}, not {type(value).__name__}")
    try:
        amount = float(value)
    except OverflowError:  # an int with hundreds of digits
        amount = math.inf
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{name} must be a finite number of {unit}, not {amount}")
    return amount


def text(name: str, value: Any) -> str:
    """Return a name or an id as text. Raises `TypeError` or `ValueError` that names it.

    A subclass of `str` is converted to its plain value, without running its own code.
    """
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, (int, uuid.UUID)) and not isinstance(value, bool):
        try:
            return int.__repr__(value) if isinstance(value, int) else str(value)
        except ValueError:  # https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
            raise ValueError(f"{name} must be an int with fewer digits") from None
    raise TypeError(f"{name} must be a str, int or UUID, not {type(value).__name__}")
