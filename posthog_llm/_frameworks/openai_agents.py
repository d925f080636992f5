"""The OpenAI Agents SDK: its traces and spans, seen where it passes them to its processors.

https://openai.github.io/openai-agents-python/tracing/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from .._chain import Link, only
from .._context import add_step_source, around, nested, remove_step_source
from .._exchange import Arguments
from .._faults import guarded, warn_once
from .._imports import imported
from .._narrowing import is_mapping, mapping
from .._observe.around import Installer
from .._roots import Root
from .step import AnyStep, ModelStep, OpenSteps, PassedThrough, Step, StepKey, StepStart

FRAMEWORK = "openai-agents"
_TYPES = {
    "agent": "agent",
    "function": "tool",
    "handoff": "handoff",
    "guardrail": "guardrail",
    "mcp_tools": "mcp_tools",
    "custom": "custom",
}
"""PostHog's words for the SDK's types of span."""
_MODELS = ("generation", "response")

_MOST_ENDED = 1_000

steps = OpenSteps()
"""Open spans by their id, and traces by their object's: two runs may name one trace."""
_ended: OrderedDict[str, tuple[Arguments, Root] | None] = OrderedDict()
"""The latest traces that ended, by the SDK's id; `None` for an id of several."""


@guarded
def innermost() -> Link | None:
    """Return the innermost span around the caller; `None` if there is none."""
    scope = imported("agents.tracing.scope")
    if scope is None or not steps:
        return None
    span = scope.Scope.get_current_span()
    step = None if span is None else steps.get(span.span_id)
    if step is None:
        step = _trace_step(scope.Scope.get_current_trace())
    return None if step is None else step.link


def _trace_step(trace: Any) -> AnyStep | None:
    return None if trace is None else steps.get(id(trace))


# -- traces and spans -----------------------------------------------------------------


@guarded
def _begin_trace(processors: Any, trace: Any) -> None:
    if _reports_to_posthog(processors):
        steps.add(id(trace), PassedThrough.captured_elsewhere())
        return
    about = StepStart(trace.name, FRAMEWORK, session_id=_text(trace.group_id))
    steps.add(id(trace), Step(about, None))


@guarded
def _end_trace(processors: Any, trace: Any) -> None:
    step = steps.take(id(trace))
    if isinstance(step, Step):
        step.end()
        _remember(trace.trace_id, step.link)
    _stop_watching()


@guarded
def _begin_span(processors: Any, span: Any) -> None:
    parent = steps.get(span.parent_id) if span.parent_id else _trace_of(span)
    if parent is None and not span.parent_id:
        parent = _resumed(processors, span)
    if parent is None:
        return  # of a trace that we do not capture
    data = span.span_data
    steps.add(span.span_id, _begun(data, parent))


def _remember(trace_id: str, link: Link) -> None:
    """Remember what applies inside a trace that has ended: a run may be resumed in it."""
    root: Any = link.root
    _ended[trace_id] = None if trace_id in _ended else (link.values, root.ended())
    if len(_ended) > _MOST_ENDED:
        _ended.popitem(last=False)


def _resumed(processors: Any, span: Any) -> AnyStep | None:
    """Return what is around the outermost span of a resumed run.

    The SDK resumes a trace of this process without its processors: no trace begins or ends. In
    another process, it begins one.
    """
    cls = getattr(imported("agents.tracing.traces"), "ReattachedTrace", None)
    scope: Any = imported("agents.tracing.scope")
    trace = scope.Scope.get_current_trace()
    if cls is None or type(trace) is not cls or trace.trace_id != span.trace_id:
        return None
    if _reports_to_posthog(processors):
        return None
    known = _ended.get(trace.trace_id)
    if known is None:  # of two runs that named this trace, or too long ago: a trace of its own
        values = Arguments(session_id=_text(trace.group_id))
        return PassedThrough(Link(object(), nested, values, around()))
    link = Link(object(), only, known[0], None)
    link.root, link.framework = known[1], FRAMEWORK
    return PassedThrough(link)


def _trace_of(span: Any) -> AnyStep | None:
    scope: Any = imported("agents.tracing.scope")
    trace = scope.Scope.get_current_trace()
    return None if trace is None or trace.trace_id != span.trace_id else _trace_step(trace)


def _begun(data: Any, parent: AnyStep) -> AnyStep:
    if parent.link is not None and parent.link.is_captured_elsewhere:
        return PassedThrough(parent.link)
    if data.type in _MODELS:
        return ModelStep({"model": getattr(data, "model", None)}, FRAMEWORK, parent.link)
    if data.type not in _TYPES:  # turns, tasks, audio: noise around what models and tools do
        return PassedThrough(parent.link)
    kind = _TYPES[data.type]
    return Step(StepStart(_name(data), FRAMEWORK, kind, getattr(data, "input", None)), parent.link)


@guarded
def _end_span(processors: Any, span: Any) -> None:
    step, data = steps.take(span.span_id), span.span_data
    error = _error(span.error)
    if isinstance(step, ModelStep):
        answer = _answer(data)
        trace, agent = _trace_of(span), steps.get(span.parent_id)
        is_own = agent is not None and agent.link is not None and _is_directly_in(trace, agent.link)
        if isinstance(trace, Step) and is_own:  # it has no input and output itself
            trace.note_input(answer["input"])
            trace.output = answer["output"]
        step.end(answer, error)
    elif isinstance(step, Step):
        step.details.update(_details(data))
        step.note_input(getattr(data, "input", None) or getattr(data, "data", None))
        step.end(_output(data), error)
        trace = _trace_of(span)
        if isinstance(trace, Step) and error is not None and _is_directly_in(trace, step.link):
            trace.error = error


def _is_directly_in(trace: AnyStep | None, link: Link) -> bool:
    """Whether a step is in no other than the trace's, such as a guardrail's or a tool's."""
    key = link.key
    return isinstance(trace, Step) and isinstance(key, StepKey) and key.parent_id == trace.id


def _name(data: Any) -> str:
    return str(getattr(data, "name", None) or getattr(data, "server", None) or data.type)


def _output(data: Any) -> Any:
    return getattr(data, "result" if data.type == "mcp_tools" else "output", None)


def _details(data: Any) -> dict[str, Any]:
    found = {
        "agent_handoffs": getattr(data, "handoffs", None),
        "agent_tools": getattr(data, "tools", None),
        "agent_output_type": getattr(data, "output_type", None),
        "handoff_from": getattr(data, "from_agent", None),
        "handoff_to": getattr(data, "to_agent", None),
        "guardrail_triggered": getattr(data, "triggered", None),
        "mcp_server": getattr(data, "server", None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _error(error: Any) -> str | None:
    """Return what a `SpanError` says; `None` if there is no error."""
    if not is_mapping(error):
        return None
    data = mapping(error.get("data"))
    cause = data.get("error")
    return f"{error.get('message')}: {cause}" if cause else str(error.get("message"))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


# -- models, where nothing was seen on the wire ------------------------------------------


def _answer(data: Any) -> dict[str, Any]:
    """Return the arguments of `capture_generation` that a span of a model's answer gives."""
    response = getattr(data, "response", None)
    usage = mapping(getattr(data, "usage", None))
    return {
        "input": data.input,
        "output": getattr(data, "output", None) or getattr(response, "output", None),
        "model": getattr(data, "model", None) or getattr(response, "model", None) or "unknown",
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cache_read_tokens": mapping(usage.get("input_tokens_details")).get("cached_tokens"),
        "reasoning_tokens": mapping(usage.get("output_tokens_details")).get("reasoning_tokens"),
        "response_id": getattr(response, "id", None),
    }


# -- installation -----------------------------------------------------------------------


_ends: list[Callable[[], object]] = []
"""Steps that remove the wrappers of the functions that end traces and spans."""
_leaving: list[bool] = []
"""Not empty after `uninstrument`."""


def _reports_to_posthog(processors: Any) -> bool:
    """Whether PostHog's own processor is there, too; then it captures the spans."""
    theirs = imported("posthog.ai.openai_agents.processor")
    cls = getattr(theirs, "PostHogTracingProcessor", None)
    found = cls is not None and any(isinstance(one, cls) for one in processors._processors)
    if found:
        warn_once("PostHogTracingProcessor captures the runs of OpenAI Agents; remove it")
    return found


def install(module: Any, installer: Installer) -> None:
    """Watch the processors; `module` is `agents.tracing.provider`."""
    cls = module.SynchronousMultiTracingProcessor
    _leaving.clear()
    ends = installer.with_undo(_ends)
    installer.wrap(cls, "on_trace_start", partial(_noting, _begin_trace))
    installer.wrap(cls, "on_span_start", partial(_noting, _begin_span))
    ends.wrap(cls, "on_span_end", partial(_noting, _end_span), is_below=True)
    ends.wrap(cls, "on_trace_end", partial(_noting, _end_trace), is_below=True)
    add_step_source(innermost)
    installer.on_undo(partial(remove_step_source, innermost))
    installer.on_undo(_leave)


def _leave() -> None:
    _leaving.append(True)
    _stop_watching()


def _stop_watching() -> None:
    """Remove what watches the ends, once `uninstrument` was called and the last run is over."""
    if _leaving and not steps:
        _leaving.clear()
        while _ends:
            _ends.pop()()


def forget() -> None:
    """Forget the traces that ended."""
    _ended.clear()


def _noting(noted: Any, send: Any, processors: Any, args: Any, kwargs: Any) -> Any:
    noted(processors, args[0] if args else next(iter(kwargs.values())))
    return send(*args, **kwargs)
