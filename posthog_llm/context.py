"""Who asks, and in which trace: values that hold for every call inside a block."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

from .arguments import ContextArguments
from .checks import named
from .exchange import Ambient, Arguments
from .imports import imported
from .running import OpenBlock, bound, inside

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F")
NOTHING = Arguments()
_current: ContextVar[Arguments] = ContextVar("posthog_llm_context", default=NOTHING)
_NO_AMBIENT = Ambient()


def current() -> Arguments:
    """Return the values of the innermost `context` around the caller."""
    return _current.get()


def set_current(values: Arguments) -> None:
    """Let values hold from here on: an old value set again, never a token reset."""
    _current.set(values)


def merged(outer: Arguments, inner: Arguments) -> Arguments:
    """Return `outer` with what `inner` gives; mappings are merged key by key."""
    if inner is NOTHING or outer is NOTHING:
        return outer if inner is NOTHING else inner
    given = {
        f.name: value for f in fields(Arguments) if (value := getattr(inner, f.name)) is not None
    }
    for name in ("properties", "groups"):
        if name in given and getattr(outer, name):
            given[name] = {**getattr(outer, name), **given[name]}
    return replace(outer, **given)


def decorated(open_block: OpenBlock, function: F) -> F:
    """Return `function` running inside a block of its own; see `running.inside`."""
    made: F = inside(open_block, function, _current)
    return made


def bind(function: F) -> F:
    """Return `function` with what holds here: for threads, executors and callbacks.

        executor.submit(posthog_llm.bind(work), item)

    Takes plain and async functions, and generators. The values of every context variable
    travel, `posthog`'s and OpenTelemetry's included; to all but plain functions ours alone.
    """
    made: F = bound(function, _current)
    return made


class context:
    """Give values to every call inside the block; the call's own arguments win.

    Takes the per-call names without their prefix, and `posthog_client`: see
    `arguments.ContextArguments`. Works with `with` and `async with`, and as a decorator of
    functions, sync and async, and of generators; nested blocks merge. A stream keeps the values
    that held when it was opened, also after the block.

        with posthog_llm.context(distinct_id="user-7", session_id="chat-1"):
            client.chat.completions.create(...)

    Raises `TypeError` for an unknown name, or a value of the wrong type.
    """

    def __init__(self, **values: Unpack[ContextArguments]) -> None:
        self._values = Arguments(**named("context", values, ContextArguments))
        self._outer: list[Arguments] = []

    def __enter__(self) -> None:
        outer = _current.get()
        self._outer.append(outer)
        _current.set(merged(outer, self._values))

    def __exit__(self, *exc_info: object) -> None:
        # The old value is set again rather than a token reset: a token fails when a
        # generator is finished from another context.
        _current.set(self._outer.pop())

    def __call__(self, function: F) -> F:
        return decorated(lambda args, kwargs: self._again(), function)

    def _again(self) -> context:
        again = context()
        again._values = self._values
        return again

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()


def ambient() -> Ambient:
    """Read the `posthog` package's own context, and OpenTelemetry's, importing neither."""
    otel = _otel()
    posthog = imported("posthog")
    contexts = imported("posthog.contexts")
    if posthog is None or contexts is None:
        return Ambient(otel=otel) if otel else _NO_AMBIENT
    distinct_id = contexts.get_context_distinct_id()
    session_id = contexts.get_context_session_id()
    tags = contexts.get_tags()
    private = bool(getattr(posthog, "privacy_mode", False))
    if not (distinct_id or session_id or tags or private or otel):
        return _NO_AMBIENT
    return Ambient(distinct_id, session_id, tags, private, otel)


def _otel() -> tuple[str, str] | None:
    """Read the ids of the active OpenTelemetry span, without importing that package."""
    trace = imported("opentelemetry.trace")
    if trace is None:
        return None
    found = trace.get_current_span().get_span_context()
    return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None
