"""Whether PostHog took an event: heard where the official client's own senders return.

The client tells its user of failures only (`on_error`), and of success never.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import wrapt

from ..faults import guarded
from ..imports import imported
from .official import package

_AGAIN = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Receipt:
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
    def may_pass(self) -> bool:
        """Whether the same event may be taken later: the rule of the official client."""
        if self.status is not None:
            return self.status >= 500 or self.status in _AGAIN
        return not hasattr(self.error, "status")


Listener = Callable[[dict[str, Receipt]], None]
_listener: list[Listener] = []
_here = threading.local()


@guarded
def listen(listener: Listener) -> None:
    """Tell `listener`, in whatever thread sends, the receipt of each event by its uuid."""
    if not _listener:
        package()
        wrapt.wrap_function_wrapper(imported("posthog.consumer"), "Consumer.request", _request)
        wrapt.wrap_function_wrapper(imported("posthog.client"), "batch_post", _post)
    _listener[:] = [listener]


def last() -> Receipt | None:
    """Return, once, what came of the last event that this thread sent by itself."""
    receipt, _here.receipt = getattr(_here, "receipt", None), None
    return receipt


def _request(wrapped: Any, consumer: Any, args: Any, kwargs: Any) -> Any:
    """Around a background sender's delivery of one batch, retries included."""
    batch = args[0] if args else kwargs.get("batch", ())
    path = getattr(consumer, "endpoint", "/batch/")
    try:
        result = wrapped(*args, **kwargs)
    except Exception as error:
        _tell(batch, error, path)
        raise
    _tell(batch, None, path)
    return result


def _post(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """Around the request that a client in sync mode makes on the capturing thread."""
    path = kwargs.get("path", "/batch/")
    try:
        result = wrapped(*args, **kwargs)
    except Exception as error:
        _here.receipt = Receipt(error, path)
        raise
    _here.receipt = Receipt(None, path)
    return result


@guarded
def _tell(batch: Iterable[Any], error: Exception | None, path: str) -> None:
    for listener in _listener:
        listener({m["uuid"]: _one(m["uuid"], error, path) for m in batch if "uuid" in m})


def _one(uuid: str, error: Any, path: str) -> Receipt:
    """Return one event's receipt: the newer wire format answers for each event by itself."""
    drops: Iterable[tuple[str, Any]] = getattr(error, "drops", ())
    exhausted: Iterable[str] = getattr(error, "retry_exhausted", ())
    refused, unsent = {uuid for uuid, _ in drops}, set(exhausted)
    if not (refused or unsent):
        return Receipt(error, path)
    if uuid in unsent:
        return Receipt(ConnectionError("not taken yet"), path)
    return Receipt(error if uuid in refused else None, path)
