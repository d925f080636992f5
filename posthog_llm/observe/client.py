"""Client mixins: one seam, the SDK's own `request`, for every endpoint and helper.

A client class is `class OpenAI(SyncClient, sdk.OpenAI)`. The mixin comes first, calls the
SDK for everything, and returns the SDK's own objects.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .. import sampling
from ..context import NOTHING, ambient, current, merged
from ..exchange import Arguments, Scope
from ..faults import guarded
from ..providers.batches import Batch
from ..providers.endpoints import batch_of, endpoint_of
from . import body, resources, stream_usage
from .arguments import CARRIER, NAMES, peel, unload
from .call import Call
from .event_ids import remember
from .outbox import outbox
from .outer import HEADER, is_named_gateway, is_told_above

_CLIENT_ONLY = {
    "posthog_stream_usage": True,
    "posthog_redact": None,
    "posthog_request_user": False,
    "posthog_openrouter": False,
}


class ObservedClient:
    """What the sync and the async client share: everything but the `await`."""

    _posthog = NOTHING
    _posthog_stream_usage: bool = True
    _posthog_redact: Any = None
    _posthog_request_user: bool = False
    _posthog_openrouter: bool = False
    _posthog_provider: str | None = None
    """Provider that the class stands for, where that is not told by the host."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sdk = next((base for base in cls.__bases__ if not issubclass(base, ObservedClient)), None)
        if sdk is not None:
            _adopt(cls, sdk)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = peel(kwargs) or NOTHING
        own = {**_CLIENT_ONLY, **_peel_own(kwargs)}
        super().__init__(*args, **kwargs)
        resources.observe_attributes(self)
        self._posthog = defaults
        self._set_own(own)
        if outbox.on_client is not None:
            outbox.on_client(defaults.client)

    def _set_own(self, own: dict[str, Any]) -> None:
        for name, value in own.items():
            setattr(self, f"_{name}", value)

    def copy(self, **kwargs: Any) -> Any:
        changed = peel(kwargs)
        own = _peel_own(kwargs)
        new = super().copy(**kwargs)  # type: ignore[misc]
        # Set afterwards, so that a subclass's own constructor need not know our arguments.
        new._posthog = merged(self._posthog, changed) if changed else self._posthog
        new._set_own({name: own.get(name, getattr(self, f"_{name}")) for name in _CLIENT_ONLY})
        return new

    with_options = copy

    def _build_request(self, options: Any, **kwargs: Any) -> Any:
        call = unload(options)
        if not isinstance(call, Call):
            return super()._build_request(options, **kwargs)  # type: ignore[misc]
        if call.injector:
            _add_usage(call.injector, options)
        request = super()._build_request(options, **kwargs)  # type: ignore[misc]
        request.extensions[CARRIER] = call
        if is_named_gateway(request.url.host):
            request.headers[HEADER] = call.exchange.id
        call.sent(request, options)
        return request

    def _process_response(self, *, response: Any, **kwargs: Any) -> Any:
        call = response.request.extensions.get(CARRIER)
        if isinstance(call, Call):
            _observe(call, response)
        return super()._process_response(response=response, **kwargs)  # type: ignore[misc]


class SyncClient(ObservedClient):
    """Mixin for a client whose `request` returns."""

    def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        call = _begin(self, options)
        if call is None:
            return super().request(cast_to, options, **kwargs)  # type: ignore[misc]
        with call:
            try:
                return remember(super().request(cast_to, options, **kwargs), call)  # type: ignore[misc]
            except Exception as error:
                if not call.refused_usage(error):
                    raise
            return remember(super().request(cast_to, options, **kwargs), call)  # type: ignore[misc]


class AsyncClient(ObservedClient):
    """Mixin for a client whose `request` is awaited."""

    async def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        call = _begin(self, options)
        if call is None:
            return await super().request(cast_to, options, **kwargs)  # type: ignore[misc]
        with call:
            try:
                return remember(await super().request(cast_to, options, **kwargs), call)  # type: ignore[misc]
            except Exception as error:
                if not call.refused_usage(error):
                    raise
            return remember(await super().request(cast_to, options, **kwargs), call)  # type: ignore[misc]


def _peel_own(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments that only a client has out of `kwargs`.

    Raises `TypeError` for a value of the wrong type.
    """
    own = {name: kwargs.pop(name) for name in _CLIENT_ONLY if name in kwargs}
    for name in ("posthog_stream_usage", "posthog_request_user", "posthog_openrouter"):
        if not isinstance(own.get(name, True), bool):
            raise TypeError(f"{name} must be True or False")
    redact = own.get("posthog_redact")
    if redact is not None and not callable(redact):
        raise TypeError("posthog_redact must be a callable that takes and returns a str")
    return own


def _adopt(cls: Any, sdk: Any) -> None:
    """Give a client class the SDK's face: resources, signatures and docstrings."""
    namespace: dict[str, Any] = {}
    resources.override_properties(sdk, namespace)
    for name, value in namespace.items():
        setattr(cls, name, value)
    cls.copy = functools.wraps(sdk.copy)(_own(cls.copy))
    cls.with_options = cls.copy
    cls.__doc__ = cls.__doc__ or sdk.__doc__
    cls.__signature__ = _signature(sdk)


def _own(function: Any) -> Any:
    """Return a copy of a function, to be given another face than the original's."""

    def own(self: Any, **kwargs: Any) -> Any:
        return function(self, **kwargs)

    return own


def _signature(sdk: Any) -> inspect.Signature:
    """Return the SDK constructor's signature with our keyword-only arguments at its end."""
    signature = inspect.signature(sdk)
    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**dict.fromkeys(NAMES), **_CLIENT_ONLY}.items()
    ]
    return signature.replace(parameters=[*signature.parameters.values(), *ours])


def _begin(client: Any, options: Any) -> Call | None:
    """Start observing a request, or return `None` where there is nothing to observe.

    The carried arguments are taken out first and outside the guard: whatever happens to us,
    they must not become a URL parameter.
    """
    carried = unload(options)
    call = _started(client, options, carried)
    if call is not None:
        options.params = {**(options.params or {}), CARRIER: call}
    return call


@guarded
def _started(client: Any, options: Any, carried: Any) -> Call | None:
    endpoint = endpoint_of(options.method, options.url)
    if endpoint is None or is_told_above():
        return None
    given = carried if isinstance(carried, Arguments) else NOTHING
    outer, defaults = current(), client._posthog
    if _is_off(given, outer, defaults):
        return None
    sample = sampling.draw(_in_background(endpoint.name, options), given, outer, defaults)
    if sample is None:
        return None
    outbox.start()
    named = given.client or outer.client
    if named is not None and outbox.on_client is not None:
        outbox.on_client(named)
    scope = Scope(given, outer, ambient(), defaults, client._posthog_redact)
    streamed = _streams(options)
    injector = None
    if streamed and endpoint.streams_usage and client._posthog_stream_usage:
        injector = stream_usage.Injector(str(client.base_url))
    call = Call(endpoint.name, scope, injector)
    call.exchange.base_url = getattr(client, "_base_url", None) or client.base_url
    call.exchange.client = client
    call.exchange.model = _model(options)
    call.exchange.streamed = streamed
    if endpoint.name == "message_batch":
        call.exchange.batch = Batch(batch_of(options.url))
    sample.note(call.exchange)
    return call


def _is_off(*by_precedence: Arguments) -> bool:
    for arguments in by_precedence:
        if arguments.capture is not None:
            return not arguments.capture
    return False


def _in_background(endpoint: str, options: Any) -> bool:
    body = options.json_data
    return endpoint == "response_poll" or (isinstance(body, dict) and bool(body.get("background")))


def _model(options: Any) -> str | None:
    body = options.json_data
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def _streams(options: Any) -> bool:
    body, params = options.json_data, options.params
    return bool(
        (isinstance(body, dict) and body.get("stream")) or (params and params.get("stream"))
    )


@guarded
def _add_usage(injector: stream_usage.Injector, options: Any) -> None:
    injector.add(options)


@guarded
def _observe(call: Call, response: Any) -> None:
    if call.answered(response):
        body.wrap(response, call)
