"""LangChain and LangGraph: a callback handler that is there in every run of the process.

https://python.langchain.com/docs/concepts/callbacks/
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import UUID

from .._chain import Link
from .._checks import text
from .._context import NOTHING, add_step_source, remove_step_source
from .._exchange import Arguments, Outcome
from .._faults import guarded
from .._imports import imported
from .._narrowing import is_list, mapping
from .._observe.around import Installer
from .._observe.registry import watched
from .._snapshot import Unread
from .langchain_runs import OpenRuns, handlers
from .step import AnyStep, ModelStep, PassedThrough, Step, StepStart

FRAMEWORK = "langchain"
_HIDDEN = "langsmith:hidden"
"""Tag of the runs that LangGraph itself does not show."""
_INTERRUPT = "GraphBubbleUp"
"""Class of what LangGraph raises to wait for a human or to reach an outer graph: no error."""
_ROLES = {
    "human": "user",
    "ai": "assistant",
    "HumanMessageChunk": "user",
    "AIMessageChunk": "assistant",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
}
_OWN_IDS = ("run-", "lc_")
steps = OpenRuns()
by_hand: list[bool] = []
"""Not empty once the application has made a handler itself."""
_latest: ContextVar[Step | ModelStep | None] = ContextVar(
    "posthog_llm_langchain_step", default=None
)
"""The latest run that LangChain's own variable does not name: of a model, or of a retriever."""


@guarded
def innermost() -> Link | None:
    """Return the innermost run around the caller; `None` if there is none."""
    if not steps:
        return None
    link = _configured()
    latest = _latest.get()
    if latest is not None and latest.is_around and not (link and link.is_inside(latest.link)):
        return latest.link
    return link


def _configured() -> Link | None:
    """Return the run that LangChain's own context variable names."""
    module = imported("langchain_core.runnables.config")
    config = mapping(None if module is None else module.var_child_runnable_config.get())
    run_id = getattr(config.get("callbacks"), "parent_run_id", None)
    step = None if run_id is None else steps.around(run_id)
    return None if step is None else step.link


class Runs:
    """What a handler does at the callbacks of a run; mixed into LangChain's own base class.

    Runs by their id are shared by all handlers, so that each is captured once.
    """

    run_inline = True
    """In the task and the thread of the run, whose context variables we set and read."""
    raise_error = True
    """Not ours, which are guarded, but those of the program's own signal handlers."""
    _given: Arguments = NOTHING
    _is_inert = False
    """Whether it is a copy from another process, without the client that events go to."""

    # -- chains, agents, tools, retrievers -------------------------------------------

    @guarded
    def on_chain_start(self, serialized: Any, inputs: Any, **run: Any) -> None:
        name = _name(serialized, run, "chain")
        is_agent = mapping(run.get("metadata")).get("lc_agent_name") == name
        is_hidden = _HIDDEN in (run.get("tags") or ())
        self._begin(run, name, "agent" if is_agent else "chain", inputs, is_hidden)

    @guarded
    def on_tool_start(self, serialized: Any, input_str: str, **run: Any) -> None:
        inputs = run.get("inputs")
        given = input_str if inputs is None else inputs
        self._begin(run, _name(serialized, run, "tool"), "tool", given)

    @guarded
    def on_retriever_start(self, serialized: Any, query: str, **run: Any) -> None:
        step = self._begin(run, _name(serialized, run, "retriever"), "retrieval", query)
        if isinstance(step, Step):
            _latest.set(step)

    def _begin(
        self, run: dict[str, Any], name: str, kind: str, given: Any, is_hidden: bool = False
    ) -> AnyStep | None:
        """Return the step of a run that begins; `None` if it is not watched."""
        if self._is_off():
            return None
        known, parent = self._joined(run), steps.around(run.get("parent_run_id"))
        if known is not None:
            return known
        around = None if parent is None else parent.link
        if is_hidden or _is_left_out(parent) or _reports_to_posthog():
            return self._add(run, parent, PassedThrough(around))
        start = StepStart(name, FRAMEWORK, kind, given, session_id=_thread(run.get("metadata")))
        return self._add(run, parent, Step(start, around, self._new_to(parent)))

    def _is_off(self) -> bool:
        return self._is_inert

    def _joined(self, run: dict[str, Any]) -> AnyStep | None:
        """Return the run if another handler of ours began it; what we were given applies, too."""
        known = steps.begun(run)
        if known is not None and id(self) not in known.given_by:
            known.give(self._given)
            known.given_by |= {id(self)}
        return known

    def _new_to(self, parent: AnyStep | None) -> Arguments:
        """Return what we were given, unless it applies to the parent already."""
        is_known = parent is not None and id(self) in parent.given_by
        return NOTHING if is_known else self._given

    def _add(self, run: dict[str, Any], parent: AnyStep | None, step: AnyStep) -> AnyStep:
        step.given_by = (frozenset() if parent is None else parent.given_by) | {id(self)}
        steps.begin(run, step)
        return step

    @guarded
    def on_chain_end(self, outputs: Any, **run: Any) -> None:
        _end(run, outputs)

    @guarded
    def on_tool_end(self, output: Any, **run: Any) -> None:
        _end(run, output, is_tool=True)

    @guarded
    def on_retriever_end(self, documents: Any, **run: Any) -> None:
        _end(run, documents)

    @guarded
    def on_chain_error(self, error: BaseException, **run: Any) -> None:
        _end(run, error=error)

    on_tool_error = on_retriever_error = on_chain_error

    # -- models ----------------------------------------------------------------------

    @guarded
    def on_chat_model_start(self, serialized: Any, messages: Any, **run: Any) -> None:
        self._begin_model(
            run,
            Unread(_messages, [list(one) for one in messages]),
            _name(serialized, run, "unknown"),
        )

    @guarded
    def on_llm_start(self, serialized: Any, prompts: list[str], **run: Any) -> None:
        self._begin_model(run, Unread(_prompts, list(prompts)), _name(serialized, run, "unknown"))

    def _begin_model(self, run: dict[str, Any], messages: Unread, name: str) -> None:
        parent = steps.around(run.get("parent_run_id"))
        if self._is_off() or self._joined(run) is not None:
            return
        if _is_left_out(parent) or _reports_to_posthog():
            return
        about, asked = mapping(run.get("metadata")), mapping(run.get("invocation_params"))
        tools = asked.get("tools")
        step = ModelStep(
            {
                "input": messages,
                "model": _word(about.get("ls_model_name"), asked.get("model"), name),
                "provider": _word(about.get("ls_provider")),
                "tools": tools if is_list(tools) else None,
                "session_id": _thread(about),
            },
            FRAMEWORK,
            None if parent is None else parent.link,
            self._new_to(parent),
        )
        self._add(run, parent, step)
        _latest.set(step)

    @guarded
    def on_llm_new_token(self, token: str, **run: Any) -> None:
        step = steps.called_back(run["run_id"])
        if isinstance(step, ModelStep):
            step.first_token()

    @guarded
    def on_llm_end(self, response: Any, **run: Any) -> None:
        step = steps.take_called_back(run["run_id"])
        if isinstance(step, ModelStep):
            facts = None if step.is_seen else _answer(response)
            step.abandon() if facts is None else step.end(facts)

    @guarded
    def on_llm_error(self, error: BaseException, **run: Any) -> None:
        step = steps.take_called_back(run["run_id"])
        if isinstance(step, ModelStep):
            step.end({}, error)


class ProcessWide(Runs):
    """What `instrument` installs. It begins nothing after `uninstrument`."""

    def _is_off(self) -> bool:
        return FRAMEWORK not in watched

    def __copy__(self) -> ProcessWide:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ProcessWide:
        return self

    def __reduce__(self) -> Any:
        # A run's configuration contains it. Another process has its own one, or wants none.
        base = sys.modules["langchain_core.callbacks.base"].BaseCallbackHandler
        return base, (), {"run_inline": True}  # else each callback would run in a thread


def _is_left_out(parent: AnyStep | None) -> bool:
    """Whether the run around is captured by another library, and is in none of ours."""
    return parent is not None and parent.link is None


def _end(
    run: dict[str, Any],
    output: Any = None,
    error: BaseException | str | None = None,
    is_tool: bool = False,
) -> None:
    step = steps.take_called_back(run["run_id"])
    if not isinstance(step, Step):
        return
    if any(cls.__name__ == _INTERRUPT for cls in type(error).__mro__):
        step.end(outcome=Outcome.OK)
    else:
        step.end(output, _tool_error(output) if is_tool else error)


# -- what LangChain's objects say -----------------------------------------------------


def _word(*values: Any) -> str | None:
    """Return the first value that is a text. No code runs of values of other types."""
    return next((one for one in values if issubclass(type(one), str) and one), None)


def _name(serialized: Any, run: Mapping[str, Any], default: str) -> str:
    about = mapping(serialized)
    path = about.get("id")
    last = path[-1] if is_list(path) and path else None
    return _word(run.get("name"), about.get("name"), last) or default


def _thread(metadata: Any) -> str | None:
    """Return the conversation that LangGraph's checkpoints belong to."""
    found = mapping(metadata).get("thread_id")
    is_id = issubclass(type(found), (str, int, UUID)) and type(found) is not bool
    return text("thread_id", found) if is_id else None


def _tool_error(output: Any) -> str | None:
    """Return what a tool reports as an error, which the agent sees and goes on."""
    message = getattr(imported("langchain_core.messages.tool"), "ToolMessage", None)
    if message is None or not issubclass(type(output), message) or output.status != "error":
        return None
    return str(output.content)


def _messages(batches: list[list[Any]]) -> list[Any]:
    return [_message(message) for messages in batches for message in messages]


def _prompts(prompts: list[str]) -> list[Any]:
    return [{"role": "user", "content": prompt} for prompt in prompts]


def _message(message: Any) -> Any:
    kind = getattr(message, "type", None)
    if kind is None:
        return message
    said: dict[str, Any] = {"role": _ROLES.get(kind, kind), "content": message.content}
    if calls := getattr(message, "tool_calls", None):
        said["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for call in calls
        ]
    return said


def _answer(response: Any) -> dict[str, Any] | None:
    """Return the arguments of `capture_generation` that a model's result gives.

    `None`: it is from LangChain's cache, and no model ran.
    """
    choices: Sequence[Any] = [choice for one in response.generations for choice in one]
    messages = [getattr(choice, "message", None) for choice in choices]
    first = messages[0] if messages else None
    usage = mapping(getattr(first, "usage_metadata", None))
    about = mapping(getattr(first, "response_metadata", None))
    if "total_cost" in usage:  # LangChain's mark of a result from its cache
        return None
    served = about.get("model_name") or about.get("model")
    reason = about.get("finish_reason") or about.get("stop_reason")
    return {
        "output": [
            {"role": "assistant", "content": choice.text} if said is None else _message(said)
            for choice, said in zip(choices, messages, strict=True)
        ],
        **({"model": served} if isinstance(served, str) else {}),
        "stop_reason": reason if isinstance(reason, str) else None,
        "response_id": _response_id(first, about),
        **_counts(usage),
    }


def _response_id(message: Any, about: Mapping[str, Any]) -> str | None:
    """Return the provider's id of a response; LangChain makes one of its own where none is."""
    found = _word(about.get("id"), getattr(message, "id", None))
    return None if found is None or found.startswith(_OWN_IDS) else found


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of LangChain's `UsageMetadata`, whose input includes cached tokens."""
    read, written = mapping(usage.get("input_token_details")), usage.get("output_token_details")
    return {
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cache_read_tokens": read.get("cache_read"),
        "cache_write_tokens": read.get("cache_creation"),
        "reasoning_tokens": mapping(written).get("reasoning"),
    }


def _reports_to_posthog() -> bool:
    """Whether the run that begins reports to PostHog's own handler, which then captures it."""
    theirs = getattr(imported("posthog.ai.langchain.callbacks"), "CallbackHandler", None)
    if theirs is None:
        return False
    return any(isinstance(one, theirs) for one in handlers() or ())


# -- installation ---------------------------------------------------------------------


def install(module: Any, installer: Installer) -> None:
    """Have LangChain add our handler to each run; `module` is `langchain_core.tracers.context`."""
    base = sys.modules["langchain_core.callbacks.base"].BaseCallbackHandler
    handler = type("ProcessWideHandler", (ProcessWide, base), {})()
    variable: ContextVar[Any] = ContextVar("posthog_llm_langchain_handler", default=handler)
    hook = (variable, True, None, None)
    module._configure_hooks.append(hook)
    installer.on_undo(partial(_remove, module._configure_hooks, hook))
    add_step_source(innermost)
    installer.on_undo(_removed)


def _removed() -> None:
    if not by_hand:
        remove_step_source(innermost)


def _remove(hooks: list[Any], hook: Any) -> None:
    if hook in hooks:
        hooks.remove(hook)
