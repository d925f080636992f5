"""The seam: an SDK client's own `request`, and the two hooks below it.

Our client classes and `instrument` share it; sync and async share all but the `await`.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from .. import _sampling as sampling
from .._chain import here
from .._context import NOTHING, ambient, chain
from .._exchange import Arguments, Scope
from .._faults import guarded
from .._narrowing import first_given, is_dict
from .._providers.batches import Batch
from .._providers.endpoints import Endpoint, batch_of, endpoint_of
from .._providers.hosts import provider_of, reports_usage_unasked
from .._providers.openrouter import PROVIDER as OPENROUTER
from .._settings import settings
from . import body, stream_usage
from .abandoned import loosen_response, loosening
from .call import Call
from .call_arguments import detach_from_options
from .call_queue import call_queue, counted
from .dedup import HEADER, is_captured_above, is_named_gateway
from .event_ids import remember, remember_request
from .passing import Underway, arguments_of, underway


def request(client: Any, options: Any, send: Callable[[], Any], *, late: bool = False) -> Any:
    """Send a request through the SDK, and observe it if it runs a model.

    `late`: `send` may call this function again for the same request, or go past it to the SDK. So
    the call begins when the HTTP request is built, unless something has already begun it.
    """
    layer = _layer(client, options, late)
    if layer is None:
        return send()
    try:
        with layer:
            try:
                return remember(send(), layer.call)
            except Exception as error:
                if not layer.goes_on_without_usage(error):
                    raise
            return remember(send(), layer.call)
    except BaseException as error:
        layer.leave(error)
        raise


async def arequest(
    client: Any, options: Any, send: Callable[[], Awaitable[Any]], *, late: bool = False
) -> Any:
    """The async version of `request`."""
    layer = _layer(client, options, late)
    if layer is None:
        return await send()
    try:
        with layer:
            try:
                return remember(await send(), layer.call)
            except Exception as error:
                if not layer.goes_on_without_usage(error):
                    raise
            return remember(await send(), layer.call)
    except BaseException as error:
        layer.leave(error)
        raise


def _layer(client: Any, options: Any, late: bool) -> Underway | None:
    """Return a layer for a request; `None` if a layer above has begun it."""
    above = underway(client)
    if above is not None and above.is_about(options):
        return None
    layer = Underway(client, options)
    if not late:
        # Outside the guard: even if we fail, they must not become a URL parameter.
        attached = detach_from_options(options)
        layer.begin(_started(client, options, attached))
    return layer


class EarlyRequest(NamedTuple):
    """What is known of a request before the SDK builds options."""

    path: str
    body: Any


@guarded
def _as_options(known: Any, built: Any) -> Any:
    """Return options with the original request; some clients change them on the way."""
    if not isinstance(known, EarlyRequest):
        return known
    options = copy.copy(built)
    options.url, options.json_data = known
    return options


def build_request(client: Any, options: Any, build: Callable[[], Any]) -> Any:
    """Build one HTTP request of the observed call through the SDK."""
    layer = underway(client)
    if layer is not None and not layer.begun:
        layer.begin(_started(client, _as_options(layer.options, options), None))
    call = None if layer is None else layer.call
    if call is None:
        return build()
    made = _with_usage(call.injector, options, build) if call.injector else build()
    remember_request(made, call)
    if is_named_gateway(made.url.host):
        made.headers[HEADER] = call.exchange.id
    call.sent(made, options)
    return made


def see_response(client: Any, response: Any, more: dict[str, Any]) -> dict[str, Any]:
    """Note a response's head, and wrap a body that is still to be read.

    `more`: the SDK's other arguments for the response; returns them, changed if necessary.
    """
    layer = underway(client)
    if layer is None or layer.call is None:
        return more
    return _observe(layer.call, response, more) or more


@counted
def _started(client: Any, options: Any, attached: Arguments | None) -> Call | None:
    """Start observing a request; `None` if there is nothing to observe."""
    endpoint = endpoint_of(options.method, options.url)
    if endpoint is None or call_queue.is_reader() or is_captured_above():
        return None
    given = attached or arguments_of(client, options.url) or NOTHING
    around = here(chain)
    outer, defaults = around.values, client._posthog
    later = sampling.is_partial() and (
        _in_parts(endpoint, options) or _is_openrouter(client, given, outer, defaults)
    )
    sample = sampling.draw(around.root, given, outer, defaults, later=later)
    if sample is None:
        if around.root is not None and client._posthog_redact is not None:
            around.root.redacts(client._posthog_redact)
        return None
    call_queue.start()
    named = first_given(given.client, outer.client)
    if named is not None:
        call_queue.attach(named)
    default = settings().posthog_client
    scope = Scope(given, outer, ambient(), defaults, client._posthog_redact, default)
    if around.root is not None:
        around.root.found(first_given(named, defaults.client, default), scope.redact)
    streamed = _streams(options)
    injector = None
    if streamed and endpoint.streams_usage and _wants_usage(client):
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


def _in_parts(endpoint: Endpoint, options: Any) -> bool:
    """Whether the response identifies the batch or background response of the call."""
    if endpoint.fetches:
        return True
    body = options.json_data
    return is_dict(body) and bool(body.get("background"))


def _is_openrouter(client: Any, *by_precedence: Arguments) -> bool:
    """Whether the request's body, which the worker reads, may name the session or the trace."""
    if client._posthog_openrouter or any(
        given.provider_override == OPENROUTER for given in by_precedence
    ):
        return True
    return provider_of(str(client.base_url)) == OPENROUTER


def _wants_usage(client: Any) -> bool:
    """Whether a stream's usage must be requested; some providers report it anyway."""
    if not client._posthog_stream_usage or getattr(client, "_posthog_openrouter", False):
        return False
    return not reports_usage_unasked(str(client.base_url))


def _model(options: Any) -> str | None:
    body = options.json_data
    model = body.get("model") if is_dict(body) else None
    return model if isinstance(model, str) else None


def _streams(options: Any) -> bool:
    body, params = options.json_data, options.params
    if is_dict(body) and (body.get("stream") or body.get("stream_format") == "sse"):
        return True
    return bool(params and params.get("stream"))


def _with_usage(injector: stream_usage.Injector, options: Any, build: Callable[[], Any]) -> Any:
    """Build a request that asks for usage; later hooks see the original options."""
    before = {name: getattr(options, name) for name in ("json_data", "extra_json")}
    _add_usage(injector, options)
    try:
        return build()
    finally:
        for name, value in before.items():
            if getattr(options, name) is not value:
                setattr(options, name, value)


@guarded
def _add_usage(injector: stream_usage.Injector, options: Any) -> None:
    injector.add(options)


@guarded
def _observe(call: Call, response: Any, more: dict[str, Any]) -> dict[str, Any] | None:
    remember_request(response.request, call)  # a hook may have sent another request
    call.really_sent(response.request, response.history)
    if not call.note_response(response):
        if call.injector:
            call.injector.hide_in_memory(response)
        return None
    loosen_response(response)
    body.wrap(response, call)
    return {**more, "options": loosening(more["options"])} if more.get("stream") else None
