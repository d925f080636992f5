"""For code that makes its own clients: the same seam, put into the SDKs' own classes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import wrapt

from .checks import checked
from .context import NOTHING
from .exchange import Arguments
from .observe import seam
from .observe.client import ObservedClient
from .observe.outbox import outbox
from .settings import note_instrumented

_SETTINGS = ("_posthog_stream_usage", "_posthog_redact", "_posthog_openrouter")
_undo: dict[str, list[Callable[[], object]]] = {}
"""What takes our seam out of an SDK again, by its name; an SDK that is watched has an entry."""
_hooked: set[str] = set()
_defaults: Arguments = NOTHING


def instrument(posthog_client: Any = None, *, openai: bool = True, anthropic: bool = True) -> None:
    """Tell of the calls of every client of the SDKs, whoever makes it: frameworks, libraries.

        posthog_llm.instrument()

    Clients that exist already are watched, too; clients of ours are told once, as before. An
    SDK is never imported for it: it is watched once the program imports it. `context`, `trace`
    and `span` say who asks. Calling it again changes the destination. `uninstrument` undoes it.

    - `posthog_client`: where events go, those of `trace` and `span` included; `None`: where the
      environment says.
    - `openai`, `anthropic`: which SDKs.

    Raises `TypeError` for a `posthog_client` without a `capture` method.
    """
    global _defaults
    client = checked("posthog_client", "client", posthog_client)
    _defaults = Arguments(client=client)
    note_instrumented(client)
    if client is not None:
        outbox.attach(client)
    for name, wanted in (("openai", openai), ("anthropic", anthropic)):
        if wanted and name not in _undo:
            _undo[name] = []
            if name in _hooked and name in sys.modules:
                _put_in(sys.modules[name])
            elif name not in _hooked:
                _hooked.add(name)
                wrapt.when_imported(name)(_put_in)


def uninstrument() -> None:
    """Undo `instrument`: the SDKs are as they were."""
    note_instrumented(None)
    for steps in _undo.values():
        for step in reversed(steps):
            step()
    _undo.clear()


def _put_in(sdk: Any) -> None:
    steps = _undo.get(sdk.__name__)
    if steps is None:  # `uninstrument` was called before the SDK was imported
        return
    base = sdk._base_client
    _wrap(steps, base.BaseClient, "_build_request", _build_request)
    for cls, request in ((base.SyncAPIClient, _request), (base.AsyncAPIClient, _arequest)):
        _wrap(steps, cls, "request", request)
        _wrap(steps, cls, "_process_response", _process_response)
        for name in _SETTINGS:
            _set(steps, cls, name, getattr(ObservedClient, name))
        _set(steps, cls, "_posthog", _Settings())


class _Settings:
    """The defaults of clients that are not ours: what `instrument` was told last."""

    def __get__(self, client: Any, owner: Any) -> Arguments:
        return _defaults


def _wrap(steps: list[Callable[[], object]], cls: Any, name: str, wrapper: Any) -> None:
    _set(steps, cls, name, wrapt.FunctionWrapper(cls.__dict__[name], wrapper))


def _set(steps: list[Callable[[], object]], cls: Any, name: str, value: Any) -> None:
    before = cls.__dict__.get(name)
    undo = (lambda: delattr(cls, name)) if before is None else (lambda: setattr(cls, name, before))
    steps.append(undo)
    setattr(cls, name, value)


def _request(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(client, ObservedClient):
        return wrapped(*args, **kwargs)
    return seam.request(client, _options(args, kwargs), lambda: wrapped(*args, **kwargs))


def _arequest(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(client, ObservedClient):
        return wrapped(*args, **kwargs)
    return seam.arequest(client, _options(args, kwargs), lambda: wrapped(*args, **kwargs))


def _options(args: Any, kwargs: Any) -> Any:
    return args[1] if len(args) > 1 else kwargs["options"]


def _build_request(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    options = args[0] if args else kwargs["options"]
    if isinstance(client, ObservedClient):
        return wrapped(*args, **kwargs)
    return seam.build_request(options, lambda: wrapped(*args, **kwargs))


def _process_response(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    if not isinstance(client, ObservedClient):
        seam.see_response(kwargs["response"])
    return wrapped(*args, **kwargs)
