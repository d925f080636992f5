"""Runs of the OpenAI Agents SDK: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import openai
import posthog
import pytest

import posthog_llm
from posthog_llm import instrument, trace, uninstrument
from posthog_llm._frameworks import openai_agents
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .trees import named, picture, shown

pytest.importorskip("agents", reason="the frameworks have a nox session")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    OpenAIResponsesModel,
    OutputGuardrail,
    RunConfig,
    Runner,
    RunState,
    function_tool,
    gen_trace_id,
    set_trace_processors,
    set_tracing_disabled,
)
from agents import trace as agents_trace
from openai import AsyncOpenAI
from posthog.ai.openai_agents import PostHogTracingProcessor

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = Reply.text("No.")


@pytest.fixture(autouse=True)
def instrumented(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    instrument(sink)
    set_tracing_disabled(False)  # other tests disable it
    yield
    assert not openai_agents.steps, "a run is never forgotten"
    uninstrument()


@function_tool
def forecast(city: str) -> str:
    """Tell the weather."""
    return "sunny"


@function_tool(failure_error_function=None)
def failing(city: str) -> str:
    """Fail."""
    raise ValueError("no such city")


def agents_model(provider: ScriptedProvider) -> Any:
    client = AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0)
    return OpenAIResponsesModel("gpt-5", client)


def front(provider: ScriptedProvider) -> Any:
    """Return an agent that hands over to another one, which calls a tool."""
    provider.script(
        "/responses",
        Reply.tool_call("transfer_to_meteorologist", {}),
        Reply.tool_call("forecast", {"city": "Rome"}),
        TEXT,
    )
    expert: Any = Agent(name="meteorologist", model=agents_model(provider), tools=[forecast])
    return Agent(name="front", model=agents_model(provider), handoffs=[expert])


HANDOFF = picture("OpenAI Agents SDK")


def run_streamed(agent: Any) -> None:
    async def read() -> None:
        async for _ in Runner.run_streamed(agent, "Rain?").stream_events():
            pass

    asyncio.run(read())


@pytest.mark.parametrize(
    "run",
    [
        lambda agent: Runner.run_sync(agent, "Rain?"),
        lambda agent: asyncio.run(Runner.run(agent, "Rain?")),
        run_streamed,
    ],
    ids=["run_sync", "run", "run_streamed"],
)
def test_agents_with_a_handoff(
    provider: ScriptedProvider, sink: MemorySink, run: Callable[[Any], Any]
) -> None:
    run(front(provider))
    assert shown(sink) == HANDOFF
    assert {event.properties["$ai_framework"] for event in sink.events} == {"openai-agents"}
    handoff = named(sink.events, "handoff")
    assert handoff["$ai_handoff_from_agent"] == "front"
    assert handoff["$ai_handoff_to_agent"] == "meteorologist"
    assert named(sink.events, "meteorologist")["$ai_agent_tools"] == ["forecast"]
    assert named(sink.events, "forecast")["$ai_output_state"] == "sunny"
    whole = named(sink.events, "Agent workflow")
    assert "Rain?" in repr(whole["$ai_input_state"])
    assert "No." in repr(whole["$ai_output_state"])


def test_two_runs_may_name_one_trace(provider: ScriptedProvider, sink: MemorySink) -> None:
    config = RunConfig(trace_id=gen_trace_id())
    agent: Any = Agent(name="front", model=agents_model(provider))  # the model echoes

    async def run(user: str) -> None:
        with posthog_llm.context(distinct_id=user):
            await Runner.run(agent, f"Rain for {user}?", run_config=config)

    async def both() -> None:
        await asyncio.gather(run("ann"), run("ben"))

    asyncio.run(both())
    assert shown(sink).count("trace Agent workflow") == 2
    for event in sink.events:
        other = {"ann": "ben", "ben": "ann"}[str(event.distinct_id)]
        assert f"Rain for {other}?" not in repr(event.properties)


def test_a_group_is_a_session(provider: ScriptedProvider, sink: MemorySink) -> None:
    with agents_trace("chat", group_id="chat-1", trace_id=gen_trace_id()):
        Runner.run_sync(front(provider), "Rain?")
    assert shown(sink)[0] == "trace chat"
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}


def test_agents_inside_our_trace(provider: ScriptedProvider, sink: MemorySink) -> None:
    with trace("request", distinct_id="ann"):
        Runner.run_sync(front(provider), "Rain?")
    assert shown(sink)[:3] == [
        "trace request",
        "  span Agent workflow",
        "    span front (agent)",
    ]
    assert {event.distinct_id for event in sink.events} == {"ann"}


def test_a_tool_that_fails(provider: ScriptedProvider, sink: MemorySink) -> None:
    provider.script("/responses", Reply.tool_call("failing", {"city": "Rome"}))
    agent: Any = Agent(name="front", model=agents_model(provider), tools=[failing])
    with pytest.raises(Exception, match="no such city"):
        Runner.run_sync(agent, "Rain?")
    assert "    span failing (tool) !" in shown(sink)


@function_tool(needs_approval=True)
def book(city: str) -> str:
    """Book a flight."""
    return "booked"


def ask_first(provider: ScriptedProvider) -> Any:
    provider.script("/responses", Reply.tool_call("book", {"city": "Rome"}), TEXT)
    return Agent(name="front", model=agents_model(provider), tools=[book])


def approved(result: Any) -> Any:
    state = result.to_state()
    for interruption in result.interruptions:
        state.approve(interruption)
    return state


RESUMED = [
    "trace Agent workflow",
    "  span front (agent)",
    "    generation gpt-5",
    "    span book (tool)",
    "  span book (tool)",
    "  span front (agent)",
    "    generation gpt-5",
]


def ids(sink: MemorySink, name: str) -> set[Any]:
    return {event.properties.get(name) for event in sink.events}


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_run_that_is_approved_goes_on_in_its_trace(
    provider: ScriptedProvider, sink: MemorySink, is_streamed: bool
) -> None:
    agent = ask_first(provider)

    async def both() -> None:
        with posthog_llm.context(distinct_id="ann"):
            config = RunConfig(group_id="chat-1")
            state = approved(await Runner.run(agent, "Rome?", run_config=config))
        if is_streamed:
            async for _ in Runner.run_streamed(agent, state).stream_events():
                pass
        else:
            assert (await Runner.run(agent, state)).final_output == "No."

    asyncio.run(both())
    assert shown(sink) == RESUMED
    assert {event.distinct_id for event in sink.events} == {"ann"}
    assert ids(sink, "$ai_session_id") == {"chat-1"}
    assert len(ids(sink, "$ai_trace_id")) == 1
    outputs = [e.properties.get("$ai_output_state") for e in sink.events]
    assert outputs.count("booked") == 1


def test_a_run_that_is_resumed_in_another_process_has_a_second_trace_of_its_session(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    agent = ask_first(provider)

    async def both() -> None:
        result = await Runner.run(agent, "Rome?", run_config=RunConfig(group_id="chat-1"))
        stored = approved(result).to_string()
        sys.modules["agents.tracing.traces"]._started_trace_ids.clear()  # as they are there
        await Runner.run(agent, await RunState.from_string(agent, stored))

    asyncio.run(both())
    assert shown(sink) == [*RESUMED[:4], RESUMED[0], *RESUMED[4:]]
    assert ids(sink, "$ai_session_id") == {"chat-1"}


def test_a_run_is_resumed_in_no_other_run_that_named_its_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    config = RunConfig(trace_id=gen_trace_id(), group_id="chat-1")
    agent = ask_first(provider)
    with posthog_llm.context(distinct_id="ann"):
        state = approved(Runner.run_sync(agent, "Rome?", run_config=config))
    with posthog_llm.context(distinct_id="ben"):
        other = Agent(name="other", model=agents_model(provider))
        Runner.run_sync(other, "Rain?", run_config=config)
    with posthog_llm.context(distinct_id="ann"):
        Runner.run_sync(agent, state, run_config=config)
    assert shown(sink) == [
        *RESUMED[:4],
        "trace Agent workflow",
        "  span other (agent)",
        "    generation gpt-5",
        "trace book (tool)",
        "trace front (agent)",
        "  generation gpt-5",
    ]
    assert ids(sink, "$ai_session_id") == {"chat-1"}
    of_ben = {e.properties["$ai_trace_id"] for e in sink.events if e.distinct_id == "ben"}
    assert len(of_ben) == 1


def test_a_guardrail(provider: ScriptedProvider, sink: MemorySink) -> None:
    async def harmless(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    provider.script("/responses", TEXT)
    guard: Any = InputGuardrail(guardrail_function=harmless, name="harmless")
    agent: Any = Agent(name="front", model=agents_model(provider), input_guardrails=[guard])
    Runner.run_sync(agent, "Rain?")
    assert "    span harmless (guardrail)" in shown(sink)
    assert named(sink.events, "harmless")["$ai_guardrail_triggered"] is False


def test_the_trace_of_a_run_says_what_its_own_agent_was_asked_and_said(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """Not what a guardrail's model was, which may end first or last."""

    async def judged(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        await Runner.run(Agent(name="judge", model=agents_model(provider)), "Is this allowed?")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    agent: Any = Agent(
        name="front",
        model=agents_model(provider),
        input_guardrails=[InputGuardrail(guardrail_function=judged, run_in_parallel=False)],
        output_guardrails=[OutputGuardrail(guardrail_function=judged)],
    )
    Runner.run_sync(agent, "Rain?")
    shown(sink)
    (whole,) = [e.properties for e in sink.events if e.event == "$ai_trace"]
    assert whole["$ai_input_state"] == [{"role": "user", "content": "Rain?"}]
    assert "Rain?" in str(whole["$ai_output_state"])
    assert "allowed" not in str(whole)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_run_that_fails_is_a_failed_trace(
    provider: ScriptedProvider, sink: MemorySink, is_streamed: bool
) -> None:
    provider.script("/responses", Reply.error(400, "broken"))
    agent: Any = Agent(name="front", model=agents_model(provider))
    with pytest.raises(openai.BadRequestError):
        run_streamed(agent) if is_streamed else Runner.run_sync(agent, "Rain?")
    assert shown(sink) == [
        "trace Agent workflow !",
        "  span front (agent) !",
        "    generation gpt-5 !",
    ]


def test_a_run_in_which_uninstrument_is_called_is_captured_where_it_began(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    @function_tool
    def leave(city: str) -> str:
        """Stop watching."""
        uninstrument()
        return "sunny"

    provider.script("/responses", Reply.tool_call("leave", {"city": "Rome"}), TEXT)
    agent: Any = Agent(name="front", model=agents_model(provider), tools=[leave])
    Runner.run_sync(agent, "Rain?")
    assert shown(sink) == [
        "trace Agent workflow",
        "  span front (agent)",
        "    generation gpt-5",
        "    span leave (tool)",
    ]
    assert named(sink.events, "leave")["$ai_output_state"] == "sunny"
    assert not posthog_llm.stats().dropped
    provider.script("/responses", TEXT)
    Runner.run_sync(Agent(name="front", model=agents_model(provider)), "Rain?")
    assert len(shown(sink)) == 4


def test_runs_that_posthogs_own_processor_captures_are_its_alone(
    provider: ScriptedProvider,
    sink: MemorySink,
    receiver: PostHogReceiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = posthog.Posthog("phc_key", host=receiver.url)
    theirs = PostHogTracingProcessor(client)
    set_trace_processors([theirs])
    try:
        Runner.run_sync(front(provider), "Rain?")
        provider.script("/responses", TEXT)
        Runner.run_sync(Agent(name="front", model=agents_model(provider)), "Rain?")
    finally:
        set_trace_processors([])
    client.shutdown()
    assert Counter(event["event"] for event in receiver.events)["$ai_generation"] == 4
    assert shown(sink) == []
    assert caplog.text.count("PostHogTracingProcessor") == 1
