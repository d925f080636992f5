"""How LiteLLM's streams end before their end: closed by their reader, or failing midway."""

from __future__ import annotations

import functools
from typing import Any

from ..exchange import Outcome
from ..faults import guarded
from . import attempt as attempts


@guarded
def watch() -> None:
    """Note, from here on, that a stream is closed: LiteLLM says nothing of it."""
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

    aclose: Any = getattr(CustomStreamWrapper, "aclose", None)
    if callable(aclose) and not hasattr(aclose, "_posthog_llm"):
        CustomStreamWrapper.aclose = _noting(aclose)


def _noting(aclose: Any) -> Any:
    @functools.wraps(aclose)
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        _closed(stream)
        return aclose(stream, *args, **kwargs)

    noting._posthog_llm = True  # type: ignore[attr-defined]
    return noting


@guarded
def _closed(stream: Any) -> None:
    call = getattr(stream, "logging_obj", None)
    found = attempts.of(getattr(call, "model_call_details", {}))
    if found is not None and found.response is None:
        found.end(Outcome.CLOSED_EARLY)
