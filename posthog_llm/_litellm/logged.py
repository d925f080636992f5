"""Does what LiteLLM does with a response before it calls back, in case it is late or never does.

LiteLLM returns to its caller first. It adds to its record of the call (the cost, and the response
in one shape for all providers) in a thread, or in a task that ends with the event loop.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Mapping
from typing import Any

from .._faults import is_the_programs, report

_NAMES = frozenset({"model", "call_type", "optional_params", "litellm_params"})
"""What LiteLLM also keeps on its call object."""


def as_logged(call: Any, kwargs: Mapping[str, Any], response: Any) -> tuple[Mapping[str, Any], Any]:
    """Return LiteLLM's record of a finished call, and the response, as a callback gets them.

    LiteLLM's own code completes a copy of its record, without any callbacks to run. If that fails,
    the record is returned as it is.
    """
    if call is None:
        return kwargs, response
    try:
        details = contextvars.copy_context().run(_complete, call, kwargs, response)
    except Exception as error:  # LiteLLM names that another version may not have
        if is_the_programs(error):
            raise
        report("as_logged", error)
        return kwargs, response
    return details, details.get("complete_streaming_response") or response


def _complete(call: Any, kwargs: Mapping[str, Any], response: Any) -> dict[str, Any]:
    twin = copy.copy(call)
    twin.model_call_details = details = dict(kwargs)
    for name in _NAMES & details.keys():  # the gateway may have overwritten them
        setattr(twin, name, details[name])
    twin.get_combined_callback_list = _no_callbacks
    twin.success_handler(response, cache_hit=kwargs.get("cache_hit"))
    return details


def _no_callbacks(*args: Any, **kwargs: Any) -> list[Any]:
    return []
