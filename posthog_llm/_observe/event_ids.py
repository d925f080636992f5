"""From a response in the caller's hands to the uuid of its event."""

from __future__ import annotations

import itertools
import os
import secrets
import uuid
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .call import Call

T = TypeVar("T")
_NAMESPACE = uuid.UUID("a6b4c7c0-5d0b-5b0e-9a53-6f2f0c1b5f11")
_known: dict[int, tuple[weakref.ref[Any], str | list[str]]] = {}
"""By the object's id; a list grows with the requests that an SDK makes for one answer."""
_prefix = ""
_numbers = itertools.count()


def _seed() -> None:
    """Draw the random part of this process's uuids; again in a forked child."""
    global _prefix, _numbers
    head = str(uuid.uuid4())
    _prefix = head[:24]
    _numbers = itertools.count(secrets.randbits(47))


_seed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed)


def new_id() -> str:
    """Return a new uuid: a random head per process, and a number. A tenth of uuid4's cost."""
    return f"{_prefix}{next(_numbers):012x}"


def remember(result: T, call: Call | None) -> T:
    """Note which event a response belongs to, without touching the response."""
    if call is not None and not call.streaming:
        _note(result, call.exchange.id)
    return result


def remember_request(request: Any, call: Call) -> None:
    """Note which event an HTTP request belongs to; a stream is found through its request."""
    if _noted(request) != call.exchange.id:
        _note(request, call.exchange.id)


def remember_last(answer: Any, events: list[str]) -> None:
    """Note that an answer belongs to the last of these events; a stream's are still to come."""
    _note(answer, events)


def _note(thing: Any, event: str | list[str]) -> None:
    key = id(thing)
    try:
        # The callback removes the entry with the object, before its id can be reused. It is C
        # code: an interrupt during a Python callback is printed and lost.
        ref = weakref.ref(thing, partial(_known.pop, key))
    except TypeError:  # a plain str, list or None cannot be referenced weakly
        return
    _known[key] = (ref, event)


def _noted(thing: Any) -> str | None:
    known = _known.get(id(thing))
    if known is None or known[0]() is not thing:
        return None
    event = known[1]
    return event if isinstance(event, str) else next(reversed(event), None)


def background_id(response_id: str) -> str:
    """Return the event uuid of a background response: the same in every process."""
    return str(uuid.uuid5(_NAMESPACE, response_id))


def event_id(answer: Any) -> str | None:
    """Return the uuid of the event that a response belongs to.

    Takes what a wrapped client returned: a parsed response, a stream, a stream manager's
    stream, a raw or a streaming response. `None` if no event belongs to it: the call was
    not captured, or the response is a plain `str` (use `with_raw_response` there).

    The event of a background response is sent when the response ends; its uuid is known from
    the first response.
    """
    if getattr(answer, "background", None) is True and isinstance(getattr(answer, "id", 0), str):
        return background_id(answer.id)
    return _noted(answer) or _behind(answer)


def _behind(answer: Any) -> str | None:
    """Find the event through the HTTP response that an SDK object holds."""
    for name in ("response", "http_response", "_response"):
        request = getattr(getattr(answer, name, None), "request", None)
        if request is not None and (found := _noted(request)):
            return found
    return None
