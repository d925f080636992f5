"""The seam: where a request passes through an SDK's client, and what is noted of it there.

Our client classes and `instrument` share it; sync and async share all but the `await`. What
differs between SDKs is behind `Sdk`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .. import _sampling as sampling
from .._chain import Link
from .._context import NOTHING, ambient, around
from .._exchange import Arguments, Exchange, Scope
from .._narrowing import first_given, is_dict
from .._providers.batches import Batch
from .._providers.endpoints import Endpoint, batch_of, endpoint_of
from .._providers.hosts import provider_of
from .._providers.openrouter import PROVIDER as OPENROUTER
from .._settings import settings
from .call import Call
from .call_queue import call_queue, counted
from .dedup import is_captured_above
from .event_ids import remember
from .passing import Underway, arguments_of, underway
from .sdk import Draft, Opened, Sdk


def request(
    sdk: Sdk, client: Any, options: Any, send: Callable[[], Any], *, late: bool = False
) -> Any:
    """Send a request through the SDK, and observe it if it runs a model.

    `late`: `send` may call this function again for the same request, or go past it to the SDK. So
    the call begins when the HTTP request is built, unless something has already begun it.
    """
    layer = _layer(sdk, client, options, late)
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
    sdk: Sdk, client: Any, options: Any, send: Callable[[], Awaitable[Any]], *, late: bool = False
) -> Any:
    """The async version of `request`."""
    layer = _layer(sdk, client, options, late)
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


def _layer(sdk: Sdk, client: Any, options: Any, late: bool) -> Underway | None:
    """Return a layer for a request; `None` if a layer above has begun it."""
    above = underway(client)
    if above is not None and above.is_about(options):
        return None
    layer = Underway(client, options)
    if not late:
        # Outside the guard: even if we fail, they must not become a URL parameter.
        attached = sdk.detach(options)
        layer.begin(started(sdk, client, options, attached))
    return layer


@counted
def started(sdk: Sdk, client: Any, options: Any, attached: Arguments | None) -> Call | None:
    """Start observing a request; `None` if there is nothing to observe."""
    draft = sdk.draft(options)
    endpoint = endpoint_of(draft.method, draft.path)
    if endpoint is None or call_queue.is_reader():
        return None
    inside = around() if draft.opened is None else draft.opened.inside
    if inside.model_step is not None:  # first: it is not captured in place of a call left out
        inside.model_step.is_seen = True
    if inside.is_captured_elsewhere or is_captured_above():
        return None
    given = attached or arguments_of(client, draft.path) or NOTHING
    outer, defaults = inside.values, client._posthog
    base_url = sdk.base_url(client)
    later = sampling.is_partial() and (
        _in_parts(endpoint, draft) or _is_openrouter(client, base_url, given, outer, defaults)
    )
    sample = sampling.draw(inside.root, given, outer, defaults, later=later)
    if sample is None:
        if inside.root is not None and client._posthog_redact is not None:
            inside.root.redacts(client._posthog_redact)
        return None
    scope = _scope(client, given, inside, draft.opened)
    injector = sdk.injector(client) if draft.streamed and endpoint.streams_usage else None
    call = Call(sdk, endpoint.name, scope, injector)
    call.exchange.base_url, call.exchange.client = base_url, client
    _note_draft(call.exchange, draft)
    call.exchange.framework = inside.framework
    sample.note(call.exchange)
    return call


def _scope(client: Any, given: Arguments, inside: Link, opened: Opened | None) -> Scope:
    """Return where the call's identity comes from, and note its destination for what it is in."""
    call_queue.start()
    outer, defaults = inside.values, client._posthog
    named = first_given(given.client, outer.client)
    if named is not None:
        call_queue.attach(named)
    default = settings().posthog_client
    theirs = ambient() if opened is None else opened.ambient
    scope = Scope(given, outer, theirs, defaults, client._posthog_redact, default)
    if inside.root is not None:
        inside.root.sdk_client = inside.root.sdk_client or client
        inside.root.found(first_given(named, defaults.client, default), scope.redact)
    return scope


def _note_draft(exchange: Exchange, draft: Draft) -> None:
    model = draft.body.get("model") if is_dict(draft.body) else None
    exchange.model = draft.model or (model if isinstance(model, str) else None)
    exchange.streamed = draft.streamed
    if exchange.endpoint == "message_batch":
        exchange.batch = Batch(batch_of(draft.path))


def _in_parts(endpoint: Endpoint, draft: Draft) -> bool:
    """Whether the response identifies the batch or background response of the call."""
    in_background = is_dict(draft.body) and bool(draft.body.get("background"))
    return bool(endpoint.fetches) or in_background or endpoint.is_background


def _is_openrouter(client: Any, base_url: Any, *by_precedence: Arguments) -> bool:
    """Whether the request's body, which the worker reads, may name the session or the trace."""
    if client._posthog_openrouter or any(
        given.provider_override == OPENROUTER for given in by_precedence
    ):
        return True
    return provider_of(str(base_url)) == OPENROUTER
