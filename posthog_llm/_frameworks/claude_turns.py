"""One conversation with the CLI of the Claude Agent SDK: what is written to it and read from it.

https://code.claude.com/docs/en/agent-sdk/python
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any, NamedTuple

from .._chain import Link
from .._context import chain, current
from .._exchange import Arguments, Failure, Outcome
from .._faults import guarded
from .._narrowing import is_list, is_mapping, mapping
from .._observe.call_queue import call_queue
from .._providers.chat import text_or_none
from .._providers.parsing import parse
from .claude_answers import FRAMEWORK, Answer, Tally, end_alone, now
from .step import OpenSteps, Step, StepStart

_MOST = 200
"""Most prompts that wait, subagents, and latest tools, of a conversation."""
_CONTROL = '{"type": "control_'
"""How the SDK's own messages to the CLI begin; the application's may be in any order."""
_INTERRUPT = '"subtype": "interrupt"'
_ABORTED = ("aborted_streaming", "aborted_tools")
_TOOL_ID = "claudecode/toolUseId"
"""Where a call of a tool in this process names the model's request for it."""
_NO_MODEL = "<synthetic>"
"""The model of messages that the CLI wrote itself."""

steps = OpenSteps()
"""The tools that run, by their conversation and their id."""


class Prompt(NamedTuple):
    """A message of the application's, and everything that applied where it was sent."""

    message: Any
    given: Arguments
    context: Context
    at: tuple[float, float]

    def is_private(self) -> bool:
        """Whether it is to be withheld from a turn that takes up others, too."""
        around = self.context.run(current)
        is_out = self.given.capture is False or around.capture is False
        return is_out or bool(self.given.privacy_mode or around.privacy_mode)


class Agent:
    """One agent of the conversation: the main one, or a subagent."""

    def __init__(self, link: Link, said: list[Any], since: tuple[float, float]) -> None:
        self.link = link
        """The step around what it does."""
        self.said = said
        """What the model was not given yet."""
        self.since = since
        self.answer: Answer | None = None
        self.last_id: Any = None

    def hear(self, message: Mapping[str, Any]) -> None:
        """Note a message to the model, after which it may answer."""
        self.said.append({"role": "user", "content": message.get("content")})
        self.since = now()

    def begin(self, message_id: Any, model: Any, provider: str) -> Answer:
        said, self.said = self.said, []
        self.last_id = message_id
        with _within(self.link):
            start = {"model": text_or_none(model) or "unknown", "provider": provider}
            self.answer = Answer(message_id, {**start, "input": said or None}, self.since)
        return self.answer

    def over(self) -> Answer | None:
        """Return the answer that has ended, if any."""
        answer, self.answer = self.answer, None
        if answer is not None:
            self.since = now()
        return answer


class Turn:
    """What the agent does for the prompts that it takes up, until its result."""

    def __init__(self, prompts: list[Prompt], given: Arguments, session_id: str | None) -> None:
        said = [prompt.message for prompt in prompts]
        name = given.span_name or "Claude agent"
        start = StepStart(name, FRAMEWORK, "agent", said or None, session_id=session_id)
        self.step = Step(start, None, replace(given, span_name=None))
        self.since = prompts[0].at if prompts else now()
        self.agent = Agent(self.step.link, said, self.since)
        self.tally = Tally()
        self.is_interrupted = False

    def end(
        self,
        output: Any = None,
        error: BaseException | Failure | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.step.times = (self.since[0], now()[1] - self.since[1])
        self.step.end(output, error, outcome)


class Conversation:
    """Everything between one process of the CLI and the application, in both directions."""

    def __init__(self, given: Arguments, provider: str) -> None:
        """`provider`: who serves the model."""
        self._key, self._provider = object(), provider
        self._waiting: deque[Prompt] = deque(maxlen=_MOST)
        self._last = Prompt(None, given, copy_context(), now())
        """The latest prompt: what the agent does by itself later on belongs to its user."""
        self._turn: Turn | None = None
        self._had_turns = False
        self._subagents: OrderedDict[str, Agent] = OrderedDict()
        """Those of subagents, by the tool that runs them."""
        self._tools: OrderedDict[str, tuple[Link, str | None]] = OrderedDict()
        """The step of each tool, and the tool around it."""
        self._session_id: str | None = None
        self._model: Any = None
        self._read = {
            "system": self._read_system,
            "assistant": self._read_answer,
            "stream_event": self._read_event,
            "user": self._read_user,
            "result": self._read_result,
        }
        call_queue.unended.add(self)

    # -- what is written ---------------------------------------------------------------

    @guarded
    def wrote(self, data: Any, given: Arguments) -> None:
        """Note what is written, in the context of who writes."""
        if not isinstance(data, str):
            return
        if data.startswith(_CONTROL):
            if self._turn is not None and _INTERRUPT in data[:200]:
                self._turn.is_interrupted = True
            return
        said = mapping(parse(data.encode("utf-8", "surrogatepass")))
        if said.get("type") == "user":
            self._waiting.append(Prompt(said.get("message"), given, copy_context(), now()))

    # -- what is read ------------------------------------------------------------------

    @guarded
    def read(self, message: Any) -> Link | None:
        """Note a message; return what is around the answer that the CLI asks for, if it asks."""
        said = mapping(message)
        if said.get("type") == "control_request":
            return self._around(mapping(said.get("request")))
        self._session_id = text_or_none(said.get("session_id")) or self._session_id
        read = self._read.get(str(said.get("type")))
        if read is not None:
            read(said)
        return None

    @property
    def is_open(self) -> bool:
        """Whether a turn is under way."""
        return self._turn is not None

    def _begun(self) -> Turn:
        """Return the turn under way, which begins with the prompts that wait, if there is none."""
        if self._turn is None:
            prompts = list(self._waiting)
            self._waiting.clear()
            self._last = prompts[-1] if prompts else self._last
            make = self._last.context.run
            given = self._last.given
            if any(prompt.is_private() for prompt in prompts):
                given = replace(given, privacy_mode=True)
            self._turn = make(Turn, prompts, given, self._session_id)
            self._had_turns = True
        return self._turn

    def _agent(self, message: Mapping[str, Any]) -> Agent:
        parent = text_or_none(message.get("parent_tool_use_id"))
        if parent is None:
            return self._begun().agent
        agent = self._subagents.get(parent)
        if agent is None:
            is_known = parent in self._tools
            link = self._tools[parent][0] if is_known else self._begun().step.link
            agent = self._subagents[parent] = Agent(link, [], now())
            if len(self._subagents) > _MOST:
                self._end_answer(self._subagents.popitem(last=False)[1])
        return agent

    def _read_system(self, message: Mapping[str, Any]) -> None:
        if message.get("subtype") == "init":
            self._model = message.get("model")
            if self._turn is not None or self._waiting:
                self._begun().agent.since = now()  # the CLI was starting until now

    def _read_answer(self, message: Mapping[str, Any]) -> None:
        said, agent = mapping(message.get("message")), self._agent(message)
        if said.get("model") == _NO_MODEL:
            if error := text_or_none(message.get("error")):
                self._end_answer(agent)
                agent.begin(None, self._model, self._provider).end(
                    Failure(error, _text(said.get("content")))
                )
                agent.over()
            return
        answer = self._answer(agent, said)
        if answer is not None:
            answer.add(said)
        content = said.get("content")
        for block in content if is_list(content) else ():
            if is_mapping(block) and block.get("type") == "tool_use":
                self._begin_tool(block, agent, message)

    def _read_event(self, message: Mapping[str, Any]) -> None:
        event, agent = mapping(message.get("event")), self._agent(message)
        if event.get("type") == "message_start":
            answer = self._answer(agent, mapping(event.get("message")))
            if answer is not None:
                answer.add(mapping(event.get("message")))
        elif agent.answer is not None:
            agent.answer.add_event(event)
            if event.get("type") == "message_stop":
                self._end_answer(agent)

    def _answer(self, agent: Agent, said: Mapping[str, Any]) -> Answer | None:
        """Return the answer that a message is a part of; `None` if it has ended already."""
        message_id = said.get("id")
        if agent.answer is not None and agent.answer.id == message_id:
            return agent.answer
        if message_id is not None and agent.last_id == message_id:
            return None
        self._end_answer(agent)
        return agent.begin(message_id, said.get("model"), self._provider)

    def _end_answer(self, agent: Agent) -> None:
        answer = agent.over()
        if answer is not None and self._turn is not None and agent is self._turn.agent:
            self._turn.tally.take(answer)
        elif answer is not None:
            end_alone(answer)

    def _read_user(self, message: Mapping[str, Any]) -> None:
        if message.get("isReplay"):  # our own prompts, which the application asked to see again
            return
        said, agent = mapping(message.get("message")), self._agent(message)
        agent.hear(said)
        content = said.get("content")
        for block in content if is_list(content) else ():
            if is_mapping(block) and block.get("type") == "tool_result":
                self._end_tool(block)

    def _read_result(self, message: Mapping[str, Any]) -> None:
        if self._turn is None and not self._waiting:
            return
        turn = self._begun()
        self._end_answer(turn.agent)
        turn.tally.end(message.get("usage"))
        is_stopped = turn.is_interrupted or message.get("terminal_reason") in _ABORTED
        outcome = Outcome.CANCELLED if is_stopped else None
        self._end_tools(outcome or Outcome.DROPPED)
        output = message.get("structured_output")
        output = message.get("result") if output is None else output
        turn.end(output, None if is_stopped else _failure(message), outcome)
        self._turn = None

    # -- tools -------------------------------------------------------------------------

    def _begin_tool(
        self, block: Mapping[str, Any], agent: Agent, message: Mapping[str, Any]
    ) -> None:
        name, tool_id = str(block.get("name")), str(block.get("id"))
        if tool_id in self._tools:
            return
        with _within(agent.link):
            step = Step(StepStart(name, FRAMEWORK, "tool", block.get("input")), None)
        self._tools[tool_id] = step.link, text_or_none(message.get("parent_tool_use_id"))
        steps.add((self._key, tool_id), step)
        if len(self._tools) > _MOST:
            oldest = steps.take((self._key, self._tools.popitem(last=False)[0]))
            if oldest is not None:
                oldest.abandon()

    def _end_tool(self, block: Mapping[str, Any]) -> None:
        tool_id = str(block.get("tool_use_id"))
        step = steps.take((self._key, tool_id))
        if tool_id in self._subagents:
            self._end_answer(self._subagents[tool_id])
        if isinstance(step, Step):
            content = block.get("content")
            step.end(content, (_text(content) or "Error") if block.get("is_error") else None)

    def _end_tools(self, outcome: Outcome, *, all_of_them: bool = False) -> None:
        """End the tools that are still open, but not those of subagents in the background."""
        still = {tool_id for tool_id in self._tools if steps.get((self._key, tool_id))}
        for tool_id in still:
            around = self._tools[tool_id][1]
            step = steps.get((self._key, tool_id))
            if isinstance(step, Step) and (all_of_them or around is None or around in still):
                steps.take((self._key, tool_id))
                step.end(outcome=outcome)

    def _around(self, request: Mapping[str, Any]) -> Link | None:
        """Return the step that a hook, a question or a tool of this process is part of."""
        called = mapping(mapping(request.get("message")).get("params"))
        tool_id = request.get("tool_use_id") or mapping(called.get("_meta")).get(_TOOL_ID)
        known = self._tools.get(str(tool_id))
        if known is not None:
            return known[0]
        return None if self._turn is None else self._turn.step.link

    # -- the end -----------------------------------------------------------------------

    @guarded
    def over(self, error: BaseException | None) -> None:
        """End what is open: nothing more is read. Idempotent."""
        is_failure = isinstance(error, Exception)
        if self._waiting and self._turn is None and (is_failure or not self._had_turns):
            self._begun()
        turn, self._turn = self._turn, None
        agents = list(self._subagents.values())
        self._subagents.clear()
        for agent in agents if turn is None else [*agents, turn.agent]:
            answer = agent.over()
            if answer is not None:
                end_alone(answer, error)
        outcome = None if is_failure else Outcome.CLOSED_EARLY
        self._end_tools(outcome or Outcome.DROPPED, all_of_them=True)
        if turn is None:
            return
        turn.tally.end()
        if error is None:
            turn.end(error=Failure("Incomplete", "the CLI ended without a result"))
        else:
            turn.end(error=error if is_failure else None, outcome=outcome)

    def abandon(self) -> None:
        """End it because the process is ending."""
        self.over(GeneratorExit())


@contextmanager
def _within(link: Link) -> Generator[None]:
    """Make a step inside of another one, whatever the reader of the CLI was started in."""
    outer = chain.get()
    chain.set(link)
    try:
        yield
    finally:
        chain.set(outer)


def _failure(result: Mapping[str, Any]) -> Failure | None:
    """Return why a turn failed, in the order in which the SDK itself chooses the text."""
    kind = str(result.get("subtype"))
    if not result.get("is_error"):
        return None
    errors, status = result.get("errors"), result.get("api_error_status")
    reported = "; ".join(str(error) for error in errors) if is_list(errors) else ""
    return Failure(
        "APIError" if kind == "success" else kind,
        reported or text_or_none(result.get("result")) or kind,
        status=status if type(status) is int else None,
    )


def _text(content: Any) -> str | None:
    """Return the text of a message's content."""
    if not is_list(content):
        return text_or_none(content)
    return "\n".join(str(block["text"]) for block in content if "text" in mapping(block)) or None
