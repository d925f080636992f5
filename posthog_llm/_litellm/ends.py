"""Notes how LiteLLM calls end, as soon as LiteLLM knows: it calls back later, or never.

Its callbacks run in a thread, after others that may be slow, or in a task that ends with the event
loop. So the response is noted on its way there.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from .._delivery.worker import before_flush
from .._faults import guarded
from . import attempt as attempts
from .wrapping import wrap

_SUCCESS = frozenset({"dispatch_success_handlers", "async_success_handler", "success_handler"})
_FAILURE = frozenset({"dispatch_failure_handlers", "async_failure_handler", "failure_handler"})
"""Methods of LiteLLM's call object, by what they mean."""
_CACHE_HIT = 3
"""Position of `cache_hit` among the arguments of the first kind."""
_running: set[Future[Any]] = set()
"""Jobs that LiteLLM's own threads have not finished."""


@guarded
def watch() -> None:
    """Note how calls end, from now on."""
    from litellm.litellm_core_utils import litellm_logging, thread_pool_executor

    kind: Any = getattr(litellm_logging, "Logging", None)
    for name in sorted(_SUCCESS | _FAILURE):
        # The others run when LiteLLM has submitted them to a thread: too late to note them.
        if "_handlers" in name or name.startswith("async_"):
            wrap(kind, name, _noting)
    executor: Any = getattr(thread_pool_executor, "executor", None)
    if wrap(executor, "submit", _noting_jobs):
        before_flush.append(_wait)


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    def noting(call: Any, *args: Any, **kwargs: Any) -> Any:
        _note(call, method.__name__, args, kwargs)
        return method(call, *args, **kwargs)

    return noting


def _noting_jobs(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def noting(*args: Any, **kwargs: Any) -> Future[Any]:
        _note_job(args, kwargs)
        future = submit(*args, **kwargs)
        _running.add(future)
        future.add_done_callback(_running.discard)
        return future

    return noting


@guarded
def _note_job(job: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if isinstance(getattr(job[0], "__self__", None), contextvars.Context):  # its `run`
        job = job[1:]
    call, name = getattr(job[0], "__self__", None), getattr(job[0], "__name__", "")
    _note(call, name, job[1:], kwargs)


@guarded
def _note(call: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if name in _SUCCESS:
        result = args[0] if args else kwargs.get("result")
        hit = args[_CACHE_HIT] if len(args) > _CACHE_HIT else kwargs.get("cache_hit")
        attempts.note_response(call, result, is_cache_hit=hit is True)
    elif name in _FAILURE:
        attempts.failed(call, args[0] if args else kwargs.get("exception"))


def _wait(timeout: float) -> None:
    """Give LiteLLM's threads a short time to call back."""
    wait(tuple(_running), timeout)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # its threads belong to the parent
