"""Google's interactions: another generator's client inside of Google's SDK.

All its requests pass `do_request` of a resource, which sends each attempt through the HTTP client
of its configuration. So it runs on a view of the resource, with a configuration whose HTTP client
notes what it sends.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import wrapt

from .._exchange import Arguments
from .._faults import guarded
from . import body, seam
from .abandoned import loosen_response
from .around import Installer
from .call import Call
from .genai_methods import Given
from .passing import underway
from .sdk import Draft, Sent
from .stainless import Stainless
from .view import own_of, view

MODULE = "google.genai._gaos.basesdk"
"""What the resources inherit from; the SDK imports it with the first of them."""
_BACKGROUND = re.compile(rb'"background"\s*:\s*true')
"""In a request. In a text, quotes are escaped."""


class Asked(NamedTuple):
    """A request of a resource."""

    request: Any
    """Of the HTTP library."""
    given: Given | None


class Interactions(Stainless):
    """See `Sdk`. `client` is a resource, `options` an `Asked`. Requests and responses are those of
    the HTTP library, as for the SDKs of the others."""

    def __init__(self) -> None:
        self._installer: Installer | None = None
        self._is_hooked = False

    def draft(self, options: Asked) -> Draft:
        request = options.request
        path = str(request.url.path)
        _, found, rest = path.rpartition("/interactions")
        streamed = "event-stream" in request.headers.get("accept", "")
        is_late = bool(found) and _BACKGROUND.search(request.content) is not None
        return Draft(request.method, f"{found}{rest}", {"background": is_late}, streamed)

    def detach(self, options: Asked) -> Arguments | None:
        return options.given.arguments if options.given else None

    def base_url(self, client: Any) -> Any:
        return client._get_url(None, None)

    def injector(self, client: Any) -> None:
        return None

    def sent(self, request: Any, options: Any) -> Sent:
        return Sent(request.headers, request.url, request.content or None)

    def install(self, module: Any, installer: Installer) -> None:
        """Put the seam into the resources' base classes, once the SDK imports them."""
        self._installer = installer
        installer.on_undo(self._forget)
        if not self._is_hooked:
            self._is_hooked = True
            wrapt.when_imported(MODULE)(self._put_in)
        elif (known := sys.modules.get(MODULE)) is not None:
            self._put_in(known)

    def _forget(self) -> None:
        self._installer = None

    @guarded
    def _put_in(self, module: Any) -> None:
        installer = self._installer
        if installer is not None:
            for cls in (module.BaseSDK, module.AsyncBaseSDK):
                installer.set_defaults(cls)  # first: another thread may be calling
            installer.wrap(module.BaseSDK, "do_request", request)
            installer.wrap(module.AsyncBaseSDK, "do_request_async", arequest, True)


SDK = Interactions()


def request(send: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> Any:
    """Observe around `do_request`, which sends one request, retries included."""
    asked = _asked(resource, kwargs)
    if asked is None:
        return send(*args, **kwargs)
    noting = _on(send, resource, "client", _Sender)
    return seam.request(SDK, resource, asked, lambda: noting(*args, **kwargs))


async def arequest(send: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> Any:
    """The async version of `request`."""
    asked = _asked(resource, kwargs)
    if asked is None:
        return await send(*args, **kwargs)
    noting = _on(send, resource, "async_client", _AsyncSender)
    return await seam.arequest(SDK, resource, asked, lambda: noting(*args, **kwargs))


def _asked(resource: Any, kwargs: Any) -> Asked | None:
    sent = kwargs.get("request")
    return None if sent is None else Asked(sent, own_of(resource))


def _on(send: Any, resource: Any, name: str, sender: Any) -> Any:
    """Return a bound method on a view of its resource, which sends through our `sender`."""
    return _viewed(send, resource, name, sender) or send


@guarded
def _viewed(send: Any, resource: Any, name: str, sender: Any) -> Any:
    settings = resource.sdk_configuration
    client = getattr(settings, name)
    if client is None:
        return None  # the SDK's own error
    noting = view(settings, sender(client, resource), name)
    return functools.partial(send.__func__, view(resource, noting, "sdk_configuration"))


class _Sender:
    """An HTTP client that notes what it sends, and is otherwise the SDK's."""

    def __init__(self, client: Any, resource: Any) -> None:
        self._client, self._resource = client, resource

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _begun(self, sent: Any) -> Call | None:
        layer = underway(self._resource)
        call = None if layer is None else layer.call
        if call is not None:
            call.sent(sent, None)
            given: Given | None = own_of(self._resource)
            if given is not None and call.exchange.id not in given.events[-1:]:
                given.events.append(call.exchange.id)
        return call

    def send(self, sent: Any, **kwargs: Any) -> Any:
        call = self._begun(sent)
        return _answered(call, self._client.send(sent, **kwargs))


class _AsyncSender(_Sender):
    async def send(self, sent: Any, **kwargs: Any) -> Any:
        call = self._begun(sent)
        return _answered(call, await self._client.send(sent, **kwargs))


def _answered(call: Call | None, response: Any) -> Any:
    if call is not None:
        _observe(call, response)
    return response


@guarded
def _observe(call: Call, response: Any) -> None:
    call.really_sent(response)
    if call.note_response(response):
        loosen_response(response)
        body.wrap(response, call)
