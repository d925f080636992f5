"""The SDKs of OpenAI and Anthropic, which one generator (Stainless) writes: their clients share
`request`, and the two hooks below it that build a request and process its response.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .._exchange import Arguments
from .._faults import guarded
from .._narrowing import is_dict, is_mapping
from .._providers.hosts import reports_usage_unasked
from . import body, seam
from .abandoned import loosen_response, loosening
from .around import Installer
from .call import Call
from .call_arguments import detach_from_options
from .dedup import HEADER, is_named_gateway
from .event_ids import remember_request
from .passing import underway
from .sdk import Draft, Received, Sent
from .stream_usage import Injector
from .uploads import uploads

_VERBS = ("get", "post", "put", "patch", "delete")


class Stainless:
    """Both SDKs; see `Sdk`. `options` are a `FinalRequestOptions` of the SDK."""

    def draft(self, options: Any) -> Draft:
        return Draft(options.method, options.url, options.json_data, _streams(options))

    def detach(self, options: Any) -> Arguments | None:
        return detach_from_options(options)

    def base_url(self, client: Any) -> Any:
        return getattr(client, "_base_url", None) or client.base_url

    def injector(self, client: Any) -> Injector | None:
        url = str(client.base_url)
        is_wanted = client._posthog_stream_usage and not client._posthog_openrouter
        return Injector(url) if is_wanted and not reports_usage_unasked(url) else None

    def sent(self, request: Any, options: Any) -> Sent:
        if not options.files:
            return Sent(request.headers, request.url, _content(request))
        fields = options.json_data
        form = dict(fields) if is_mapping(fields) else None
        return Sent(request.headers, request.url, None, form, list(uploads(options.files)))

    def received(self, response: Any) -> Received:
        content = (_content(response) or b"") if response.is_closed else None
        return Received(response.status_code, response.headers, content)

    def requests_behind(self, source: Any) -> list[Any]:
        request = _given(source, "request")
        if request is None:
            return []
        response = _given(source, "response") if isinstance(source, BaseException) else source
        return [request, *(earlier.request for earlier in getattr(response, "history", ()))]

    def install(self, module: Any, installer: Installer) -> None:
        base = module._base_client
        # What is below `request` depends on what `request` has begun.
        installer.wrap(base.BaseClient, "_build_request", _building, is_below=True)
        for cls, sends, waits in (
            (base.SyncAPIClient, seam.request, False),
            (base.AsyncAPIClient, seam.arequest, True),
        ):
            installer.set_defaults(cls)  # first: another thread may be calling
            request = functools.partial(_requesting, sends, late=False)
            installer.wrap(cls, "request", request, waits)
            installer.wrap(cls, "_process_response", _processing, waits, is_below=True)
            for verb in _VERBS:
                installer.wrap(cls, verb, functools.partial(_verb, sends), waits)
            late = functools.partial(_requesting, sends, late=True)
            for own in _subclasses(cls, installer.ours):
                if "request" in vars(own):
                    installer.wrap(own, "request", late, waits)


SDK = Stainless()


class EarlyRequest(NamedTuple):
    """What is known of a request before the SDK builds options."""

    path: str
    body: Any


def build_request(client: Any, options: Any, build: Callable[[], Any]) -> Any:
    """Build one HTTP request of the observed call through the SDK."""
    layer = underway(client)
    if layer is not None and not layer.begun:
        layer.begin(seam.started(SDK, client, _as_options(layer.options, options), None))
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


@guarded
def _observe(call: Call, response: Any, more: dict[str, Any]) -> dict[str, Any] | None:
    remember_request(response.request, call)  # a hook may have sent another request
    call.really_sent(response)
    if not call.note_response(response):
        if call.injector:
            call.injector.hide_in_memory(response)
        return None
    loosen_response(response)
    body.wrap(response, call)
    return {**more, "options": loosening(more["options"])} if more.get("stream") else None


@guarded
def _as_options(known: Any, built: Any) -> Any:
    """Return options with the original request; some clients change them on the way."""
    if not isinstance(known, EarlyRequest):
        return known
    options = copy.copy(built)
    options.url, options.json_data = known
    return options


def _with_usage(injector: Injector, options: Any, build: Callable[[], Any]) -> Any:
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
def _add_usage(injector: Injector, options: Any) -> None:
    injector.add(options)


def _streams(options: Any) -> bool:
    body, params = options.json_data, options.params
    if is_dict(body) and (body.get("stream") or body.get("stream_format") == "sse"):
        return True
    return bool(params and params.get("stream"))


def _content(message: Any) -> bytes | None:
    """Return the body of a request or response; `None` if it is empty, or not in memory."""
    try:
        content: bytes = message.content
    except RuntimeError:  # from a generator, or a response that a hook closed unread
        return None
    return content or None


def _given(source: Any, name: str) -> Any:
    """Return an attribute; the HTTP library's exceptions raise while it is unset."""
    try:
        return getattr(source, name, None)
    except RuntimeError:
        return None


# -- in the SDK's own classes ------------------------------------------------------------------


def _requesting(observed: Any, send: Any, client: Any, args: Any, kwargs: Any, late: bool) -> Any:
    """Observe around `request`; `late` around what a subclass put in its place."""
    options = args[1] if len(args) > 1 else kwargs.get("options")
    if options is None:
        return send(*args, **kwargs)  # the SDK's own `TypeError`
    return observed(SDK, client, options, lambda: send(*args, **kwargs), late=late)


def _verb(observed: Any, send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """Observe around `post`, for a client whose own `request` was replaced."""
    path = args[0] if args else kwargs.get("path")
    if path is None:
        return send(*args, **kwargs)  # as above
    early = EarlyRequest(path, kwargs.get("body"))
    return observed(SDK, client, early, lambda: send(*args, **kwargs), late=True)


def _building(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    options = args[0] if args else kwargs["options"]
    return build_request(client, options, lambda: send(*args, **kwargs))


def _processing(send: Any, client: Any, args: Any, kwargs: Any) -> Any:
    return send(*args, **see_response(client, kwargs["response"], kwargs))


def _subclasses(cls: Any, ours: type) -> Iterator[Any]:
    for found in cls.__subclasses__():
        if not issubclass(found, ours):
            yield found
            yield from _subclasses(found, ours)
