"""Runs of Microsoft's Agent Framework: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import check_agent_as_a_tool, check_failed_tool, named, nested_trees, picture, shown

for package in ("agent_framework", "agent_framework.openai"):
    pytest.importorskip(package, reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture(autouse=True, scope="module")
def instrumented() -> None:
    from agent_framework.observability import enable_instrumentation

    enable_instrumentation(enable_sensitive_data=True)


@pytest.fixture
def chat(provider: ScriptedProvider) -> Any:
    from agent_framework.openai import OpenAIChatCompletionClient

    return OpenAIChatCompletionClient(model="gpt-4o", api_key="k", base_url=provider.base_url)


def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Nowhere":
        with posthog_llm.span("look up"):
            raise ValueError("no such city")
    return f"sunny in {city}"


def agent_of(chat: Any, *tools: Any, name: str = "helper") -> Any:
    from agent_framework import Agent

    return Agent(chat, name=name, tools=list(tools))


@pytest.fixture
def an_agent(chat: Any, provider: ScriptedProvider) -> Any:
    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )
    return agent_of(chat, weather)


def check(sink: MemorySink, endpoint: str = "chat") -> None:
    events = sink.wait_for(4)
    assert shown(sink) == picture("Agent Framework")
    for event in events:
        assert event.properties["$ai_framework"] == "agent-framework"
        if event.event == "$ai_generation":
            assert event.properties["posthog_llm_endpoint"] == endpoint  # it is from the wire
    agent, tool = named(events, "helper"), named(events, "weather")
    assert agent["$ai_agent_name"] == "helper"
    asked = {"role": "user", "content": [{"type": "text", "text": "weather?"}]}
    assert agent["$ai_input_state"] == [asked]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Sunny."}]}
    assert agent["$ai_output_state"][-1] == answer
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == "sunny in Rome"


def test_agent_framework(an_agent: Any, sink: MemorySink) -> None:
    asyncio.run(an_agent.run("weather?"))
    check(sink)


def test_agent_framework_streamed(an_agent: Any, sink: MemorySink) -> None:
    async def main() -> None:
        assert [update async for update in an_agent.run("weather?", stream=True)]

    asyncio.run(main())
    check(sink)
    streams = [e.properties["$ai_stream"] for e in sink.events if e.event == "$ai_generation"]
    assert streams == [True, True]


def test_agent_framework_with_the_responses_api(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from agent_framework.openai import OpenAIChatClient

    chat = OpenAIChatClient(model="gpt-4o", api_key="k", base_url=provider.base_url)
    provider.script(
        "/responses", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )
    asyncio.run(agent_of(chat, weather).run("weather?"))
    check(sink, "response")


def test_agent_framework_with_a_session(an_agent: Any, sink: MemorySink) -> None:
    asyncio.run(an_agent.run("weather?", session=an_agent.get_session("chat-1")))
    check(sink)
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}


def test_agent_framework_with_private_content(an_agent: Any, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        asyncio.run(an_agent.run("weather?"))
    sink.wait_for(4)
    assert shown(sink) == picture("Agent Framework")
    assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))


def test_agent_framework_whose_tool_fails(
    chat: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Nowhere"}), Reply.text("Sorry.")
    )
    asyncio.run(agent_of(chat, weather).run("weather?"))
    check_failed_tool(sink)


def test_an_agent_of_agent_framework_as_a_tool_inside_our_trace(
    chat: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script(
        "/chat/completions",
        *(Reply.tool_call("expert", {"task": "Rome?"}), Reply.text("Sun."), Reply.text("Sunny.")),
    )
    with posthog_llm.trace("request", distinct_id="user-1", session_id="mine"):
        asyncio.run(agent_of(chat, agent_of(chat, name="expert").as_tool()).run("weather?"))
    check_agent_as_a_tool(sink)


def test_a_workflow_of_agent_framework(chat: Any, sink: MemorySink) -> None:
    from agent_framework import WorkflowBuilder

    one, two = (agent_of(chat, name=name) for name in ("one", "two"))
    workflow = WorkflowBuilder(start_executor=one).add_edge(one, two).build()
    asyncio.run(workflow.run("weather?"))
    agents = [(f"span {name} agent", ("generation gpt-4o",)) for name in ("one", "two")]
    assert nested_trees(sink.wait_for(5)) == [("trace workflow.run chain", *agents)]


def test_two_runs_of_agent_framework_at_the_same_time(chat: Any, sink: MemorySink) -> None:
    async def main() -> None:
        await asyncio.gather(*(agent_of(chat, name=name).run("hi") for name in ("one", "two")))

    asyncio.run(main())
    assert sorted(nested_trees(sink.wait_for(4))) == [
        (f"trace {name} agent", ("generation gpt-4o",)) for name in ("one", "two")
    ]
