"""Whether PostHog accepted an event: observed where the official client's senders return.

The client reports only failures to its user (`on_error`), never success.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import wrapt

from .._faults import guarded, warn_once
from .._imports import imported
from .destinations import package

_AGAIN = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of sending one event."""

    error: Exception | None = None
    """Why PostHog did not accept it; `None` if it did."""
    path: str = ""
    """The endpoint, e.g. `/batch/`."""

    @property
    def status(self) -> int | None:
        """The HTTP status of an error; `None` if there was no response."""
        status = getattr(self.error, "status", None)
        return status if isinstance(status, int) else None

    @property
    def is_retryable(self) -> bool:
        """Whether the same event may be accepted later, by the official client's rule."""
        if self.status is not None:
            return self.status >= 500 or self.status in _AGAIN
        return self.error is not None and not hasattr(self.error, "status")


Listener = Callable[[dict[str, DeliveryResult]], None]
_listener: list[Listener] = []
_here = threading.local()


@guarded
def listen(listener: Listener) -> None:
    """Pass each event's delivery result to `listener` by uuid, in whichever thread sends it."""
    if not _listener:
        package()
        consumer, client = imported("posthog.consumer"), imported("posthog.client")
        wrapt.wrap_function_wrapper(consumer, "Consumer.request", _request)
        wrapt.wrap_function_wrapper(consumer, "batch_post", _batch_post)
        wrapt.wrap_function_wrapper(client, "batch_post", _post)
    _listener[:] = [listener]


def last() -> DeliveryResult | None:
    """Return, once, the result of the last event that this thread itself sent."""
    result, _here.result = getattr(_here, "result", None), None
    return result


def _request(wrapped: Any, consumer: Any, args: Any, kwargs: Any) -> Any:
    """Wrap a background sender's delivery of one batch, including retries."""
    batch = args[0] if args else kwargs.get("batch", ())
    path = getattr(consumer, "endpoint", "/batch/")
    _here.foreign = None
    try:
        result = wrapped(*args, **kwargs)
    except Exception as error:
        _notify(batch, error, path)
        raise
    _notify(batch, _here.foreign, path)
    return result


def _batch_post(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap one attempt of a background sender; the official client's behavior is unchanged."""
    result = wrapped(*args, **kwargs)
    _here.foreign = _foreign_answer(result, args, kwargs)
    return result


def _post(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap the request that a client in sync mode makes on the capturing thread."""
    path = kwargs.get("path", "/batch/")
    try:
        result = wrapped(*args, **kwargs)
    except Exception as error:
        _here.result = DeliveryResult(error, path)
        raise
    _here.result = DeliveryResult(_foreign_answer(result, args, kwargs), path)
    return result


@guarded
def _foreign_answer(answer: Any, args: Any, kwargs: Any) -> ConnectionError | None:
    """Return why a response is not PostHog's, although its status says success.

    A redirect that turned the request into a GET has lost the events, and a wrong host, or a
    network that requires a login, responds with a web page.
    """
    if answer.request.method == "POST" and not _is_page(answer.headers.get("content-type")):
        return None
    host = str(args[1] if len(args) > 1 else kwargs.get("host"))
    what = "a web page" if answer.request.method == "POST" else "a redirect"
    warn_once(
        f"{host} answers with {what}, not as a PostHog; events wait. Is the host right? "
        "Run `posthog-llm check`"
    )
    return _not_posthogs()


def _not_posthogs() -> ConnectionError:
    return ConnectionError("not PostHog's response")


def _is_page(content_type: Any) -> bool:
    return str(content_type).partition(";")[0].strip().lower() == "text/html"


@guarded
def _notify(batch: Iterable[Any], error: Exception | None, path: str) -> None:
    for listener in _listener:
        listener({m["uuid"]: _one(m["uuid"], error, path) for m in batch if "uuid" in m})


def _one(uuid: str, error: Any, path: str) -> DeliveryResult:
    """Return one event's result: the newer wire format responds for each event separately."""
    drops: Iterable[tuple[str, Any]] = getattr(error, "drops", ())
    exhausted: Iterable[str] = getattr(error, "retry_exhausted", ())
    refused, unsent = {uuid for uuid, _ in drops}, set(exhausted)
    if not (refused or unsent):
        # A success status as an error: the response was not PostHog's.
        is_foreign = getattr(error, "status", None) == 200
        return DeliveryResult(
            ConnectionError("not PostHog's response") if is_foreign else error, path
        )
    if uuid in unsent:
        return DeliveryResult(ConnectionError("not accepted yet"), path)
    return DeliveryResult(error if uuid in refused else None, path)
