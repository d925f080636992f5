"""For code that creates its own clients: the same seam, installed in the SDKs' own classes."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import wrapt

from ._checks import checked
from ._context import NOTHING
from ._exchange import Arguments
from ._faults import guarded
from ._observe import around, seam
from ._observe.call_queue import call_queue
from ._observe.client import ObservedClient
from ._settings import note_instrumented

_SETTINGS = ("_posthog_stream_usage", "_posthog_redact", "_posthog_openrouter")
_VERBS = ("get", "post", "put", "patch", "delete")
_undo: dict[str, list[Callable[[], object]]] = {}
"""Steps that remove our seam from an SDK, by its name; every watched SDK has an entry."""
_leaving: dict[str, list[Callable[[], object]]] = {}
"""Steps to run when the calls that have begun are over."""
_hooked: set[str] = set()
_defaults: Arguments = NOTHING
_changing = threading.RLock()
"""Held while our seam is installed or removed; never while a module is imported."""


def instrument(posthog_client: Any = None, *, openai: bool = True, anthropic: bool = True) -> None:
    """Capture the calls of every SDK client, including those that frameworks and libraries create.

        posthog_llm.instrument()

    This includes existing clients; calls of our own clients are still captured only once. The SDKs
    are never imported for this, but instrumented when the program imports them. `context`, `trace`
    and `span` set the identity. Calling it again changes the destination. `uninstrument` undoes it.

    - `posthog_client`: where events go, including those of `trace` and `span`; `None`: as set in
      the environment.
    - `openai`, `anthropic`: which SDKs to instrument.

    Raises `TypeError` for a `posthog_client` without a `capture` method.
    """
    global _defaults
    client = checked("posthog_client", "client", posthog_client)
    _defaults = Arguments(client=client)
    note_instrumented(client)
    call_queue.prepare()
    if client is not None:
        call_queue.attach(client)
    for name, wanted in (("openai", openai), ("anthropic", anthropic)):
        if wanted:
            _watch(name)


def _watch(name: str) -> None:
    with _changing:
        is_new = name not in _undo
        if is_new:
            _undo[name] = _leaving.pop(name, [])
    if is_new and sys.modules.get(name) is not None:
        _put_in_imported(name)
    elif is_new and name not in _hooked:
        _hooked.add(name)
        wrapt.when_imported(name)(_put_in)


def uninstrument() -> None:
    """Undo `instrument`: the SDKs are as they were before.

    If another library has wrapped our seam since, the seam stays and does nothing. Calls that have
    begun are observed to their end, and then the seam is removed.
    """
    note_instrumented(None)
    with _changing:
        _leaving.update(_undo)
        _undo.clear()  # from here on, new calls bypass our seam, in other threads, too
        around.running.then = _take_out
    _take_out()


@guarded
def _take_out() -> None:
    with _changing:
        if around.running or not _leaving:
            return
        around.running.then = None
        undone = [step for steps in _leaving.values() for step in reversed(steps)]
        _leaving.clear()
        _run_all(undone)


def _run_all(steps: list[Callable[[], object]]) -> None:
    """Run each step, even if a signal handler raises during one of them."""
    raised: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: PERF203 - each step is to be run
            raised = error
    if raised is not None:
        raise raised


@guarded
def _put_in_imported(name: str) -> None:
    # Another thread may be in the middle of its import: this waits until it is done.
    _put_in(importlib.import_module(name))


@guarded
def _put_in(sdk: Any) -> None:
    call_queue.prepare()  # some of it depends on which SDK is there
    with _changing:
        _put_around(sdk)


def _put_around(sdk: Any) -> None:
    steps = _undo.get(sdk.__name__)
    if steps is None or steps:  # `uninstrument` was called meanwhile, or it is done
        return
    base = sdk._base_client
    put = functools.partial(around.put, steps, functools.partial(_is_off, sdk.__name__))
    goes_on = functools.partial(around.put, steps, _is_ours)  # depends on what `request` has begun
    goes_on(base.BaseClient, "_build_request", _build_request)
    for cls, request, sends in (
        (base.SyncAPIClient, _request, seam.request),
        (base.AsyncAPIClient, _arequest, seam.arequest),
    ):
        waits = sends is seam.arequest
        put(cls, "request", request, waits)
        goes_on(cls, "_process_response", _process_response, waits)
        for verb in _VERBS:
            put(cls, verb, functools.partial(_verb, sends), waits)
        for own in _subclasses(cls):
            if "request" in vars(own):
                put(own, "request", functools.partial(_others_request, sends), waits)
        for name in _SETTINGS:
            _set(steps, cls, name, getattr(ObservedClient, name))
        _set(steps, cls, "_posthog", _Settings())


class _Settings:
    """The defaults of clients that are not ours: the latest arguments of `instrument`."""

    def __get__(self, client: Any, owner: Any) -> Arguments:
        return _defaults


def _is_off(sdk: str, client: Any) -> bool:
    return sdk not in _undo or _is_ours(client)


def _is_ours(client: Any) -> bool:
    return isinstance(client, ObservedClient)


def _subclasses(cls: Any) -> Iterator[Any]:
    for found in cls.__subclasses__():
        if not issubclass(found, ObservedClient):
            yield found
            yield from _subclasses(found)


def _set(steps: list[Callable[[], object]], cls: Any, name: str, value: Any) -> None:
    steps.append(lambda: delattr(cls, name) if name in vars(cls) else None)
    setattr(cls, name, value)


def _request(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    if not _has_options(args, kwargs):
        return send(*args, **kwargs)  # the SDK's own `TypeError`
    return seam.request(client, _options(args, kwargs), lambda: send(*args, **kwargs))


def _arequest(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    if not _has_options(args, kwargs):
        return send(*args, **kwargs)  # as above
    return seam.arequest(client, _options(args, kwargs), lambda: send(*args, **kwargs))


def _others_request(observed: Any, send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """Observe around what another library, or a subclass, put in place of `request`."""
    if not _has_options(args, kwargs):
        return send(*args, **kwargs)  # as above
    return observed(client, _options(args, kwargs), lambda: send(*args, **kwargs), late=True)


def _verb(observed: Any, send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """Observe around `post`, for a client whose own `request` was replaced."""
    if not args and "path" not in kwargs:
        return send(**kwargs)  # as above
    early = seam.EarlyRequest(args[0] if args else kwargs["path"], kwargs.get("body"))
    return observed(client, early, lambda: send(*args, **kwargs), late=True)


def _has_options(args: Any, kwargs: Any) -> bool:
    return len(args) > 1 or "options" in kwargs


def _options(args: Any, kwargs: Any) -> Any:
    return args[1] if len(args) > 1 else kwargs["options"]


def _build_request(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    options = args[0] if args else kwargs["options"]
    return seam.build_request(client, options, lambda: send(*args, **kwargs))


def _process_response(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    return send(*args, **seam.see_response(client, kwargs["response"], kwargs))
