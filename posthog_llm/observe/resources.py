"""Resources that accept `posthog_*` arguments and are otherwise the SDK's own.

`client.chat.completions` is made by the SDK. Its class is then exchanged for a subclass
whose public methods take our arguments out and put them into the request's query options;
`isinstance`, signatures and docstrings stay as they were.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeGuard, TypeVar

from ..context import NOTHING, current
from ..exchange import Arguments
from .arguments import carry, peel

T = TypeVar("T")
_BASES = frozenset({"SyncAPIResource", "AsyncAPIResource"})


def observed(resource: T) -> T:
    """Exchange the class of an SDK resource; anything else is returned as it is."""
    cls: Any = type(resource)
    if any(base.__name__ in _BASES for base in cls.__mro__) and not hasattr(cls, "_posthog_sdk"):
        resource.__class__ = _observed_class(cls)
    return resource


def observe_attributes(client: Any) -> None:
    """Upgrade the resources that some clients make in their constructors."""
    attributes: dict[str, Any] = client.__dict__
    for name, value in list(attributes.items()):
        if not name.startswith("with_"):
            setattr(client, name, observed(value))
    for name in ("with_raw_response", "with_streaming_response"):
        if name in attributes:  # it holds the resources' methods as they were
            setattr(client, name, type(attributes[name])(client))


def override_properties(cls: type, namespace: dict[str, Any]) -> None:
    """Make the resource properties that `cls` inherits hand out observed resources."""
    for name in dir(cls):
        found: Any = inspect.getattr_static(cls, name)
        if not name.startswith(("_", "with_")) and _is_made_once(found):
            namespace[name] = _observed_property(name, found)


def _is_made_once(found: object) -> TypeGuard[functools.cached_property[Any]]:
    return isinstance(found, functools.cached_property)


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
        if not name.startswith("_") and inspect.isfunction(found) and _carries(found):
            namespace[name] = _peeling(found)
    return type(cls.__name__, (cls,), namespace)


def _carries(method: Callable[..., Any]) -> bool:
    """Tell whether a method can hand our arguments on.

    One without query options sends nothing itself, and `connect` puts its query into the
    address of a websocket.
    """
    code = inspect.unwrap(method).__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return "extra_query" in named and method.__name__ != "connect"


def _peeling(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK method so that it takes our arguments."""

    def take(resource: Any, kwargs: dict[str, Any]) -> None:
        arguments = peel(kwargs)
        if method.__name__ == "tool_runner":
            arguments = _in_one_trace(resource, arguments or NOTHING)
        if arguments is not None:
            carry(kwargs, arguments)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def peeled_async(*args: Any, **kwargs: Any) -> Any:
            take(args[0], kwargs)
            return await method(*args, **kwargs)

        return peeled_async

    @functools.wraps(method)
    def peeled(*args: Any, **kwargs: Any) -> Any:
        take(args[0], kwargs)
        return method(*args, **kwargs)

    return peeled


def _in_one_trace(resource: Any, arguments: Arguments) -> Arguments:
    """Give all turns of a tool runner one trace, where nobody named one."""
    defaults = getattr(resource._client, "_posthog", NOTHING)
    if arguments.trace_id or current().trace_id or defaults.trace_id:
        return arguments
    return replace(arguments, trace_id=str(uuid.uuid4()))
