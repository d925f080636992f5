"""OpenTelemetry: the spans of frameworks, seen where the SDK passes them to its processors.

Spans that are not about AI are passed through: what is inside one belongs to the span around it.
Nothing is exported, and spans stay as they are.

https://opentelemetry.io/docs/languages/python/instrumentation/
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

from .._chain import Link
from .._context import NOTHING, add_step_source, is_step_source, merged, remove_step_source
from .._exchange import Arguments, Failure
from .._faults import guarded, warn_once
from .._imports import imported
from .._narrowing import is_dict, mapping
from .._observe.around import Installer
from .._observe.passing import is_underway
from . import langchain, openai_agents
from . import otel_attributes as attributes_of
from . import otel_names as names
from .otel_attributes import CHAIN, EMBEDDING, GENERATION
from .otel_events import details_in, said_in
from .step import AnyStep, ModelStep, OpenSteps, PassedThrough, Step, StepKey, StepStart, inside

_MODELS = (GENERATION, EMBEDDING)
_WATCHED = {"langchain": langchain.innermost, "openai-agents": openai_agents.innermost}
"""Frameworks whose steps we know without OpenTelemetry, if `instrument` watches them."""
_REPORTED_LATER = "litellm"
"""Writes its spans when its calls are over: nothing is inside them. It has a callback of ours."""
_LEFT_OUT = Arguments(capture=False)
_api: Any = None
"""`opentelemetry.trace`, once a span is open: looking it up takes as long as all else."""
_model: ContextVar[tuple[ModelStep, Link | None] | None] = ContextVar(
    "posthog_llm_otel_model", default=None
)
"""The latest span of a model call of `_NEVER_CURRENT`, and what was around."""
_NEVER_CURRENT = ("opentelemetry.instrumentation.", "openinference.instrumentation.")
"""Traceloop's instrumentations of SDKs, and OpenInference's of LlamaIndex, do not make some spans
the current one."""


class _Begun(NamedTuple):
    trace_id: int
    span_id: int
    outer: _Begun | None


_begun_here: ContextVar[_Begun | None] = ContextVar("posthog_llm_otel_begun", default=None)
"""The latest span about AI that began in this context, and those open around it."""
steps = OpenSteps()
"""Open spans about AI, and those inside them, by their id."""


@guarded
def innermost() -> Link | None:
    """Return the innermost span around the caller; `None` if there is none."""
    if not steps or _api is None:
        return None
    span = _api.get_current_span()
    step = steps.get(span.get_span_context().span_id)
    _identify(step)
    if step is None:  # a span of a provider that is not watched, or one that has ended
        step = _parent_of(span) or _around_dropped(span)
    link = None if step is None else step.link
    model = _model.get()
    is_inside = model is not None and model[1] is link and model[0].is_open
    return model[0].link if model is not None and is_inside else link


def _parent_of(span: Any) -> AnyStep | None:
    parent = getattr(span, "parent", None)
    return None if parent is None else steps.get(parent.span_id)


def _around_dropped(span: Any) -> AnyStep | None:
    """Return what is around a span that a sampler dropped: no processor was told of it."""
    context = span.get_span_context()
    if context.is_remote or not context.is_valid or not isinstance(span, _api.NonRecordingSpan):
        return None
    begun = _begun_here.get()
    while begun is not None:
        step = steps.get(begun.span_id) if begun.trace_id == context.trace_id else None
        if step is not None:
            return step
        begun = begun.outer
    return None


def _note_begun(context: Any) -> None:
    outer = _begun_here.get()
    while outer is not None and steps.get(outer.span_id) is None:
        outer = outer.outer
    _begun_here.set(_Begun(context.trace_id, context.span_id, outer))


def _identify(step: AnyStep | None) -> None:
    """Note the user and the session of an open span: some frameworks set them after its start."""
    if not isinstance(step, Step):
        return
    span, count = step.reported_by
    given = _held(span)
    if len(given) != count:
        step.reported_by = span, len(given)
        step.identify(attributes_of.user_id(given), attributes_of.session_id(given))


# -- spans ------------------------------------------------------------------------------


@guarded
def begin(span: Any, context: Any = None) -> None:
    """Begin the step of a span that starts; in `context`, or the current one."""
    parent = _parent_of(span) if steps else None
    if parent is not None:
        _identify(parent)
    elif steps and _api is not None:
        parent = _around_dropped(_api.get_current_span(context))
    given, scope = _held(span), getattr(span.instrumentation_scope, "name", "")
    kind = None
    if isinstance(span.name, str):
        kind = names.more_exact(attributes_of.kind_of(span.name, given), scope, span.name)
    if kind is None and parent is None:
        return
    span_id = span.context.span_id
    if steps.get(span_id) is not None:
        return  # another processor of ours has begun it
    if kind is None:
        steps.add(span_id, PassedThrough(None if parent is None else parent.link))
        return
    if not is_step_source(innermost):
        _begin_to_watch()
    step = _begun(span, kind, given, scope, parent)
    step.handled = id(sys.exc_info()[1])
    steps.add(span_id, step)
    _note_begun(span.context)


def _begin_to_watch() -> None:
    global _api
    _api = imported("opentelemetry.trace") or _api
    add_step_source(innermost)


def _held(span: Any) -> Mapping[str, Any]:
    """Return the attributes, if possible as the plain dict inside: each look-up is as fast."""
    held = getattr(getattr(span, "_attributes", None), "_dict", None)
    return held if is_dict(held) else mapping(span.attributes)


def _begun(
    span: Any, kind: str, given: Mapping[str, Any], scope: str, parent: AnyStep | None
) -> AnyStep:
    link = None if parent is None else parent.link
    framework = attributes_of.framework(scope)
    known = _WATCHED.get(framework)
    if known is not None and is_step_source(known):
        return PassedThrough(link)
    if _reports_to_posthog(span):
        return PassedThrough(_left_out(link) if kind in _MODELS else link)
    if kind in _MODELS:
        if framework == _REPORTED_LATER or is_underway():
            return PassedThrough(link)
        step = _model_step(kind, given, framework, link)
        if scope.startswith(_NEVER_CURRENT):
            _model.set((step, link))
        return step
    asked = attributes_of.step_input(given)
    if kind == CHAIN and _is_detail(span.name, link, asked):
        return PassedThrough(link)
    about = StepStart(attributes_of.name_of(kind, span.name, given), framework, kind, asked)
    about.distinct_id = attributes_of.user_id(given)
    about.session_id = attributes_of.session_id(given)
    about.otel = span.context.trace_id, span.context.span_id
    if kind == "agent" and (name := attributes_of.agent_name(given)):
        about.details = {"agent_name": name}
    made = Step(about, link, source=innermost)
    made.reported_by = span, len(given)
    return made


def _is_detail(name: str, link: Link | None, asked: Any) -> bool:
    """Whether a chain inside of a step says nothing of its own."""
    around = inside(link, innermost)
    outer = around.key.name if isinstance(around.key, StepKey) else None
    return around.root is not None and names.is_detail(name, outer, asked is not None)


def _model_step(
    kind: str, given: Mapping[str, Any], framework: str, link: Link | None
) -> ModelStep:
    user, session = attributes_of.user_id(given), attributes_of.session_id(given)
    who = NOTHING
    if user or session:  # the application's own go first
        known = inside(link).values
        who = Arguments(
            distinct_id=None if known.distinct_id else user,
            session_id=None if known.session_id else session,
        )
    step = ModelStep({}, framework, link, who)
    step.kind = "embedding" if kind == EMBEDDING else "generation"
    return step


def _left_out(link: Link | None) -> Link:
    """Return what is around a model call that another processor exports: it is not captured."""
    return Link(object(), merged, _LEFT_OUT, inside(link))


@guarded
def end(span: Any) -> None:
    """End the step of a span that has ended."""
    step = steps.take(span.context.span_id) if steps else None
    if isinstance(step, ModelStep):
        _end_model(step, span)
    elif isinstance(step, Step):
        _end_step(step, span)


def _end_model(step: ModelStep, span: Any) -> None:
    given = _held(span)
    known = attributes_of.kind_of(span.name, given) in (*_MODELS, None)  # not just by its name
    if step.is_seen or not known or not attributes_of.is_about_ai(given):
        step.abandon()
        return
    step.end(attributes_of.model_facts(step.kind, span), _error_of(step, span))


def _end_step(step: Step, span: Any) -> None:
    given = _held(span)
    _identify(step)
    asked = said = None
    if events := span.events:
        asked, said = said_in(events, step.type)
        given = {**given, **details_in(events)}
    _note_late(step, span, given)
    if not step.has_input:
        step.note_input(attributes_of.step_input(given) or asked)
    step.output = attributes_of.step_output(given) or said
    if step.type == "agent" and (name := attributes_of.agent_name(given)):
        step.details["agent_name"] = name
    if span.start_time is not None and span.end_time is not None:
        step.times = span.start_time / 1e9, max(0.0, (span.end_time - span.start_time) / 1e9)
    step.end(error=_error_of(step, span))


def _note_late(step: Step, span: Any, given: Mapping[str, Any]) -> None:
    """Note what some instrumentations say only at the end: a kind, the name of a tool."""
    kind = step.type or CHAIN
    if kind == CHAIN:
        known = attributes_of.kind_of(span.name, given)
        kind = CHAIN if known is None or known in _MODELS else known
    if kind != step.type or kind == "tool":
        step.rename(attributes_of.name_of(kind, span.name, given), kind)


def _error_of(step: AnyStep, span: Any) -> Failure | BaseException | None:
    """Return why a span failed, or what cancels it: OpenTelemetry only notes an `Exception`."""
    failure, raised = attributes_of.failure_of(span), sys.exc_info()[1]
    if failure is not None or raised is None or isinstance(raised, Exception):
        return failure
    return None if id(raised) == step.handled else raised


# -- PostHog's own processor --------------------------------------------------------------


def _reports_to_posthog(span: Any) -> bool:
    """Whether PostHog's own processor, or exporter, gets the span; then theirs captures it."""
    processor = _class("posthog.ai.otel.processor", "PostHogSpanProcessor")
    exporter = _class("posthog.ai.otel.exporter", "PostHogTraceExporter")
    if not processor and not exporter:
        return False
    found = getattr(getattr(span, "_span_processor", None), "_span_processors", ())
    if not any(isinstance(one, processor) or isinstance(_exporter(one), exporter) for one in found):
        return False
    warn_once("PostHog's OpenTelemetry processor or exporter captures the spans; remove it")
    return True


def _class(module: str, name: str) -> Any:
    return getattr(imported(module), name, ())


def _exporter(processor: Any) -> Any:
    inner = getattr(processor, "_batch_processor", None)
    return getattr(inner, "_exporter", None) or getattr(processor, "span_exporter", None)


# -- installation -------------------------------------------------------------------------


class Spans:
    """What a processor of ours does; mixed into OpenTelemetry's own base class."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        begin(span, parent_context)

    def on_end(self, span: Any) -> None:
        end(span)


class _GlobalSpans(Spans):
    """Begins nothing after `uninstrument`: no processor can be removed from a provider."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if _watching:
            begin(span, parent_context)


_watching: list[bool] = []
_added: list[weakref.ref[Any]] = []
"""Providers that have our processor. Some cannot be hashed."""


def install(module: Any, installer: Installer) -> None:
    """Watch the global provider, now or once it is set; `module` is `opentelemetry.sdk.trace`."""
    api = sys.modules["opentelemetry.trace"]
    installer.wrap_function(api, "_set_tracer_provider", partial(_setting, module, api))
    _watching.append(True)
    installer.on_undo(_watching.clear)
    installer.on_undo(partial(remove_step_source, innermost))
    _add(module, api)


def _setting(module: Any, api: Any, found: Any, args: Any, kwargs: Any) -> None:
    found(*args, **kwargs)
    _add(module, api)


@guarded
def _add(module: Any, api: Any) -> None:
    """Add our processor to the global provider, if it is one of an SDK: once."""
    provider = getattr(api, "_TRACER_PROVIDER", None)
    add = getattr(provider, "add_span_processor", None)
    if add is None or any(known() is provider for known in _added):
        return
    _added[:] = [known for known in _added if known() is not None]
    _added.append(weakref.ref(provider))
    add(type("GlobalSpanProcessor", (_GlobalSpans, module.SpanProcessor), {})())
