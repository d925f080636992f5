"""So that an answer's body ends with the last reference to it, and not with a garbage collection.

The SDKs' streams and the HTTP library's responses refer to themselves: a stream by the generator
that it runs, a response by its own byte stream. What the caller let go of would be captured
whenever the garbage collector comes by, which in a quiet server is never.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from .._faults import guarded


def loosen_response(response: Any) -> None:
    """Let the byte stream of an HTTP response refer to it weakly.

    It does so for one thing only: to set `elapsed` when it is closed.
    """
    holder = getattr(response.stream, "__dict__", {})
    if holder.get("_response") is response:
        holder["_response"] = _Elapsed(response)


class _Elapsed:
    """Stands for a response in its own byte stream, for as long as there is the response."""

    def __init__(self, response: Any) -> None:
        self.__dict__["_response"] = weakref.ref(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        response = self._response()
        if response is not None:
            setattr(response, name, value)


def loosening(options: Any) -> Any:
    """Return a copy of a request's options that loosens the stream made of its answer.

    The SDK gives whatever it makes of an answer to the options' `post_parser`, when it makes
    it: for a raw response that is when the caller asks.
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
    """Let a shallow copy of an SDK's stream run its generator, as the newest SDKs do themselves.

    A stream whose class has ways of its own stays as it is.
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
    """Whether `iterator` is a generator of `function` that nobody has begun to read."""
    if inspect.isasyncgen(iterator):
        # Nothing is read of one before somebody awaits, and nobody could yet.
        return iterator.ag_code is function.__code__
    if not inspect.isgenerator(iterator) or iterator.gi_code is not function.__code__:
        return False
    return inspect.getgeneratorstate(iterator) == inspect.GEN_CREATED
