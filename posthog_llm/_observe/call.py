"""One observed call: timestamps and references, from its start to its only end."""

from __future__ import annotations

from os import getpid
from time import perf_counter, time
from typing import Any

from .._exchange import Exchange, Failure, Outcome, Scope, outcome_of
from .._faults import guarded, is_the_programs
from .._media import without_blobs
from .._narrowing import first_given
from .._providers.endpoints import ENDPOINTS
from .call_queue import call_queue
from .event_ids import new_id
from .sdk import Sdk
from .stream_usage import Injector

_LARGE = 64 << 10
"""Bytes above which a request is searched for images."""
_BINARY = ("audio/", "image/", "video/", "application/octet-stream")


class Call:
    """The observation of one call, sync or async.

    The SDK's own request returns or raises. A streaming body lives longer: its wrapper reports
    the end. The first end is recorded, later ones are ignored.
    """

    __slots__ = ("__weakref__", "_open", "_process", "_sdk", "exchange", "injector", "streaming")

    def __init__(self, sdk: Sdk, endpoint: str, scope: Scope, injector: Injector | None) -> None:
        self._sdk = sdk
        self.exchange = Exchange(endpoint, new_id(), scope, time(), perf_counter())
        self.injector = injector
        self._open = [True]
        self._process = getpid()
        self.streaming = False

    def elapsed(self) -> float:
        """Return the seconds since the call started."""
        return perf_counter() - self.exchange.clock

    # -- the request ---------------------------------------------------------------

    @guarded
    def sent(self, request: Any, options: Any) -> None:
        """Note one HTTP attempt and its body."""
        exchange = self.exchange
        exchange.attempts += 1
        exchange.last_attempt = self.elapsed()
        if exchange.attempts > 1 and exchange.request is not None:
            return
        sent = self._sdk.sent(request, options)
        exchange.sent, exchange.url = sent.headers, sent.url
        exchange.form, exchange.uploads = sent.form, sent.uploads
        exchange.keep_media = wants_media(exchange.scope)
        exchange.request = sent.content if exchange.keep_media else _kept(sent.content)

    @guarded
    def really_sent(self, source: Any) -> None:
        """Note requests that differ from the built one: by a hook, an `Auth`, a redirect.

        `source`: the response, or the exception, that holds them.
        """
        if requests := self._sdk.requests_behind(source):
            known = self.exchange.sent
            self.exchange.resent = [(r.headers, r.url) for r in requests if r.headers is not known]

    def goes_on_without_usage(self, error: Exception, options: Any) -> bool:
        """Whether the usage option that we added may be why the provider refused.

        That attempt does not count as the SDK's, and its body is not the caller's request.
        """
        if self.injector is None or not _left_out(self.injector, error, options):
            return False
        self.exchange.attempts -= 1
        self.exchange.request = None
        return True

    # -- the response --------------------------------------------------------------

    @guarded
    def note_response(self, response: Any) -> bool:
        """Note the response's head; return whether its body is still to be read."""
        exchange = self.exchange
        received = self._sdk.received(response)
        exchange.status, exchange.headers = received.status, received.headers
        if self.injector:
            self.injector.accepted()
        body = received.content
        if body is None:
            self.streaming = True
            call_queue.unended.add(self)
            return True
        exchange.times = (perf_counter(),)
        exchange.received = len(body)
        if self.keeps(received.headers):
            exchange.body = body
        return False

    def keeps(self, headers: Any) -> bool:
        """Whether the body may be text, and is kept; audio is only counted.

        Unless the SDK returns the body as bytes, it reads it as text, whatever its content type.
        """
        if self.exchange.streamed or not ENDPOINTS[self.exchange.endpoint].answers_in_sound:
            return True
        kind: str = headers.get("content-type", "").lower()
        return not kind.startswith(_BINARY)

    # -- the end -------------------------------------------------------------------

    def end(self, outcome: Outcome, failure: Failure | None = None) -> None:
        """Record how the call ended. Only the first end counts; safe in finalizers.

        A forked child has a copy of the call: a call that the parent began, the parent ends.
        """
        if self._process != getpid():
            return
        is_first = False
        try:
            is_first = self._open.pop()
            self._put(outcome, failure)
        except IndexError:
            return
        except BaseException:  # a signal handler raised in between; one uuid is one event
            if is_first:
                self._put(outcome, failure)
            raise

    def _put(self, outcome: Outcome, failure: Failure | None) -> None:
        exchange = self.exchange
        exchange.ended = self.elapsed()
        exchange.outcome = outcome
        exchange.failure = failure
        try:
            call_queue.put(exchange)
        except Exception as error:
            if is_the_programs(error):
                raise
            call_queue.failed("end", error, exchange.id)

    def abandon(self) -> None:
        """End the call because the process is ending."""
        self.end(Outcome.DROPPED)

    def broke(self, error: BaseException) -> None:
        """End the call with an exception."""
        if not self.exchange.resent:
            self.really_sent(error)
        outcome, failure = outcome_of(error)
        self.end(outcome, failure)

    def undecodable(self, error: Exception) -> None:
        """End the call because its response cannot be decoded.

        The caller may not see the error: after a stream's last event, the SDK stops reading.
        """
        _, failure = outcome_of(error)
        self.end(Outcome.CLOSED_EARLY, failure)

    def returned(self, error: BaseException | None) -> None:
        """Note that the SDK's own `request` returned, or raised `error`."""
        if error is not None:
            self.broke(error)
        elif not self.streaming:
            self.end(Outcome.OK)
            request = self.exchange.request
            if request is not None and len(request) > _LARGE and call_queue.on_large is not None:
                call_queue.on_large()


@guarded
def _left_out(injector: Injector, error: Exception, options: Any) -> bool:
    return injector.leave_out(error, options)


def _kept(body: bytes | None) -> bytes | None:
    """Drop images at once: finding them costs less than holding their memory."""
    return without_blobs(body) if body is not None and len(body) > _LARGE else body


def wants_media(scope: Scope) -> bool:
    """Whether the destination accepts images and audio unchanged.

    https://posthog.com/docs/ai-observability/privacy-mode (`enable_full_ai_capture`)
    """
    clients = scope.call.client, scope.context.client, scope.client.client
    client = first_given(*clients, scope.default)
    client = getattr(client, "default_client", client)
    return getattr(client, "enable_full_ai_capture", False) is True
