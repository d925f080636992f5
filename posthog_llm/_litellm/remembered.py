"""Calls that were captured, for callbacks whose record of the call does not show it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_MOST = 10_000
_captured: OrderedDict[tuple[str, datetime | None], None] = OrderedDict()
"""By id and start time: a caller may give several calls the same id."""


def add(kwargs: Mapping[str, Any]) -> None:
    """Remember the call of LiteLLM's record `kwargs`."""
    if (key := _key(kwargs)) is not None:
        _captured[key] = None
    while len(_captured) > _MOST:
        with contextlib.suppress(KeyError):  # another thread was first
            _captured.popitem(last=False)


def has(kwargs: Mapping[str, Any]) -> bool:
    """Whether that call was captured."""
    return _key(kwargs) in _captured


def _key(kwargs: Mapping[str, Any]) -> tuple[str, datetime | None] | None:
    call_id, start = kwargs.get("litellm_call_id"), kwargs.get("start_time")
    if not isinstance(call_id, str):
        return None
    return call_id, start if isinstance(start, datetime) else None
