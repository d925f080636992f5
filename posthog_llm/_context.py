"""Identity and trace: values that apply to every call inside a block."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from ._chain import INHERITED, Chain, Link, ends, find, here, only, without
from ._checks import named
from ._exchange import Ambient, Arguments
from ._imports import imported
from ._roots import Root
from ._running import OpenBlock, bound, inside
from ._settings import settings
from ._snapshot import snapshot_of
from .types import ContextArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F")
NOTHING = Arguments()
_NOWHERE = Link(None, only, NOTHING, None)
_FIELDS = tuple(f.name for f in fields(Arguments))
_read = attrgetter(*_FIELDS)
_MAPPINGS = (_FIELDS.index("properties"), _FIELDS.index("groups"))
_NO_AMBIENT = Ambient()
chain: Chain = ContextVar("posthog_llm_context", default=_NOWHERE)
"""The blocks around the caller."""


def where() -> Chain:
    """Return the context variable of the blocks: see `running.Where`."""
    return chain


StepSource = Callable[[], "Link | None"]
"""Returns the innermost step of one framework around the caller; `None` if there is none."""
step_sources: tuple[StepSource, ...] = ()
"""The frameworks whose steps may be around a call."""


def add_step_source(source: StepSource) -> None:
    """Ask a source, which never raises, from now on. Idempotent."""
    global step_sources
    if source not in step_sources:
        step_sources = (*step_sources, source)


def is_step_source(source: StepSource) -> bool:
    return source in step_sources


def remove_step_source(source: StepSource) -> None:
    global step_sources
    step_sources = tuple(one for one in step_sources if one is not source)


def around(known: StepSource | None = None) -> Link:
    """Return what is innermost around the caller: a block, or a framework's step.

    `known`: a source that is not asked, because its step is known already.
    """
    link = here(chain)
    return _innermost(link, known) if step_sources else link


def _innermost(link: Link, known: StepSource | None) -> Link:
    for source in step_sources:
        step = None if source is known else source()
        if step is not None:
            link = inner_of(link, step)
    return link


def inner_of(block: Link, step: Link) -> Link:
    """Return the inner one of a block and a framework's step.

    If neither is in the other, a trace of the application's goes first; a mere `context` applies to
    what happens in the step.
    """
    if block.root is not None or block.is_inside(step):
        return step if step is not block and step.is_inside(block) else block
    if step.is_inside(block):
        return step
    given = replace(block.values, trace_id=None, parent_id=None, span_id=None)
    return Link(object(), nested, given, step)


def current() -> Arguments:
    """Return the values of the innermost block, or framework's step, around the caller."""
    values: Arguments = around().values
    return values


def current_root() -> Root | None:
    """Return the trace that the caller is in."""
    return around().root


def merged(outer: Arguments, inner: Arguments) -> Arguments:
    """Return `outer` overridden by `inner`; mappings are merged key by key."""
    if inner is NOTHING or outer is NOTHING:
        return outer if inner is NOTHING else inner
    around, given = _read(outer), _read(inner)
    values = [o if i is None else i for o, i in zip(around, given, strict=True)]
    for at in _MAPPINGS:
        if around[at] and given[at]:
            values[at] = {**around[at], **given[at]}
    return Arguments(*values)


def nested(outer: Arguments, inner: Arguments) -> Arguments:
    """Like `merged`, for nested blocks: privacy mode stays on inside."""
    values = merged(outer, inner)
    if outer.privacy_mode and not values.privacy_mode:
        values = replace(values, privacy_mode=True)
    return values


def anew(outer: Arguments, inner: Arguments) -> Arguments:
    """Like `nested`, for a trace: the enclosing span is not its parent."""
    if outer.parent_id or outer.span_name or outer.span_id:
        outer = replace(outer, parent_id=None, span_name=None, span_id=None)
    return nested(outer, inner)


def decorated(open_block: OpenBlock, function: F) -> F:
    """Return `function` running inside its own block; see `running.inside`."""
    made: F = inside(open_block, function, where)
    return made


def propagate_context(function: F) -> F:
    """Return `function` bound to the current context: for threads, executors and callbacks.

        executor.submit(posthog_llm.propagate_context(work), item)

    Takes plain and async functions, and generators. A plain function gets the values of all
    context variables, including `posthog`'s and OpenTelemetry's; the others get only ours.
    """
    made: F = bound(function, where)
    return made


class context:
    """Set values for every call inside the block; the call's own arguments win.

    Takes the per-call names without their prefix, and `posthog_client`: see
    `types.ContextArguments`. Works with `with` and `async with`, and as a decorator of sync and
    async functions and generators; nested blocks merge. A stream keeps the values from when it
    was opened, even after the block. One object may be used for many blocks, even by several
    threads and tasks at the same time.

        with posthog_llm.context(distinct_id="user-7", session_id="chat-1"):
            client.chat.completions.create(...)

    Raises `TypeError` for an unknown name, or a value of the wrong type.
    """

    _chain = chain
    _number: float | None = None
    """Another service's draw for the trace; see `roots.Root`."""

    def __init__(self, **values: Unpack[ContextArguments]) -> None:
        self._values = Arguments(**named("context", values, ContextArguments))
        self._key = object()

    def __enter__(self) -> None:
        outer = here(chain)
        try:
            step = around()
            begun = self._begun(step)
            chain.set(Link(self._key, nested, self._values, outer, begun, step))
        except BaseException:  # a signal handler raised between two of these instructions
            chain.set(outer)
            raise

    def _begun(self, outer: Link) -> Any:
        """Return the trace that begins here if one is named, else `INHERITED`."""
        trace_id = self._values.trace_id
        if trace_id is None or (outer.root is not None and outer.root.trace_id == trace_id):
            return INHERITED
        session_id = self._values.session_id or outer.values.session_id
        return Root(trace_id, session_id, outer.root, self._number)

    @ends
    def __exit__(self, *exc_info: object) -> None:
        inner = link = None
        try:
            inner = here(chain, self._key)
            link = find(inner, self._key)
            chain.set(without(inner, self._key))
        except BaseException:  # as above; the block is not removed twice
            chain.set(without(inner or chain.get(), self._key))
            raise
        if link is not None and link.began is not None:
            link.began.end()

    def __call__(self, function: F) -> F:
        return decorated(lambda args, kwargs: self._again(), function)

    def _again(self) -> context:
        again = context()
        again._values, again._number = self._values, self._number
        return again

    async def __aenter__(self) -> None:
        outer = here(chain)
        try:
            self.__enter__()
        except BaseException:  # as above
            chain.set(outer)
            raise

    @ends
    async def __aexit__(self, *exc_info: object) -> None:
        inner = None
        try:
            inner = here(chain, self._key)
            self.__exit__()
        except BaseException:  # as above
            chain.set(without(inner or chain.get(), self._key))
            raise


def continued(values: ContextArguments, number: float | None) -> context:
    """Return a context of values and the draw that another service sent."""
    made = context(**values)
    vars(made)["_number"] = number
    return made


def ambient(otel: tuple[int, int] | None = None) -> Ambient:
    """Read the `posthog` package's own context, and OpenTelemetry's, importing neither.

    The privacy mode that is configured now applies to the call, whatever is configured later.
    `otel`: the ids of the span, if they are known; `None`: those of the active one.
    """
    otel, private = otel or _otel(), settings().privacy_mode
    posthog = imported("posthog")
    contexts = imported("posthog.contexts")
    if posthog is None or contexts is None:
        return Ambient(privacy_mode=private, otel=otel) if otel or private else _NO_AMBIENT
    distinct_id = contexts.get_context_distinct_id()
    session_id = contexts.get_context_session_id()
    tags = contexts.get_tags()
    private = private or bool(getattr(posthog, "privacy_mode", False))
    if not (distinct_id or session_id or tags or private or otel):
        return _NO_AMBIENT
    return Ambient(distinct_id, session_id, snapshot_of(tags), private, otel)


def _otel() -> tuple[int, int] | None:
    """Read the ids of the active OpenTelemetry span, without importing that package."""
    trace = imported("opentelemetry.trace")
    if trace is None:
        return None
    found = trace.get_current_span().get_span_context()
    return (found.trace_id, found.span_id) if found.is_valid else None
