"""Google's SDK (google-genai): its API client sends every request, and reads every stream.

One call passes `_request`, and each of its attempts `_request_once`. A stream is noted where the
SDK has split it into events, above whichever HTTP library reads it.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import MethodType
from typing import Any, NamedTuple

from .._exchange import Arguments
from .._faults import guarded
from .._narrowing import is_list, is_mapping
from . import genai_interactions, seam
from .around import Installer
from .body import Watch
from .call import Call
from .genai_methods import METHODS, Given, Running
from .passing import underway
from .sdk import Draft, Received, Sent
from .view import own_of

_WATCH = "_posthog_watch"


class Asked(NamedTuple):
    """A request as the API client is asked for it."""

    request: Any
    """The SDK's `HttpRequest`, whose `data` is the body before it is serialized."""
    streamed: bool
    given: Given | None
    """What the method was given that makes the request."""


class GenAI:
    """Google's SDK; see `Sdk`. `client` is its API client, `options` an `Asked`."""

    def draft(self, options: Asked) -> Draft:
        request = options.request
        path, model = _endpoint(str(request.url), request.data)
        opened = options.given.opened if options.given else None
        return Draft(request.method, path, request.data, options.streamed, model, opened)

    def detach(self, options: Asked) -> Arguments | None:
        return options.given.arguments if options.given else None

    def base_url(self, client: Any) -> Any:
        return client._http_options.base_url or ""

    def injector(self, client: Any) -> None:
        return None  # every stream reports its usage

    def sent(self, request: Any, options: Asked) -> Sent:
        data = request.data
        content = data if isinstance(data, bytes) else json.dumps(data).encode() if data else None
        return Sent(request.headers, request.url, content)

    def received(self, response: Any) -> Received:
        headers = {str(name).lower(): value for name, value in response.headers.items()}
        found = response.response_stream
        content = _joined(found) if is_list(found) else None
        return Received(response.status_code, headers, content)

    def requests_behind(self, source: Any) -> list[Any]:
        return []  # the SDK sends what it built, and the HTTP library's requests are out of reach

    def install(self, module: Any, installer: Installer) -> None:
        cls = module._api_client.BaseApiClient
        installer.wrap(cls, "_request_once", attempt, is_below=True)
        installer.wrap(cls, "_async_request_once", aattempt, True, is_below=True)
        installer.set_defaults(cls)  # first: another thread may be calling
        installer.wrap(cls, "_request", request)
        installer.wrap(cls, "_async_request", arequest, True)
        classes = (module.models.Models, module.models.AsyncModels)
        for owner in (*classes, module.chats.Chat, module.chats.AsyncChat):
            _install_methods(owner, installer)
        genai_interactions.SDK.install(module, installer)


SDK = GenAI()


def _install_methods(owner: Any, installer: Installer) -> None:
    """Wrap the methods that run a model, of a module's class or a chat's."""
    own: dict[str, Any] = owner.__dict__
    for name in sorted(METHODS & own.keys()):
        waits = inspect.iscoroutinefunction(inspect.unwrap(own[name]))
        observe = functools.partial(_amethod if waits else _method, name)
        installer.wrap(owner, name, observe, waits)


def request(send: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """Observe around `_request`, which sends one request, retries included."""
    asked = _asked(client, args, kwargs)
    if asked is None:
        return send(*args, **kwargs)  # the SDK's own `TypeError`
    return seam.request(SDK, client, asked, lambda: send(*args, **kwargs))


async def arequest(send: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """The async version of `request`."""
    asked = _asked(client, args, kwargs)
    if asked is None:
        return await send(*args, **kwargs)
    return await seam.arequest(SDK, client, asked, lambda: send(*args, **kwargs))


def attempt(send: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """Observe around `_request_once`, which sends one HTTP request."""
    call = _call_of(client)
    if call is None:
        return send(*args, **kwargs)
    call.sent(args[0] if args else kwargs.get("http_request"), None)
    response = send(*args, **kwargs)
    _answered(call, response)
    return response


async def aattempt(send: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """The async version of `attempt`."""
    call = _call_of(client)
    if call is None:
        return await send(*args, **kwargs)
    call.sent(args[0] if args else kwargs.get("http_request"), None)
    response = await send(*args, **kwargs)
    _answered(call, response)
    return response


def _asked(client: Any, args: Any, kwargs: Any) -> Asked | None:
    sent = args[0] if args else kwargs.get("http_request")
    streamed = kwargs.get("stream", args[-1] if len(args) > 1 else False) is True
    return None if sent is None else Asked(sent, streamed, own_of(client))


def _call_of(client: Any) -> Call | None:
    layer = underway(client)
    call = None if layer is None else layer.call
    given: Given | None = own_of(client)
    if call is not None and given is not None and call.exchange.id not in given.events[-1:]:
        given.events.append(call.exchange.id)
    return call


def _method(name: str, send: Any, module: Any, args: Any, kwargs: Any) -> Any:
    """Observe around a method, whose requests may be several."""
    running = Running(module, name, None, kwargs)
    return running.answered(_on(send, running.module)(*args, **kwargs))


async def _amethod(name: str, send: Any, module: Any, args: Any, kwargs: Any) -> Any:
    """The async version of `_method`."""
    running = Running(module, name, None, kwargs)
    return running.answered(await _on(send, running.module)(*args, **kwargs))


def _on(send: Any, module: Any) -> Any:
    """Return a bound method on another instance; of what another library made, as it is."""
    return MethodType(send.__func__, module) if type(send) is MethodType else send


@guarded
def _answered(call: Call, response: Any) -> None:
    if call.note_response(response):
        watch(response, call)


# -- what is asked ---------------------------------------------------------------------------


def _endpoint(url: str, body: Any) -> tuple[str, str | None]:
    """Return the method that a URL calls, such as `:generateContent`, and the model's name.

    `:predict` is the method of all older models: what they are given tells them apart.
    """
    url = url.partition("?")[0]
    place, colon, method = url.rpartition(":")
    if not colon or "/" in method:
        _, models, rest = url.rpartition("/models/")  # of an operation
        return f"{models}{rest}", rest.partition("/")[0] if models else None
    if method == "predict" and _embeds(body):
        method = "predictEmbedding"
    return f":{method}", _model(place)


def _embeds(body: Any) -> bool:
    instances = body.get("instances") if is_mapping(body) else None
    first = instances[0] if is_list(instances) and instances else None
    return is_mapping(first) and "content" in first


def _model(place: str) -> str | None:
    """Return the name of a model's place: tuned models and endpoints keep what they are."""
    *_, kind, name = place.rsplit("/", 2)
    if not name:
        return None
    return f"{kind}/{name}" if kind in ("tunedModels", "endpoints") else name


# -- what is answered ------------------------------------------------------------------------


def _joined(pieces: list[Any]) -> bytes:
    """Return a body that has been read: one text, or the events of a recorded stream."""
    if len(pieces) > 1:
        return b"".join(map(_framed, pieces))
    return str(pieces[0]).encode() if pieces and pieces[0] else b""


def _framed(text: str) -> bytes:
    """Return the data of an event as the server-sent event that it was."""
    return f"data: {text}\n\n".encode() if "\n" not in text else _framed_lines(text)


def _framed_lines(text: str) -> bytes:
    return "".join((*(f"data: {line}\n" for line in text.split("\n")), "\n")).encode()


def watch(response: Any, call: Call) -> None:
    """Have a response note what the SDK reads of its stream."""
    cls: Any = type(response)  # pyright: ignore[reportUnknownVariableType]
    response.__dict__[_WATCH] = Watch(call)
    response.__class__ = _response_class(cls)


@functools.cache
def _response_class(cls: Any) -> Any:
    def events(self: Any) -> Iterator[str]:
        return _noting(self.__dict__[_WATCH], cls._iter_response_stream(self))

    def aevents(self: Any) -> AsyncIterator[str]:
        return _anoting(self.__dict__[_WATCH], cls._aiter_response_stream(self))

    def reading(self: Any) -> AsyncIterator[Any]:
        # The SDK's own keeps the iterator in the response: a cycle, which nothing would end.
        segments: AsyncIterator[Any] = self.async_segments()
        return segments

    def reduce(self: Any, protocol: Any) -> Any:
        # An error that holds a response may be pickled, and read where we are not.
        return object.__new__, (cls,), {k: v for k, v in self.__dict__.items() if k != _WATCH}

    namespace: Mapping[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__reduce_ex__": reduce,
        "_iter_response_stream": events,
        "_aiter_response_stream": aevents,
        "__aiter__": reading,
    }
    return type(cls.__name__, (cls,), dict(namespace))


def _noting(seen: Watch, events: Iterator[str]) -> Iterator[str]:
    note = seen.begin()
    try:
        for event in events:
            note(_framed(event))
            yield event
    except BaseException as error:
        seen.left(error)
        raise
    seen.read()


async def _anoting(seen: Watch, events: AsyncIterator[str]) -> AsyncIterator[str]:
    note = seen.begin()
    try:
        async for event in events:
            note(_framed(event))
            yield event
    except BaseException as error:
        seen.left(error)
        raise
    seen.read()
