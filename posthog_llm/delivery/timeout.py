"""The time that a caller gives the official client's `flush`: ours and its own, together."""

from __future__ import annotations

import functools
import inspect
import time
from typing import Any

_NAME = "timeout_seconds"
_DEFAULT = 10.0
"""Seconds that the official client's `flush` takes where its caller names none."""


class Timeout:
    """What one call of `flush`, `join` or `shutdown` may take."""

    def __init__(self, method: Any, args: Any, kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs
        self._is_taken = _NAME in (parameters(getattr(method, "__func__", method)) or ())
        given = kwargs.get(_NAME, args[0] if args else _DEFAULT)
        self.seconds = given if isinstance(given, (int, float)) else None
        """`None`: as many as it takes."""
        self._until = time.monotonic() + (self.seconds or 0.0)

    def left(self) -> tuple[Any, Any]:
        """Return the arguments of the call, with the time that is left of it now."""
        if self.seconds is None or not self._is_taken:
            return self._args, self._kwargs
        left = max(0.0, self._until - time.monotonic())
        if self._args:
            return (left, *self._args[1:]), self._kwargs
        return (), {**self._kwargs, _NAME: left}


@functools.lru_cache(maxsize=256)
def parameters(function: Any) -> frozenset[str] | None:
    """Return the names that a function takes; `None` where it takes any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(parameter.name for parameter in found)
