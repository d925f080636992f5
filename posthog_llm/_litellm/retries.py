"""Retries inside LiteLLM (`num_retries`): several requests, but at most one callback.

LiteLLM's retry functions get the record of the call that failed first, so each try is noted where
it begins and ends.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .._context import where
from .._faults import guarded
from .._running import inside
from . import attempt as attempts
from .wrapping import wrap

_NAMES = (
    *("completion_with_retries", "acompletion_with_retries"),
    *("responses_with_retries", "aresponses_with_retries"),
)


class _Try:
    """One try, while it runs."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __enter__(self) -> _Try:
        return self

    def note_result(self, response: Any) -> None:
        attempts.note_response(self._call, response)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            attempts.failed(self._call, error)


@guarded
def watch() -> None:
    """Note each of LiteLLM's own retries, from now on."""
    import litellm

    for name in _NAMES:
        wrap(litellm, name, functools.partial(_watched, name=name))


def _watched(function: Callable[..., Any], name: str) -> Any:
    def retrying(*args: Any, **kwargs: Any) -> Any:
        call = kwargs.get("litellm_logging_obj")
        if hasattr(call, "model_call_details"):
            # LiteLLM handles the first failure here, and has not called back for a sync one.
            attempts.failed(call, sys.exc_info()[1])
            tried = kwargs.get("original_function") or _tried_by(name)
            kwargs["original_function"] = inside(lambda args, kwargs: _Try(call), tried, where)
        return function(*args, **kwargs)

    return retrying


def _tried_by(name: str) -> Any:
    import litellm

    return getattr(litellm, name.removesuffix("_with_retries"))
