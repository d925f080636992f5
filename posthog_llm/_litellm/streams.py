"""How LiteLLM's streams end before their end: closed by their reader, or failing midway."""

from __future__ import annotations

import functools
import inspect
from types import CodeType
from typing import Any

from .._exchange import Outcome
from .._faults import guarded
from . import attempt as attempts

_READING = ("__anext__", "_finalize_completed_stream")
"""Methods of LiteLLM's stream that read it, and close it at its end."""


@guarded
def watch() -> None:
    """Note, from here on, that a stream is closed: LiteLLM says nothing of it."""
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

    aclose: Any = getattr(CustomStreamWrapper, "aclose", None)
    if callable(aclose) and not hasattr(aclose, "_posthog_llm"):
        CustomStreamWrapper.aclose = _noting(aclose, _codes_of_reading(CustomStreamWrapper))


def _codes_of_reading(stream: Any) -> frozenset[CodeType]:
    """Return the code that reads a stream, which closes it at its end, too."""
    methods = (getattr(stream, name, None) for name in _READING)
    return frozenset(m.__code__ for m in methods if m is not None)


def _noting(aclose: Any, reading: frozenset[CodeType]) -> Any:
    @functools.wraps(aclose)
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        # LiteLLM closes a stream that fails before it says so, and leaves nothing else by which
        # to tell that from its reader's `aclose()` than who calls.
        here = inspect.currentframe()
        caller = here.f_back if here is not None else None
        _closed(stream, by_itself=caller is not None and caller.f_code in reading)
        return aclose(stream, *args, **kwargs)

    noting._posthog_llm = True  # type: ignore[attr-defined]
    return noting


@guarded
def _closed(stream: Any, *, by_itself: bool) -> None:
    """Note that a stream was closed; one that closes itself says next how it ended."""
    call = getattr(stream, "logging_obj", None)
    if parked := getattr(call, "_deferred_stream_complete_args", None):
        attempts.note_response(call, parked[0])  # to be told after the gateway's guardrails
        return
    found = attempts.of(getattr(call, "model_call_details", {}))
    if not by_itself and found is not None and found.response is None:
        found.end(Outcome.CLOSED_EARLY)
