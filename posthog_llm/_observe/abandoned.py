"""Makes an abandoned response body end with its last reference, not with a garbage collection.

The SDKs' streams and the HTTP library's responses are reference cycles: a stream through the
generator that it runs, a response through its own byte stream. An abandoned response would be
captured only when the garbage collector runs, which in a quiet server is never.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from .._faults import guarded


def loosen_response(response: Any) -> None:
    """Make the byte stream of an HTTP response refer to it weakly.

    The stream needs the response only to set `elapsed` when it is closed.
    """
    holder = getattr(response.stream, "__dict__", {})
    if holder.get("_response") is response:
        holder["_response"] = _Elapsed(response)


class _Elapsed:
    """A weak replacement for a response in its own byte stream."""

    def __init__(self, response: Any) -> None:
        self.__dict__["_response"] = weakref.ref(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        response = self._response()
        if response is not None:
            setattr(response, name, value)


def loosening(options: Any) -> Any:
    """Return a copy of a request's options that loosens the stream made from its response.

    The SDK passes each parsed response to the options' `post_parser`: for a raw response, when the
    caller parses it.
    """
    theirs: Callable[[Any], Any] | object = options.post_parser

    def parsed(answer: Any) -> Any:
        _loosen(answer)
        return theirs(answer) if callable(theirs) else answer

    loosened = copy.copy(options)
    loosened.post_parser = parsed
    return loosened


@guarded
def _loosen(stream: Any) -> None:
    """Make a shallow copy of an SDK's stream run its generator, as the newest SDKs do themselves.

    A stream of a class with its own iteration is left unchanged.
    """
    cls: Any = type(stream)  # pyright: ignore[reportUnknownVariableType]
    iterator = getattr(stream, "__dict__", {}).get("_iterator")
    if iterator is None or not _is_the_sdks(cls) or not _is_new(iterator, cls.__stream__):
        return
    twin = object.__new__(cls)
    twin.__dict__.update(stream.__dict__)
    del twin.__dict__["_iterator"]
    stream._iterator = twin.__stream__()


def _is_the_sdks(cls: Any) -> bool:
    own = [getattr(cls, name, None) for name in ("__stream__", "_iter_events")]
    modules = [getattr(function, "__module__", "") for function in own]
    sdks = all(module in ("openai._streaming", "anthropic._streaming") for module in modules)
    return sdks and not hasattr(cls, "__del__")


def _is_new(iterator: Any, function: Any) -> bool:
    """Whether `iterator` is a generator of `function` that has not been started."""
    if inspect.isasyncgen(iterator):
        # Nothing is read before the first await, which cannot have happened yet.
        return iterator.ag_code is function.__code__
    if not inspect.isgenerator(iterator) or iterator.gi_code is not function.__code__:
        return False
    return inspect.getgeneratorstate(iterator) == inspect.GEN_CREATED
