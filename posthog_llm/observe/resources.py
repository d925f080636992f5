"""Resources that accept `posthog_*` arguments and are otherwise the SDK's own.

`client.chat.completions` is made by the SDK. Its class is then exchanged for a subclass
whose public methods take our arguments out and put them into the request's query options;
`isinstance`, signatures and docstrings stay as they were.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .arguments import carry, peel

T = TypeVar("T")
_BASES = frozenset({"SyncAPIResource", "AsyncAPIResource"})


def observed(resource: T) -> T:
    """Exchange the class of an SDK resource; anything else is returned as it is."""
    cls: Any = type(resource)
    if any(base.__name__ in _BASES for base in cls.__mro__) and not hasattr(cls, "_posthog_sdk"):
        resource.__class__ = _observed_class(cls)
    return resource


def override_properties(cls: type, namespace: dict[str, Any]) -> None:
    """Make the resource properties that `cls` inherits hand out observed resources."""
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if not name.startswith(("_", "with_")) and isinstance(found, functools.cached_property):
            namespace[name] = _observed_property(name, found)


def _observed_property(
    name: str, made_by: functools.cached_property[Any]
) -> functools.cached_property[Any]:
    prop = functools.cached_property(lambda self: observed(made_by.func(self)))
    prop.__doc__ = made_by.__doc__
    prop.attrname = name
    return prop


@functools.cache
def _observed_class(cls: Any) -> Any:
    namespace: dict[str, Any] = {
        "_posthog_sdk": cls,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    override_properties(cls, namespace)
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if not name.startswith("_") and inspect.isfunction(found):
            namespace[name] = _peeling(found)
    return type(cls.__name__, (cls,), namespace)


def _peeling(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK method so that it takes our arguments."""
    # A method without query options sends nothing itself (it calls others that do), and
    # `connect` puts its query into a websocket's address.
    code = inspect.unwrap(method).__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    carries = "extra_query" in named and method.__name__ != "connect"

    def take(kwargs: dict[str, Any]) -> None:
        arguments = peel(kwargs)
        if arguments is not None and carries:
            carry(kwargs, arguments)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def peeled_async(*args: Any, **kwargs: Any) -> Any:
            take(kwargs)
            return await method(*args, **kwargs)

        return peeled_async

    @functools.wraps(method)
    def peeled(*args: Any, **kwargs: Any) -> Any:
        take(kwargs)
        return method(*args, **kwargs)

    return peeled
