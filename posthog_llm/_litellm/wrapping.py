"""Functions of LiteLLM's, wrapped once, however many loggers are made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> bool:
    """Replace `owner.name` by `make` of it; return `False` if it is absent, or wrapped already."""
    function: Any = getattr(owner, name, None)
    if not callable(function) or hasattr(function, "_posthog_llm"):
        return False
    made: Any = functools.wraps(function)(make(function))
    made._posthog_llm = True
    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(made) if is_static else made)
    return True
