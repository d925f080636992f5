"""What LiteLLM does with an answer before it calls back, where it calls back late or never.

It answers its caller first. What it writes into its record of the call (the cost, the answer in
one shape for all providers) it writes in a thread, or in a task that ends with the event loop.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Mapping
from typing import Any

from .._faults import is_the_programs, report

_NAMES = frozenset({"model", "call_type", "optional_params", "litellm_params"})
"""What LiteLLM keeps on its object of a call, too."""


def as_logged(call: Any, kwargs: Mapping[str, Any], response: Any) -> tuple[Mapping[str, Any], Any]:
    """Return LiteLLM's record of an answered call, and the answer, as a callback gets them.

    LiteLLM's own code completes a copy of its record, and is given no callbacks to call. Where
    it cannot, the record is returned as it is.
    """
    if call is None:
        return kwargs, response
    try:
        details = contextvars.copy_context().run(_complete, call, kwargs, response)
    except Exception as error:  # names of LiteLLM's that another version may not have
        if is_the_programs(error):
            raise
        report("as_logged", error)
        return kwargs, response
    return details, details.get("complete_streaming_response") or response


def _complete(call: Any, kwargs: Mapping[str, Any], response: Any) -> dict[str, Any]:
    twin = copy.copy(call)
    twin.model_call_details = details = dict(kwargs)
    for name in _NAMES & details.keys():  # the gateway may have written its own over them
        setattr(twin, name, details[name])
    twin.get_combined_callback_list = _no_callbacks
    twin.success_handler(response, cache_hit=kwargs.get("cache_hit"))
    return details


def _no_callbacks(*args: Any, **kwargs: Any) -> list[Any]:
    return []
