"""Resources that accept `posthog_*` arguments and are otherwise the SDK's own.

`client.chat.completions` is made by the SDK. Its class is then replaced by a subclass whose
public methods extract our arguments and attach them to the request's query options, and which
detaches them where the resource calls its client. `isinstance`, signatures and docstrings stay
unchanged.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeGuard, TypeVar

from .._context import NOTHING, current
from .._exchange import Arguments
from .call_arguments import attach, detach, extract
from .passing import Given, Path, is_given

T = TypeVar("T")
_BASES = frozenset({"SyncAPIResource", "AsyncAPIResource"})
_VERBS = ("_get", "_post", "_put", "_patch", "_delete")
_LISTING = "_get_api_list"


def observed(resource: T) -> T:
    """Replace the class of an SDK resource; anything else is returned unchanged."""
    cls: Any = type(resource)
    if any(base.__name__ in _BASES for base in cls.__mro__) and not hasattr(cls, "_posthog_sdk"):
        resource.__class__ = _observed_class(cls)
    return resource


def observe_attributes(client: Any) -> None:
    """Upgrade the resources that some clients make in their constructors."""
    attributes: dict[str, Any] = client.__dict__
    for name, value in list(attributes.items()):  # sets nothing: a setter may be the application's
        if not name.startswith("with_"):
            observed(value)
    for name in ("with_raw_response", "with_streaming_response"):
        if name in attributes:  # it holds the resources' original methods
            setattr(client, name, type(attributes[name])(client))


def override_properties(cls: type, namespace: dict[str, Any]) -> None:
    """Make the resource properties that `cls` inherits return observed resources."""
    for name in dir(cls):
        found: Any = inspect.getattr_static(cls, name)
        if not name.startswith(("_", "with_")) and _is_made_once(found):
            namespace[name] = _ObservedProperty(cls, name, found)


def _is_made_once(found: object) -> TypeGuard[functools.cached_property[Any]]:
    return isinstance(found, functools.cached_property)


class _ObservedProperty(functools.cached_property[Any]):
    """A resource property of the SDK's class whose resource is observed.

    It gives way to whatever a test, or another library, has put in the SDK's class since.
    """

    def __init__(self, sdk: Any, name: str, theirs: functools.cached_property[Any]) -> None:
        super().__init__(lambda holder: observed(theirs.func(holder)))
        self.__doc__, self.attrname = theirs.__doc__, name
        self._sdk, self._theirs = sdk, theirs

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        found: Any = inspect.getattr_static(self._sdk, str(self.attrname))
        if found is self._theirs:
            return super().__get__(instance, owner)
        return found.__get__(instance, owner) if hasattr(found, "__get__") else found


@functools.cache
def _observed_class(cls: Any) -> Any:
    namespace: dict[str, Any] = {
        "_posthog_sdk": cls,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    override_properties(cls, namespace)
    is_async = any(base.__name__ == "AsyncAPIResource" for base in cls.__mro__)
    for name in _VERBS:
        namespace[name] = _Verb(name, is_async)
    namespace[_LISTING] = _Verb(_LISTING, is_async=False)  # async ones return an awaitable page
    made: Any = type(cls.__name__, (cls,), namespace)
    made.__reduce_ex__ = _reducing(made)
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if not name.startswith("_") and inspect.isfunction(found) and _takes_arguments(found):
            setattr(made, name, _extracting(made, name, found))
    return made


def _above(made: Any, resource: Any) -> Any:
    """Return a resource as it was before its class was replaced."""
    return super(made, resource)  # pyright: ignore[reportUnknownVariableType]


def _reducing(made: Any) -> Callable[..., Any]:
    """Let `copy` and `pickle` reduce a resource whose class has the name of the SDK's class."""

    def reduce(self: Any, protocol: Any) -> Any:
        parts: tuple[Any, ...] = _above(made, self).__reduce_ex__(protocol)
        return (_unmade, (made._posthog_sdk,), *parts[2:]) if made in parts[1] else parts

    return reduce


def _unmade(cls: Any) -> Any:
    """Return an empty observed resource."""
    made = _observed_class(cls)
    return made.__new__(made)


def _takes_arguments(method: Callable[..., Any]) -> bool:
    """Whether a method can pass our arguments on.

    A method without query options sends nothing itself, and `connect` puts its query into the URL
    of a websocket.
    """
    code = inspect.unwrap(method).__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return "extra_query" in named and method.__name__ != "connect"


def _extracting(made: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK method so that it accepts our arguments.

    The method is looked up at each call, and bound: other libraries install wrappers in the SDK's
    classes, before or after us, which must run and must receive the instance.
    """

    def taken(resource: Any, kwargs: dict[str, Any]) -> Any:
        arguments = extract(kwargs)
        if name == "tool_runner":
            arguments = _in_one_trace(resource, arguments or NOTHING)
        if arguments is not None:
            attach(kwargs, arguments)
        return getattr(_above(made, resource), name)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wrapped_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await taken(self, kwargs)(*args, **kwargs)

        return wrapped_async

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return taken(self, kwargs)(*args, **kwargs)

    return wrapped


def _in_one_trace(resource: Any, arguments: Arguments) -> Arguments:
    """Give all turns of a tool runner one trace, unless a trace id was given."""
    defaults = getattr(resource._client, "_posthog", NOTHING)
    if arguments.trace_id or current().trace_id or defaults.trace_id:
        return arguments
    return replace(arguments, trace_id=str(uuid.uuid4()))


class _Verb:
    """A resource's method of its client (`_post`): the last place that only the SDK sees.

    The SDK stores the client's bound method in the resource, where it stays. This property can be
    set and deleted like the attribute, so that it can be replaced, copied and restored.
    """

    def __init__(self, name: str, is_async: bool) -> None:
        self._name = name
        self._send = _asend if is_async else _send

    def __get__(self, resource: Any, owner: Any) -> Any:
        if resource is None or self._name not in resource.__dict__:
            raise AttributeError(self._name)
        return functools.partial(self._send, resource._client, resource.__dict__[self._name])

    def __set__(self, resource: Any, value: Any) -> None:
        resource.__dict__[self._name] = value

    def __delete__(self, resource: Any) -> None:
        if resource.__dict__.pop(self._name, self) is self:
            raise AttributeError(self._name)


def _send(client: Any, verb: Callable[..., Any], path: str, **kwargs: Any) -> Any:
    arguments = detach(kwargs)
    if arguments is None and not is_given():
        return verb(path, **kwargs)
    given = Given(client, path, arguments)
    try:
        with given:
            return verb(Path.of(given, path), **kwargs)
    except BaseException as error:
        given.leave(error)
        raise


def _asend(client: Any, verb: Callable[..., Any], path: str, **kwargs: Any) -> Any:
    arguments = detach(kwargs)
    if arguments is None and not is_given():
        return verb(path, **kwargs)
    return _awaited(Given(client, path, arguments), verb, path, kwargs)


async def _awaited(given: Given, verb: Callable[..., Any], path: str, kwargs: Any) -> Any:
    try:
        with given:
            return await verb(Path.of(given, path), **kwargs)
    except BaseException as error:
        given.leave(error)
        raise
