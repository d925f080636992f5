"""Our class of Google's client: the SDK's own modules, whose methods take our arguments.

The SDK makes its API client and its modules; their classes are replaced by subclasses. A method
that is given our arguments runs on a view of its module, which leads to a view of the API client:
that is how they reach the requests of this one call, however many there are.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._context import NOTHING, ambient, around, current, merged
from .._exchange import Arguments
from .._faults import guarded
from .._narrowing import is_dict, is_list
from . import genai
from .call_arguments import extract
from .call_queue import call_queue
from .client_arguments import ClientSettings, extract_for_client, signature
from .sdk import Opened
from .view import own_of, view

if TYPE_CHECKING:

    class _SdkClient:
        """What the mixin needs from the SDK's client, which follows it in the MRO."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        @property
        def chats(self) -> Any: ...
else:
    _SdkClient = object

_METHODS = frozenset(
    {"generate_content", "generate_content_stream", "embed_content", "generate_images"}
    | {"edit_image", "upscale_image", "recontext_image", "segment_image", "generate_videos"}
    | {"send_message", "send_message_stream"}
)
"""Methods that run a model, of models and of chats."""
_STREAMS = frozenset({"generate_content_stream", "send_message_stream"})


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


class ObservedClient(_SdkClient):
    """Mixin for the SDK's client, sync and async in one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sdk: Any = next((b for b in cls.__bases__ if not issubclass(b, ObservedClient)), None)
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
        observed: Any = self
        become(observed._api_client, _api_class)
        given.set_on(observed._api_client)
        for module in (observed._models, observed._aio._models):
            become(module, _taking_class)
        become(observed._aio, _chatting_class)

    @property
    def chats(self) -> Any:
        return _observed_chats(super().chats)


@functools.cache
def _api_class(cls: Any) -> Any:
    return _made(cls, {}, ObservedApiClient)


@functools.cache
def _chatting_class(cls: Any) -> Any:
    """Return the class of an async client whose chats take our arguments."""
    theirs = cls.chats
    return _made(cls, {"chats": property(lambda self: _observed_chats(theirs.__get__(self)))})


def _observed_chats(chats: Any) -> Any:
    return become(chats, _chats_class)


@functools.cache
def _chats_class(cls: Any) -> Any:
    @functools.wraps(cls.create)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        return become(cls.create(self, *args, **kwargs), _taking_class)

    return _made(cls, {"create": create})


def become(thing: Any, make: Callable[[Any], Any]) -> Any:
    """Replace the class of an object by the subclass that `make` makes of it."""
    cls: Any = type(thing)
    thing.__class__ = make(cls)
    return thing


def _made(cls: Any, namespace: dict[str, Any], *mixins: type) -> Any:
    """Return a subclass that looks like the SDK's class."""
    looks = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (*mixins, cls), {**looks, **namespace})


@functools.cache
def _taking_class(cls: Any) -> Any:
    """Return the class of a module, or a chat, whose methods take our arguments."""
    made = _made(cls, {})
    for name in _METHODS:
        method = inspect.getattr_static(cls, name, None)
        if inspect.isfunction(method):
            setattr(made, name, _taking(made, name, method))
    return made


def _taking(made: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK method so that it accepts our arguments.

    The method is looked up at each call: other libraries install wrappers in the SDK's classes.
    """

    def taken(module: Any, kwargs: dict[str, Any]) -> Any:
        return getattr(_above(made, given_to(module, name, extract(kwargs), kwargs)), name)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wrapped_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await taken(self, kwargs)(*args, **kwargs)

        return wrapped_async

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return taken(self, kwargs)(*args, **kwargs)

    return wrapped


def _above(made: Any, module: Any) -> Any:
    """Return a module as it was before its class was replaced."""
    return super(made, module)  # pyright: ignore[reportUnknownVariableType]


# -- from a method to its requests -----------------------------------------------------------


def given_to(module: Any, name: str, arguments: Arguments | None, kwargs: Any) -> Any:
    """Return a module, or a chat, that passes our arguments on to the requests of its method.

    All turns of automatic function calling have one trace, unless a trace id was given. A stream's
    request is sent when its first item is read, and belongs to where the method was called.
    """
    known = own_of(_api_client(module))
    if known is not None and arguments is None:
        return module  # a chat has called its model
    trace = _new_trace(module, arguments, kwargs)
    if trace is not None:
        arguments = replace(arguments or NOTHING, trace_id=trace)
    opened = _opened() if name in _STREAMS else None
    if arguments is None and opened is None:
        return module
    if known is not None:
        opened = known.opened or opened
        arguments = merged(known.arguments or NOTHING, arguments or NOTHING)
    return _with(module, genai.Given(arguments, opened))


def _api_client(module: Any) -> Any:
    return getattr(getattr(module, "_modules", module), "_api_client", None)


def _with(module: Any, given: genai.Given) -> Any:
    """Return a view of a module, or a chat, whose API client holds what was given."""
    modules = getattr(module, "_modules", None)
    if modules is not None:
        return view(module, _with(modules, given), "_modules")
    return view(module, view(module._api_client, given), "_api_client")


@guarded
def _opened() -> Opened | None:
    return Opened(around(), ambient())


@guarded
def _new_trace(module: Any, arguments: Arguments | None, kwargs: Any) -> str | None:
    """Return the id of a new trace, if a call may run functions and has no trace yet."""
    config = kwargs.get("config") or getattr(module, "_config", None)
    if config is None or not _has_functions(config):
        return None
    defaults = getattr(_api_client(module), "_posthog", NOTHING)
    given = arguments is not None and arguments.trace_id
    return None if given or current().trace_id or defaults.trace_id else str(uuid.uuid4())


def _has_functions(config: Any) -> bool:
    """Whether a configuration has tools that the SDK can run: functions, or MCP sessions."""
    tools = config.get("tools") if is_dict(config) else getattr(config, "tools", None)
    found = tools if is_list(tools) else []
    return any(not is_dict(tool) and not hasattr(tool, "model_dump") for tool in found)
