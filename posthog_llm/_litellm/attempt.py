"""One request from LiteLLM to a provider: noted before it is sent, captured exactly once.

LiteLLM returns to its caller first and calls back later. It never calls back if a task is
cancelled, a stream is abandoned unread, or the event loop ends with the program. In these cases we
capture what was noted inline.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .. import _sampling as sampling
from .._chain import Link
from .._context import NOTHING, ambient, around, merged
from .._delivery.worker import worker
from .._exchange import Ambient, Arguments, Exchange, Failure, Outcome, Scope, describe, ended_by
from .._faults import guarded, warn_once
from .._narrowing import first_given, mapping
from .._observe.call import wants_media
from .._observe.call_queue import call_queue, counted
from .._observe.event_ids import new_id
from .._settings import settings
from .._weighing import size_of
from . import logged, metadata, reading, remembered
from .credentials import Credentials
from .litellm_call import LiteLLMCall, callbacks, endpoint_of, is_captured_outside, payload_of

_KEY = "posthog_llm_attempt"
"""Key of an attempt in LiteLLM's record of its call."""
_REFUSED = "litellm_no_upstream_llm_call"
"""What LiteLLM adds to its record of a request that its gateway rejected itself."""
_SENT = ("model", "custom_llm_provider", "call_type", "optional_params", "litellm_params")
"""What the gateway overwrites with its own names when it rejects a request or its response."""
_LONGEST_STACK = 20_000


@dataclass(eq=False)
class Attempt:
    """What is known about a request to a provider while it runs."""

    kwargs: Mapping[str, Any]
    """LiteLLM's record of the call (`model_call_details`), which it keeps updating."""
    defaults: Arguments = NOTHING
    redact: Any = None
    of_keys: metadata.OfKeys = metadata.OF_NO_KEYS
    started_at: float = field(default_factory=time.time)
    inside: Link = field(default_factory=around)
    """The block, or framework's step, that the call is in."""
    ambient: Ambient = field(default_factory=ambient)
    input: Any = None
    fields: frozenset[str] | None = None
    """Names in the call's metadata when it was sent; LiteLLM adds its own later."""
    number: tuple[int, ...] = ()
    """The retry number and the fallback number of this request."""
    is_captured_above: bool = False
    """Whether an outer layer captures this call."""
    response: Any = None
    """The response, if it was seen before LiteLLM calls back."""
    ended_at: float | None = None
    first_at: float | None = None
    """Unix time of a stream's first content; `None` if there was none or it was not seen."""
    broke: Failure | None = None
    """Why a stream ended before its response did."""
    call: Any = None
    """LiteLLM's object for the finished call, if it was seen."""
    is_cache_hit: bool = False
    is_partial: bool = False
    """Whether the response is only what was sent before the gateway's client disconnected."""
    credentials: Credentials = field(init=False)
    _open: list[bool] = field(default_factory=lambda: [True])
    _process: int = field(default_factory=os.getpid)

    _sent: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.credentials = Credentials.of(self.kwargs)
        self._sent = {name: self.kwargs[name] for name in _SENT if name in self.kwargs}
        if self.inside.model_step is not None:
            self.inside.model_step.is_seen = True
        if self.inside.root is not None and not self.is_captured_above:
            clients = self.inside.values.client, self.defaults.client
            self.inside.root.found(first_given(*clients, settings().posthog_client), self.redact)

    @property
    def is_open(self) -> bool:
        """Whether it has not been captured yet."""
        return bool(self._open)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attempt:
        return self  # LiteLLM copies its record of a call

    def __repr__(self) -> str:
        return "<posthog_llm attempt>"  # LiteLLM's debug mode prints its record of a call

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.abandon()

    def note_response(self, response: Any, call: Any = None) -> None:
        """Note a response inline: LiteLLM's own callback may come late, or never."""
        if not self._open:
            return
        is_first = self.response is None
        self.response, self.call, self.ended_at = response, call, time.time()
        if is_first:
            self.is_partial = metadata.is_left(self.kwargs)
            call_queue.start()
            worker.pending.add(self)

    @guarded
    def abandon(self) -> None:
        """Capture an attempt that LiteLLM will not report any more."""
        if not self._open or self._process != os.getpid():
            return  # after a fork, the parent captures its own attempts
        if self.response is not None:
            kwargs = self._as_sent(self.kwargs)
            if self.is_cache_hit:
                kwargs = {**kwargs, "cache_hit": True}
            self.kwargs, response = logged.as_logged(self.call, kwargs, self.response)
            self.end(Outcome.OK, response)
        else:
            self.end(Outcome.DROPPED if self.kwargs.get("stream") else Outcome.CANCELLED)

    @counted
    def end(
        self,
        outcome: Outcome,
        response: Any = None,
        end_time: Any = None,
        error: BaseException | None = None,
    ) -> None:
        """Capture how the attempt ended. Only the first end counts."""
        try:
            self._open.pop()
        except IndexError:
            return
        kwargs, self.kwargs = self._as_sent(self.kwargs), {}
        has_answer = self.response is not None
        answer = self.response if response is None else response
        if outcome is Outcome.OK and (self.is_partial if has_answer else metadata.is_left(kwargs)):
            outcome = Outcome.CLOSED_EARLY
        self.response = self.call = None
        error = error or kwargs.get("exception")
        if outcome is Outcome.ERROR and isinstance(error, BaseException):
            outcome = ended_by(error)
        broke = self.broke if outcome is Outcome.OK else None
        if broke is not None:
            outcome = Outcome.ERROR
        remembered.add(kwargs)
        if self.is_captured_above or self.inside.is_captured_elsewhere or _is_off(kwargs):
            return
        exchange = self._exchange(kwargs, answer, outcome)
        if exchange is None:
            return
        ended_at = self.ended_at or _timestamp(end_time) or time.time()
        exchange.ended = max(0.0, ended_at - self.started_at)
        if outcome is Outcome.ERROR:
            exchange.failure = broke or _failure(error, kwargs)
        call_queue.start()
        call_queue.put(exchange)

    def _as_sent(self, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**kwargs, **self._sent} if is_refused(kwargs) else kwargs

    def _exchange(
        self, kwargs: Mapping[str, Any], answer: Any, outcome: Outcome
    ) -> Exchange | None:
        endpoint = endpoint_of(kwargs)
        if endpoint is None:
            return None
        try:
            given = metadata.arguments(kwargs, self.fields)
            # This wins over the gateway client's values, which could name another team.
            given = merged(given, self.of_keys.read(kwargs))
        except ValueError as refusal:
            warn_once(f"{refusal}. Events for it are not sent")
            call_queue.lose(new_id(), "refused_url")
            return None
        gathered = LiteLLMCall.of(kwargs, self.input, answer)
        gathered.first_at = self.first_at
        sample = sampling.draw(
            self.inside.root, given, self.inside.values, self.defaults, gathered.names
        )
        if sample is None:
            return None
        scope = Scope(given, self.inside.values, self.ambient, self.defaults, self.redact)
        scope.default = settings().posthog_client
        exchange = Exchange(endpoint, new_id(), scope, self.started_at)
        exchange.content, exchange.reader = gathered, reading.record
        exchange.framework = self.inside.framework
        exchange.client = self.credentials
        exchange.sent, exchange.url = self.credentials.headers, gathered.base_url
        exchange.keep_media = wants_media(scope)
        exchange.outcome, exchange.streamed = outcome, gathered.streamed
        exchange.received = size_of(
            (gathered.input, gathered.payload.get("response"), gathered.parameters)
        )
        exchange.attempts = 1
        sample.note(exchange)
        return exchange


def is_refused(kwargs: Mapping[str, Any]) -> bool:
    """Whether the gateway itself rejected this request or its response."""
    return _REFUSED in kwargs


def is_running(kwargs: Mapping[str, Any]) -> bool:
    """Whether the attempt in LiteLLM's record is still the current one.

    Some providers' code announces a request twice, or resends it by itself; the Router and the
    gateway number their attempts.
    """
    found = of(kwargs)
    if found is None or not found.is_open or found.response is not None:
        return False
    return found.number == metadata.number(kwargs)


def begin(kwargs: dict[str, Any], attempt: Attempt) -> None:
    """Put an attempt into LiteLLM's record of its call; the previous one has ended."""
    before = of(kwargs)
    if before is not None and before.is_open:
        before.end(Outcome.ERROR if before.response is None else Outcome.OK)
    kwargs[_KEY] = attempt
    call_queue.unended.add(attempt)


def of(kwargs: Mapping[str, Any]) -> Attempt | None:
    """Return the attempt in LiteLLM's record of a call."""
    found = kwargs.get(_KEY)
    return found if isinstance(found, Attempt) else None


@guarded
def note_response(call: Any, response: Any, *, is_cache_hit: bool = False) -> None:
    """Note the response for the attempt in the record of `call`, LiteLLM's object."""
    details = getattr(call, "model_call_details", {})
    if not _is_whole(response):
        return
    found = of(details)
    if found is None and is_cache_hit and (logger := _logger(call)) is not None:
        found = logger.posthog_llm_unsent(details, getattr(call, "start_time", None))
    if found is not None:
        found.is_cache_hit = is_cache_hit
        found.note_response(response, call)


def _logger(call: Any) -> Any:
    """Return the first of our callbacks that LiteLLM will run for `call`."""
    own = (getattr(call, f"dynamic_{kind}success_callbacks", None) for kind in ("", "async_"))
    found = (*callbacks(), *(one for known in own for one in known or ()))
    return next((one for one in found if hasattr(one, "posthog_llm_unsent")), None)


@guarded
def failed(call: Any, error: BaseException | None) -> None:
    """Record that the attempt of `call` failed, unless it already got a response.

    If the gateway rejects its caller meanwhile, the attempt has not failed: the model responds, or
    the request is cancelled.
    """
    details = getattr(call, "model_call_details", {})
    found = of(details)
    if found is not None and found.response is None and not is_refused(details):
        found.end(Outcome.ERROR, error=error)


def _is_whole(response: Any) -> bool:
    if response is None or type(response).__name__.endswith("Stream"):
        return False
    return not any(hasattr(response, name) for name in ("__next__", "__anext__", "__aiter__"))


def _is_off(kwargs: Mapping[str, Any]) -> bool:
    import litellm

    if metadata.is_withheld(kwargs) and not litellm.global_disable_no_log_param:
        return True
    return metadata.disables(kwargs, NAMES) or is_captured_outside(kwargs)


NAMES = frozenset({"posthog", "posthog_llm", "posthoglogger", "posthog_llm.litellm.logger"})
"""Names by which a request may disable our callback."""


def _timestamp(moment: Any) -> float | None:
    return moment.timestamp() if isinstance(moment, datetime) else None


def _failure(error: BaseException | None, kwargs: Mapping[str, Any]) -> Failure:
    """Describe an exception of LiteLLM's, which gives statuses as codes, too."""
    if error is None:
        said = mapping(payload_of(kwargs).get("error_information"))
        return Failure(type=str(said.get("error_class") or "unknown"))
    found = describe(error)
    code = None if found.code is not None and found.code.isdecimal() else found.code
    stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
    return replace(found, code=code, stack=stack)
