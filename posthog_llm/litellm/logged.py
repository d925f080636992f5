"""What LiteLLM does with an answer before it calls back, where it calls back late or never.

It answers its caller first. What it writes into its record of the call (the cost, the answer in
one shape for all providers) it writes in a thread, or in a task that ends with the event loop.
"""

from __future__ import annotations

import contextvars
import copy
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any

from ..delivery import pending
from ..faults import guarded, is_the_programs, report

_running: set[Future[Any]] = set()
"""What LiteLLM's own threads have still to do."""


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
    twin.get_combined_callback_list = _no_callbacks
    twin.success_handler(response, cache_hit=kwargs.get("cache_hit"))
    return details


def _no_callbacks(*args: Any, **kwargs: Any) -> list[Any]:
    return []


@guarded
def watch_threads() -> None:
    """Make a flush wait for the callbacks of sync calls, which LiteLLM makes in threads."""
    from litellm.litellm_core_utils import thread_pool_executor

    executor: Any = getattr(thread_pool_executor, "executor", None)
    submit = getattr(executor, "submit", None)
    if submit is None or hasattr(submit, "_posthog_llm"):
        return
    executor.submit = _noting(submit)
    pending.before_flush.append(_wait)


def _noting(submit: Callable[..., Future[Any]]) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Future[Any]:
        future = submit(*args, **kwargs)
        _running.add(future)
        future.add_done_callback(_running.discard)
        return future

    noting._posthog_llm = True  # type: ignore[attr-defined]
    return noting


def _wait(timeout: float) -> None:
    wait(tuple(_running), timeout)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # its threads are the parent's
