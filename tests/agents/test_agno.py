"""Runs of Agno: each is one trace, with its teams, agents, tools and generations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("agno", "openinference.instrumentation.agno"):
    pytest.importorskip(package, reason="the framework has a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def model(tracers: TracerProvider, provider: ScriptedProvider) -> Iterator[Callable[[], Any]]:
    from agno.models.openai import OpenAIChat
    from openinference.instrumentation.agno import AgnoInstrumentor

    AgnoInstrumentor().instrument()
    yield lambda: OpenAIChat(id="gpt-4o", base_url=provider.base_url, api_key="k")
    AgnoInstrumentor().uninstrument()


@pytest.fixture
def agent(model: Callable[[], Any]) -> Callable[..., Any]:
    from agno.agent import Agent

    def made(*tools: Any, name: str = "helper") -> Any:
        return Agent(name=name, model=model(), tools=list(tools), telemetry=False)

    return made


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def looked_up(city: str) -> str:
    """Tell the weather."""
    with posthog_llm.span("look up"):
        if city == "Atlantis":
            raise LookupError("no such city")
        return f"sunny in {city}"


async def streamed(agent: Any) -> list[Any]:
    return [chunk async for chunk in agent.arun("weather?", stream=True)]


@pytest.mark.parametrize("how", ["plain", "async", "streamed", "async streamed", "private"])
def test_an_agent(
    agent: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink, how: str
) -> None:
    call = Reply.tool_call("weather", {"city": "Rome"})
    provider.script("/chat/completions", call, Reply.text("Sunny."))
    made = agent(weather)
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        if how == "streamed":
            assert list(made.run("weather?", stream=True))
        elif how == "async streamed":
            assert asyncio.run(streamed(made))
        elif how == "async":
            assert asyncio.run(made.arun("weather?")).content == "Sunny."
        else:
            assert made.run("weather?").content == "Sunny."
    assert shown(sink) == picture("Agno")
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    assert {event.properties["$ai_framework"] for event in sink.events} == {"agno"}
    generations = [event for event in sink.events if event.event == "$ai_generation"]
    assert [event.properties["posthog_llm_endpoint"] for event in generations] == ["chat"] * 2
    assert {event.properties["$ai_stream"] for event in generations} == {"streamed" in how}
    if how == "private":
        assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))
        return
    tool, run = named(sink.events, "weather"), named(sink.events, "helper")
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == "sunny in Rome"
    assert (run["$ai_input_state"], run["$ai_output_state"]) == ("weather?", "Sunny.")
    assert run["$ai_agent_name"] == "helper"


def test_a_tool_that_fails_in_a_session(
    agent: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    call = Reply.tool_call("looked_up", {"city": "Atlantis"})
    provider.script("/chat/completions", call, Reply.text("Unknown."))
    run = agent(looked_up).run("weather?", session_id="chat-1", user_id="user-7")
    assert run.content == "Unknown."
    assert shown(sink) == [
        "trace helper (agent)",
        "  generation gpt-4o",
        "  span looked_up (tool) !",
        "    span look up !",
        "  generation gpt-4o",
    ]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    assert "no such city" in named(sink.events, "looked_up")["$ai_error"]


def test_a_team(
    agent: Callable[..., Any],
    model: Callable[[], Any],
    provider: ScriptedProvider,
    sink: MemorySink,
) -> None:
    from agno.team import Team

    provider.script(
        "/chat/completions",
        Reply.tool_call("delegate_task_to_member", {"member_id": "expert", "task": "weather"}),
        Reply.text("Sunny."),
        Reply.text("It is sunny."),
    )
    team = Team(name="front", members=[agent(name="expert")], model=model(), telemetry=False)
    assert team.run("weather?").content == "It is sunny."
    assert shown(sink) == [
        "trace front (agent)",
        "  generation gpt-4o",
        "  span delegate_task_to_member (tool)",
        "  span expert (agent)",
        "    generation gpt-4o",
        "  generation gpt-4o",
    ]


def test_runs_beside_each_other_in_one_trace(agent: Callable[..., Any], sink: MemorySink) -> None:
    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.gather(agent(looked_up).arun("hello"), agent(looked_up).arun("again"))

    asyncio.run(main())
    assert posthog_llm.flush(10)
    tool = ("span looked_up tool", ("span look up",))
    run = ("span helper agent", ("generation gpt-4o",), tool, ("generation gpt-4o",))
    assert nested_trees(sink.events) == [("trace request", run, run)]
