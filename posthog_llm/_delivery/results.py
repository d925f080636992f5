"""Whether PostHog took an event: heard where the official client's own senders return.

The client tells its user of failures only (`on_error`), and of success never.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import wrapt

from .._faults import guarded, warn
from .._imports import imported
from .destinations import package

_AGAIN = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What came of sending one event."""

    error: Exception | None = None
    """Why PostHog did not take it; `None`: it did."""
    path: str = ""
    """The endpoint, e.g. `/batch/`."""

    @property
    def status(self) -> int | None:
        """The HTTP status that an error names; `None` when no answer arrived."""
        status = getattr(self.error, "status", None)
        return status if isinstance(status, int) else None

    @property
    def is_retryable(self) -> bool:
        """Whether the same event may be taken later: the rule of the official client."""
        if self.status is not None:
            return self.status >= 500 or self.status in _AGAIN
        return self.error is not None and not hasattr(self.error, "status")


Listener = Callable[[dict[str, DeliveryResult]], None]
_listener: list[Listener] = []
_here = threading.local()
_warned: set[str] = set()
"""Hosts that were warned of, because others than PostHog answer there."""


@guarded
def listen(listener: Listener) -> None:
    """Tell `listener`, in whatever thread sends, the receipt of each event by its uuid."""
    if not _listener:
        package()
        consumer, client = imported("posthog.consumer"), imported("posthog.client")
        wrapt.wrap_function_wrapper(consumer, "Consumer.request", _request)
        wrapt.wrap_function_wrapper(consumer, "batch_post", _batch_post)
        wrapt.wrap_function_wrapper(client, "batch_post", _post)
    _listener[:] = [listener]


def last() -> DeliveryResult | None:
    """Return, once, what came of the last event that this thread sent by itself."""
    result, _here.result = getattr(_here, "result", None), None
    return result


def _request(wrapped: Any, consumer: Any, args: Any, kwargs: Any) -> Any:
    """Around a background sender's delivery of one batch, retries included."""
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
    """Around one attempt of a background sender; what the official client makes of it stays so."""
    result = wrapped(*args, **kwargs)
    _here.foreign = _foreign_answer(result, args, kwargs)
    return result


def _post(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """Around the request that a client in sync mode makes on the capturing thread."""
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
    """Return why an answer is none of PostHog's, though its status says that all is well.

    A redirect that made the request a GET has lost the events on its way, and where the host is
    wrong, or a network wants a login first, a web page answers.
    """
    if answer.request.method == "POST" and not _is_page(answer.headers.get("content-type")):
        return None
    host = str(args[1] if len(args) > 1 else kwargs.get("host"))
    if host not in _warned:
        _warned.add(host)
        what = "a web page" if answer.request.method == "POST" else "a redirect"
        warn(
            "%s answers with %s, not as a PostHog; events wait. Is the host right? "
            "`posthog-llm check` tells",
            host,
            what,
        )
    return _not_posthogs()


def _not_posthogs() -> ConnectionError:
    return ConnectionError("not PostHog's answer")


def _is_page(content_type: Any) -> bool:
    return str(content_type).partition(";")[0].strip().lower() == "text/html"


@guarded
def _notify(batch: Iterable[Any], error: Exception | None, path: str) -> None:
    for listener in _listener:
        listener({m["uuid"]: _one(m["uuid"], error, path) for m in batch if "uuid" in m})


def _one(uuid: str, error: Any, path: str) -> DeliveryResult:
    """Return one event's receipt: the newer wire format answers for each event by itself."""
    drops: Iterable[tuple[str, Any]] = getattr(error, "drops", ())
    exhausted: Iterable[str] = getattr(error, "retry_exhausted", ())
    refused, unsent = {uuid for uuid, _ in drops}, set(exhausted)
    if not (refused or unsent):
        # A status of success that is an error: the answer was not one of PostHog's.
        is_foreign = getattr(error, "status", None) == 200
        return DeliveryResult(
            ConnectionError("not PostHog's answer") if is_foreign else error, path
        )
    if uuid in unsent:
        return DeliveryResult(ConnectionError("not taken yet"), path)
    return DeliveryResult(error if uuid in refused else None, path)
