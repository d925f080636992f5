"""Runs of AutoGen's agents: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import check_agent_as_a_tool, check_failed_tool, named, nested_trees, picture, shown

for package in ("autogen_agentchat", "autogen_ext.models.openai"):
    pytest.importorskip(package, reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


async def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Nowhere":
        with posthog_llm.span("look up"):
            raise ValueError("no such city")
    return f"sunny in {city}"


def agent_of(
    provider: ScriptedProvider, *tools: Any, name: str = "helper", streamed: bool = False
) -> Any:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    client = OpenAIChatCompletionClient(
        model="gpt-4o", api_key="k", base_url=provider.base_url, include_name_in_message=False
    )
    return AssistantAgent(
        name,
        model_client=client,
        tools=list(tools),
        reflect_on_tool_use=bool(tools),
        model_client_stream=streamed,
    )


@pytest.fixture
def replies(provider: ScriptedProvider) -> None:
    call = Reply.tool_call("weather", {"city": "Rome"})
    provider.script("/chat/completions", call, Reply.text("Sunny."))


def check(sink: MemorySink, streamed: bool = False) -> None:
    events = sink.wait_for(4)
    assert shown(sink) == picture("AutoGen")
    for event in events:
        assert event.properties["$ai_framework"] == "autogen"
        if event.event == "$ai_generation":
            assert event.properties["posthog_llm_endpoint"] == "chat"  # it is from the wire
            assert event.properties["$ai_stream"] is streamed
    assert named(events, "helper")["$ai_agent_name"] == "helper"


@pytest.mark.usefixtures("replies")
def test_autogen(provider: ScriptedProvider, sink: MemorySink) -> None:
    async def main() -> None:
        await agent_of(provider, weather).run(task="weather?")

    asyncio.run(main())
    check(sink)


@pytest.mark.usefixtures("replies")
def test_autogen_streamed(provider: ScriptedProvider, sink: MemorySink) -> None:
    async def main() -> None:
        agent = agent_of(provider, weather, streamed=True)
        assert [message async for message in agent.run_stream(task="weather?")]

    asyncio.run(main())
    check(sink, streamed=True)


@pytest.mark.usefixtures("replies")
def test_autogen_with_private_content(provider: ScriptedProvider, sink: MemorySink) -> None:
    async def main() -> None:
        with posthog_llm.context(privacy_mode=True):
            await agent_of(provider, weather).run(task="weather?")

    asyncio.run(main())
    check(sink)
    assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))


def test_autogen_whose_tool_fails(provider: ScriptedProvider, sink: MemorySink) -> None:
    call = Reply.tool_call("weather", {"city": "Nowhere"})
    provider.script("/chat/completions", call, Reply.text("Sorry."))

    async def main() -> None:
        await agent_of(provider, weather).run(task="weather?")

    asyncio.run(main())
    check_failed_tool(sink)


def test_an_autogen_agent_as_a_tool_inside_our_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from autogen_agentchat.tools import AgentTool

    call = Reply.tool_call("expert", {"task": "Rome?"})
    provider.script("/chat/completions", call, Reply.text("Sun."), Reply.text("Sunny."))

    async def main() -> None:
        expert = AgentTool(agent_of(provider, name="expert"))
        with posthog_llm.trace("request", distinct_id="user-1", session_id="mine"):
            await agent_of(provider, expert).run(task="weather?")

    asyncio.run(main())
    check_agent_as_a_tool(sink)


@pytest.mark.parametrize("how", ["alone", "inside our trace"])
def test_a_team_of_autogen(provider: ScriptedProvider, sink: MemorySink, how: str) -> None:
    """No span is around a team: each turn is a trace, unless one of ours is around."""
    from autogen_agentchat.conditions import MaxMessageTermination
    from autogen_agentchat.teams import RoundRobinGroupChat

    async def main() -> None:
        agents = [agent_of(provider, name=name) for name in ("one", "two")]
        team = RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(3))
        if how == "alone":
            await team.run(task="weather?")
            return
        with posthog_llm.trace("team"):
            await team.run(task="weather?")

    asyncio.run(main())
    call = ("generation gpt-4o",)
    if how == "alone":
        turns = [(f"trace {name} agent", call) for name in ("one", "two")]
        assert nested_trees(sink.wait_for(4)) == turns
    else:
        turns = [(f"span {name} agent", call) for name in ("one", "two")]
        assert nested_trees(sink.wait_for(5)) == [("trace team", *turns)]


def test_two_runs_of_autogen_at_the_same_time(provider: ScriptedProvider, sink: MemorySink) -> None:
    async def main() -> None:
        agents = [agent_of(provider, name=name) for name in ("one", "two")]
        await asyncio.gather(*(agent.run(task="hi") for agent in agents))

    asyncio.run(main())
    assert sorted(nested_trees(sink.wait_for(4))) == [
        (f"trace {name} agent", ("generation gpt-4o",)) for name in ("one", "two")
    ]
