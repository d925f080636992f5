"""Our class of Google's client: the SDK's own modules, whose methods take our arguments.

The SDK makes its API client and its modules; their classes are replaced by subclasses. A method
that is given our arguments runs on a view of its module, which leads to a view of the API client:
that is how they reach the requests of this one call, however many there are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._faults import guarded
from . import genai, genai_interactions
from .call_arguments import extract
from .call_queue import call_queue
from .client_arguments import ClientGiven, ClientSettings, extract_for_client, signature
from .genai_methods import METHODS, Running

if TYPE_CHECKING:

    class _SdkClient:
        """What the mixin needs from the SDK's client, which follows it in the MRO."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        @property
        def chats(self) -> Any: ...
        @property
        def interactions(self) -> Any: ...
else:
    _SdkClient = object


class ObservedApiClient(ClientSettings):
    """Mixin for the SDK's API client: everything that our client sends passes here."""

    if TYPE_CHECKING:
        _request: Any
        _async_request: Any
        _request_once: Any
        _async_request_once: Any
    else:

        def _request(self, *args: Any, **kwargs: Any) -> Any:
            return genai.request(super()._request, self, args, kwargs)

        async def _async_request(self, *args: Any, **kwargs: Any) -> Any:
            return await genai.arequest(super()._async_request, self, args, kwargs)

        def _request_once(self, *args: Any, **kwargs: Any) -> Any:
            return genai.attempt(super()._request_once, self, args, kwargs)

        async def _async_request_once(self, *args: Any, **kwargs: Any) -> Any:
            return await genai.aattempt(super()._async_request_once, self, args, kwargs)


class ObservedResource(ClientSettings):
    """Mixin for interactions, which the SDK sends past its API client."""

    if not TYPE_CHECKING:

        def do_request(self, *args: Any, **kwargs: Any) -> Any:
            return genai_interactions.request(super().do_request, self, args, kwargs)

        async def do_request_async(self, *args: Any, **kwargs: Any) -> Any:
            send = super().do_request_async
            return await genai_interactions.arequest(send, self, args, kwargs)


_SETTINGS = [name for name in vars(ClientSettings) if name.startswith("_posthog")]


class ObservedClient(_SdkClient):
    """Mixin for the SDK's client, sync and async in one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases: tuple[Any, ...] = cls.__bases__
        foreign = (base for base in bases if not issubclass(base, ObservedClient))
        sdk: Any = next((base for base in foreign if hasattr(base, "aio")), None)
        if sdk is not None:
            cls.__doc__ = cls.__doc__ or sdk.__doc__
            own: Any = cls
            own.__signature__ = signature(sdk)
        elif "__init__" in vars(cls) or "__new__" in vars(cls):
            own = cls
            own.__signature__ = None  # not the SDK's: use that of its own constructor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        call_queue.prepare()  # before the SDK makes its HTTP clients
        given = extract_for_client(kwargs)
        super().__init__(*args, **kwargs)
        _observe(self, given)

    @property
    def chats(self) -> Any:
        return _observed_chats(self, super().chats)

    @property
    def interactions(self) -> Any:
        return _observed_resource(self, super().interactions)


@guarded
def _observe(client: Any, given: ClientGiven) -> None:
    """Observe what a client of the SDK has made; its names are private ones."""
    become(client._api_client, _api_class)
    given.set_on(client._api_client)
    for module in (client._models, client._aio._models):
        become(module, _taking_class)
    become(client._aio, _async_class)


@functools.cache
def _api_class(cls: Any) -> Any:
    return _made(cls, {}, ObservedApiClient)


@functools.cache
def _async_class(cls: Any) -> Any:
    """Return the class of an async client whose chats and interactions take our arguments."""
    found: dict[str, Any] = {}
    for name, observe in (("chats", _observed_chats), ("interactions", _observed_resource)):
        if hasattr(cls, name):
            found[name] = property(functools.partial(_observed, getattr(cls, name), observe))
    return _made(cls, found)


def _observed(theirs: Any, observe: Callable[[Any, Any], Any], client: Any) -> Any:
    return observe(client, theirs.__get__(client))


def _observed_resource(client: Any, resource: Any) -> Any:
    """Have the SDK's interactions, which it makes when they are first used, take our arguments."""
    if not isinstance(resource, ClientSettings):
        _observe_resource(client, resource)
    return resource


@guarded
def _observe_resource(client: Any, resource: Any) -> None:
    if hasattr(resource, "sdk_configuration"):  # else it is of an SDK before 2.0
        for name in _SETTINGS:
            setattr(resource, name, getattr(client._api_client, name))
        become(resource, _resource_class)


@functools.cache
def _resource_class(cls: Any) -> Any:
    """Return the class of a resource that is observed, and whose methods take our arguments."""
    made = _made(cls, {}, ObservedResource)
    for name in ("create", "get", "cancel"):
        method = inspect.getattr_static(cls, name, None)
        if inspect.isfunction(method):
            setattr(made, name, _taking(made, name, method))
    return made


def _observed_chats(client: Any, chats: Any) -> Any:
    return _guarded_become(chats, _chats_class) or chats


@functools.cache
def _chats_class(cls: Any) -> Any:
    @functools.wraps(cls.create)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        chat = cls.create(self, *args, **kwargs)
        return _guarded_become(chat, _taking_class) or chat

    return _made(cls, {"create": create})


def become(thing: Any, make: Callable[[Any], Any]) -> Any:
    """Replace the class of an object by the subclass that `make` makes of it."""
    cls: Any = type(thing)  # pyright: ignore[reportUnknownVariableType]
    thing.__class__ = make(cls)
    return thing


_guarded_become = guarded(become)


def _made(cls: Any, namespace: dict[str, Any], *mixins: type) -> Any:
    """Return a subclass that looks like the SDK's class."""
    looks = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (*mixins, cls), {**looks, **namespace})


@functools.cache
def _taking_class(cls: Any) -> Any:
    """Return the class of a module, or a chat, whose methods take our arguments."""
    made = _made(cls, {})
    for name in METHODS:
        method = inspect.getattr_static(cls, name, None)
        if inspect.isfunction(method):
            setattr(made, name, _taking(made, name, method))
    return made


def _taking(made: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK method so that it accepts our arguments.

    The method is looked up at each call: other libraries install wrappers in the SDK's classes.
    """

    def bound(module: Any) -> Any:
        return getattr(_above(made, module), name)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wrapped_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            running = Running(self, name, extract(kwargs), kwargs)
            return running.answered(await bound(running.module)(*args, **kwargs))

        return wrapped_async

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        running = Running(self, name, extract(kwargs), kwargs)
        return running.answered(bound(running.module)(*args, **kwargs))

    return wrapped


def _above(made: Any, module: Any) -> Any:
    """Return a module as it was before its class was replaced."""
    return super(made, module)  # pyright: ignore[reportUnknownVariableType]
