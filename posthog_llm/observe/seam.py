"""The seam: an SDK client's own `request`, and the two hooks below it.

The client classes of ours and `instrument` share it; sync and async share all but the `await`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .. import sampling
from ..context import NOTHING, ambient, chain
from ..exchange import Arguments, Scope
from ..faults import guarded
from ..narrowing import is_dict
from ..providers.batches import Batch
from ..providers.endpoints import batch_of, endpoint_of
from ..providers.hosts import provider_of
from ..providers.openrouter import PROVIDER as OPENROUTER
from ..settings import settings
from . import body, stream_usage
from .arguments import CARRIER, unload
from .call import Call
from .event_ids import remember
from .outbox import outbox
from .outer import HEADER, is_named_gateway, is_told_above


def request(client: Any, options: Any, send: Callable[[], Any]) -> Any:
    """Send a request by the SDK, and observe it where it runs a model."""
    call = _begin(client, options)
    if call is None:
        return send()
    with call:
        try:
            return remember(send(), call)
        except Exception as error:
            if not call.refused_usage(error):
                raise
        return remember(send(), call)


async def arequest(client: Any, options: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """Do what `request` does, and await it."""
    call = _begin(client, options)
    if call is None:
        return await send()
    with call:
        try:
            return remember(await send(), call)
        except Exception as error:
            if not call.refused_usage(error):
                raise
        return remember(await send(), call)


def build_request(options: Any, build: Callable[[], Any]) -> Any:
    """Build one HTTP request by the SDK; the observed call goes from its options to it."""
    call = unload(options)
    if not isinstance(call, Call):
        return build()
    if call.injector:
        _add_usage(call.injector, options)
    made = build()
    made.extensions[CARRIER] = call
    if is_named_gateway(made.url.host):
        made.headers[HEADER] = call.exchange.id
    call.sent(made, options)
    return made


def see_response(response: Any) -> None:
    """Note an answer's head, and put our wrapper around a body that is still to be read."""
    call = response.request.extensions.get(CARRIER)
    if isinstance(call, Call):
        _observe(call, response)


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
    here = chain.get()
    outer, defaults = here.values, client._posthog
    later = sampling.is_partial() and (
        _in_parts(endpoint.name, options) or _is_openrouter(client, given, outer, defaults)
    )
    sample = sampling.draw(here.root, given, outer, defaults, later=later)
    if sample is None:
        return None
    outbox.start()
    named = given.client or outer.client
    if named is not None:
        outbox.attach(named)
    default = settings().posthog_client
    scope = Scope(given, outer, ambient(), defaults, client._posthog_redact, default)
    if here.root is not None:
        here.root.found(named or defaults.client or default)
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


def _in_parts(endpoint: str, options: Any) -> bool:
    """Whether an answer says of which batch or background response the call is part."""
    if endpoint in ("response_poll", "message_batch"):
        return True
    body = options.json_data
    return is_dict(body) and bool(body.get("background"))


def _is_openrouter(client: Any, *by_precedence: Arguments) -> bool:
    """Whether the request's body may name the session or the trace: the worker reads it."""
    if client._posthog_openrouter or any(
        given.provider_override == OPENROUTER for given in by_precedence
    ):
        return True
    return provider_of(str(client.base_url)) == OPENROUTER


def _model(options: Any) -> str | None:
    body = options.json_data
    model = body.get("model") if is_dict(body) else None
    return model if isinstance(model, str) else None


def _streams(options: Any) -> bool:
    body, params = options.json_data, options.params
    return bool((is_dict(body) and body.get("stream")) or (params and params.get("stream")))


@guarded
def _add_usage(injector: stream_usage.Injector, options: Any) -> None:
    injector.add(options)


@guarded
def _observe(call: Call, response: Any) -> None:
    if call.answered(response):
        body.wrap(response, call)
