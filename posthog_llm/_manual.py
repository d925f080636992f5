"""Manual capture of model calls that no wrapper sees.

With the same records, privacy and delivery as wrapped calls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from . import _sampling as sampling
from ._chain import Link
from ._checks import checked, count, duration, field_of, moment, status, text, url, usd
from ._context import ambient, around
from ._exchange import Arguments, Exchange, Failure, Outcome, Scope, outcome_of
from ._faults import is_the_programs
from ._narrowing import first_given, is_mapping
from ._observe.call_queue import call_queue
from ._observe.event_ids import new_id
from ._providers.hosts import bare_url
from ._record import Kind, Record, RequestFacts, ResponseFacts, Usage
from ._settings import default_for_steps
from ._snapshot import content_of, snapshot, snapshot_of
from ._weighing import size_of
from .types import GenerationArguments, StepArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack

_WHO = frozenset(map(field_of, StepArguments.__annotations__))
"""The arguments that are fields of `Arguments`."""
_TOKENS = frozenset(
    {"input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens"}
    | {"cache_write_5m_tokens", "cache_write_1h_tokens", "reasoning_tokens", "web_searches"}
    | {"audio_input_tokens", "audio_output_tokens", "image_input_tokens", "image_output_tokens"}
)
_COSTS = {
    "total_cost_usd": "cost_usd",
    "input_cost_usd": "input_cost_usd",
    "output_cost_usd": "output_cost_usd",
}
_TEXTS = ("model", "provider", "stop_reason", "service_tier", "response_id")
_CONTENT = ("input", "output", "tools", "parameters")
_TIMES = ("latency", "time_to_first_token", "timestamp")
_KNOWN = frozenset(GenerationArguments.__annotations__)
_items: Any = attrgetter("__iter__")(list)
"""Iterates over a list without running its own code."""


@dataclass(slots=True)
class ManualCall:
    """The arguments of one manual capture, until the worker reads them."""

    kind: Kind
    values: dict[str, Any]
    is_report: bool = False
    """Whether a framework reports it, and not the application."""

    def drop_content(self) -> None:
        for name in _CONTENT:
            self.values.pop(name, None)


def capture_generation(**given: Unpack[GenerationArguments]) -> str:
    """Capture one call to a model, and return the uuid of its event.

        posthog_llm.capture_generation(
            model="mixtral", provider="my-cluster", input=messages, output=reply,
            input_tokens=120, output_tokens=40, latency=1.8, distinct_id="user-7",
        )

    `model` is required; `types.GenerationArguments` describes each argument. Contexts, traces and
    spans apply, as for a wrapped call. If the queue is full, it waits for space: at most 10
    seconds, or 0.1 in a thread that runs an event loop.

    Raises `TypeError` or `ValueError` that names the argument.
    """
    return capture("generation", _validated("capture_generation", given))


def capture_embedding(**given: Unpack[GenerationArguments]) -> str:
    """Capture one call to an embedding model, and return the uuid of its event.

    Takes the same arguments as `capture_generation`; an embedding has no output.
    """
    return capture("embedding", _validated("capture_embedding", given))


class generation:
    """Time a block that calls a model, and capture what was set on it.

        with posthog_llm.generation(model="mixtral", provider="my-cluster", input=messages) as g:
            reply = call_it(messages)
            g.output, g.output_tokens = reply.text, reply.tokens

    Takes the arguments of `capture_generation`; each is also an attribute that may be set until the
    block ends. `id` is the event's uuid. Works with `with` and `async with`; an exception is
    recorded and propagates unchanged. `first_token()` notes the time of the first token.

    Raises `TypeError` or `ValueError` that names the argument.
    """

    def __init__(self, **given: Unpack[GenerationArguments]) -> None:
        self.__dict__["_given"] = _validated("generation", given)
        self.__dict__["id"] = new_id()
        self.__dict__["_clock"] = None
        self.__dict__["_process"] = os.getpid()

    def __setattr__(self, name: str, value: Any) -> None:
        given = _validated("generation", {name: value}, whole=name == "model")
        self._given.pop(field_of(name), None)  # `None` clears an earlier value
        self._given.update(given)

    def __getattr__(self, name: str) -> Any:
        if name in _KNOWN:
            return self.__dict__["_given"].get(field_of(name))
        raise AttributeError(f"a generation has no {name!r}")

    def first_token(self) -> None:
        """Note that the first token arrived now. Raises `RuntimeError` before the block."""
        if self._clock is None:
            raise RuntimeError("first_token() must be called inside of its `with` block")
        self._given.setdefault("time_to_first_token", time.perf_counter() - self._clock)

    def __enter__(self) -> generation:
        if self._clock is not None:
            raise RuntimeError("this generation was entered before: make another one")
        self.__dict__["_started_at"], self.__dict__["_clock"] = time.time(), time.perf_counter()
        self.__dict__["_process"] = os.getpid()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: Any) -> None:
        if self._process != os.getpid():
            return  # a forked child has a copy of the block
        given = self._given
        given.setdefault("latency", time.perf_counter() - self._clock)
        given.setdefault("timestamp", self._started_at)
        if error is not None:
            given.setdefault("error", error)
        capture("generation", given, self.id)

    async def __aenter__(self) -> generation:
        return self.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self.__exit__(*exc_info)


# -- checks --------------------------------------------------------------------------


def _validated(what: str, given: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    if unknown := given.keys() - _KNOWN:
        raise TypeError(f"{what}() got an unexpected argument {min(unknown)!r}")
    if whole and not given.get("model"):
        raise TypeError(f"{what}() needs a model: the name by which PostHog prices the call")
    return {field_of(n): _value(n, value) for n, value in given.items() if value is not None}


def _value(name: str, value: Any) -> Any:
    if field_of(name) in _WHO:
        return checked(name, field_of(name), value)
    if name in _TOKENS:
        return count(name, value)
    if name == "http_status":
        return status(name, value)
    if name in _COSTS:
        return usd(name, value)
    if name in _TEXTS:
        return text(name, value)
    if name == "base_url":
        return url(name, value)
    if name in _TIMES:
        return moment(name, value) if name == "timestamp" else duration(name, value)
    if name in ("stream", "cache_tokens_excluded") and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    if name == "parameters":
        if is_mapping(value):
            return snapshot_of(value)
        raise TypeError(f"parameters must be a mapping, not {type(value).__name__}")
    if name == "error" and not isinstance(value, (BaseException, str)):
        raise TypeError(f"error must be an exception or a str, not {type(value).__name__}")
    return snapshot(value) if name in _CONTENT and name != "output" else value


# -- from what was given to a record -------------------------------------------------


def capture(
    kind: Kind, given: dict[str, Any], event_id: str | None = None, inside: Link | None = None
) -> str:
    """Capture checked arguments, and return the uuid of the event.

    `inside`: what a call that a framework reports was in; `None`: what is around the caller.
    """
    event_id = event_id or new_id()
    try:
        call = ManualCall(kind, dict(given), is_report=inside is not None)
        _put(call, event_id, inside or around())
    except Exception as error:
        if is_the_programs(error):
            raise
        call_queue.failed("manual", error, event_id)
    return event_id


def _put(call: ManualCall, event_id: str, inside: Link) -> None:
    kind, given = call.kind, call.values
    own = Arguments(**{name: given[name] for name in _WHO & given.keys()})
    if "output" in given:  # for a block: its state at the end
        given["output"] = snapshot(given["output"])
    context, root = inside.values, inside.root
    draw = sampling.draw_about if kind in ("feedback", "metric") else sampling.draw
    sample = draw(root, own, context)
    if sample is None:
        return
    default = first_given(own.client, context.client, default_for_steps())
    scope = Scope(own, context, ambient(), default=default)
    exchange = Exchange("manual", event_id, scope, 0.0)
    latency = given.get("latency")
    exchange.started_at = given.get("timestamp") or time.time() - (latency or 0.0)
    exchange.streamed = given.get("stream", "time_to_first_token" in given)
    exchange.status = given.get("http_status")
    exchange.outcome, exchange.failure = _outcome(given.get("error"), exchange.status)
    exchange.content, exchange.reader = call, _record
    exchange.framework = inside.framework
    exchange.received = size_of([given[name] for name in given.keys() - _WHO])
    sample.note(exchange)
    if default is not None:
        call_queue.attach(default)
    call_queue.start()
    (call_queue if root is None else root).put(exchange)  # along with the steps of its trace
    call_queue.wait_for_room()


def _outcome(error: Any, status: int | None) -> tuple[Outcome, Failure | None]:
    if error is None:
        return (Outcome.OK, None) if (status or 200) < 400 else (Outcome.ERROR, None)
    if type(error) is Failure:
        return Outcome.ERROR, error
    if issubclass(type(error), str):  # `isinstance` would run the exception's own code
        return Outcome.ERROR, Failure("Error", error, status=status)
    outcome, failure = outcome_of(error)
    return outcome, failure and replace(failure, status=first_given(failure.status, status))


def _record(exchange: Exchange) -> Record:
    kind: Kind = exchange.content.kind
    given: dict[str, Any] = exchange.content.values
    asked, said = content_of(given.get("input")), content_of(given.get("output"))
    return Record(
        kind=kind,
        exchange=exchange,
        request=RequestFacts(
            model=given.get("model"),
            input=asked if kind == "feedback" else _messages("user", asked),
            tools=content_of(given.get("tools")),
            parameters=given.get("parameters") or {},
        ),
        response=ResponseFacts(
            output=_messages("assistant", said),
            usage=_usage(given),
            stop_reason=given.get("stop_reason"),
            service_tier=given.get("service_tier"),
            response_id=given.get("response_id"),
        ),
        provider=given.get("provider") or "",
        base_url=bare_url(given.get("base_url") or ""),
        latency=given.get("latency"),
        time_to_first_token=given.get("time_to_first_token"),
        outcome=exchange.outcome,
        failure=exchange.failure,
        request_id=None,
        retries=0,
        content_cut=exchange.cut,
        details=given.get("details") or {},
    )


def _messages(role: str, value: Any) -> Any:
    """Return a plain text as a message; messages stay as they are.

    None of the value's own code runs here: only `Cleaner` runs it, within limits.
    """
    if issubclass(type(value), list):
        return [_message(role, item) for item in _items(value)]
    return None if value is None else [_message(role, value)]


def _message(role: str, value: Any) -> Any:
    return {"role": role, "content": value} if issubclass(type(value), str) else value


def _usage(given: dict[str, Any]) -> Usage:
    counts = {name: given[name] for name in _TOKENS & given.keys()}
    costs = {field: given[name] for name, field in _COSTS.items() if name in given}
    usage = Usage(**counts, **costs, cache_tokens_excluded=given.get("cache_tokens_excluded"))
    sides = usage.input_cost_usd, usage.output_cost_usd
    if usage.cost_usd is None and None not in sides:
        usage.cost_usd = sum(side or 0.0 for side in sides)
    return usage
