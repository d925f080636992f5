"""Runs of pydantic-ai: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

pytest.importorskip("pydantic_ai", reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def pydantic_agent(provider: ScriptedProvider) -> Iterator[Any]:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )
    place = OpenAIProvider(base_url=provider.base_url, api_key="k")
    Agent.instrument_all()
    agent = Agent(OpenAIChatModel("gpt-4o", provider=place), name="helper")

    @agent.tool_plain
    def weather(city: str) -> str:
        if city == "Nowhere":
            raise ValueError("no such city")
        return f"sunny in {city}"

    yield agent
    Agent.instrument_all(False)


RUN = (
    "trace helper agent",
    ("generation gpt-4o",),
    ("span weather tool",),
    ("generation gpt-4o",),
)


def check_pydantic(sink: MemorySink) -> None:
    events = sink.wait_for(4)
    assert nested_trees(events) == [RUN]
    agent, tool = named(events, "helper"), named(events, "weather")
    assert agent["$ai_input_state"] == [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]}
    ]
    assert agent["$ai_output_state"] == "Sunny."
    assert agent["$ai_agent_name"] == "helper"
    assert (tool["$ai_input_state"], tool["$ai_output_state"]) == (
        {"city": "Rome"},
        "sunny in Rome",
    )
    for event in events:
        assert event.properties["$ai_framework"] == "pydantic-ai"
        assert event.properties["$ai_session_id"] == agent["$ai_session_id"]
        if event.event == "$ai_generation":
            assert event.properties["posthog_llm_endpoint"] == "chat"  # it is from the wire
            assert event.properties["$ai_input_tokens"] >= 9


def test_pydantic_ai(pydantic_agent: Any, sink: MemorySink) -> None:
    pydantic_agent.run_sync("weather?")
    check_pydantic(sink)
    assert shown(sink) == picture("pydantic-ai")


def test_pydantic_ai_async_with_a_conversation(pydantic_agent: Any, sink: MemorySink) -> None:
    asyncio.run(pydantic_agent.run("weather?", conversation_id="chat-1"))
    check_pydantic(sink)
    assert named(sink.events, "helper")["$ai_session_id"] == "chat-1"


def test_pydantic_ai_streamed(pydantic_agent: Any, sink: MemorySink) -> None:
    async def main() -> None:
        async with pydantic_agent.run_stream("weather?") as result:
            assert [text async for text in result.stream_text(delta=True)]

    asyncio.run(main())
    check_pydantic(sink)
    streams = [e.properties["$ai_stream"] for e in sink.events if e.event == "$ai_generation"]
    assert streams == [True, True]


def test_pydantic_ai_inside_our_trace(pydantic_agent: Any, sink: MemorySink) -> None:
    with posthog_llm.trace("request", distinct_id="user-7", session_id="mine"):
        pydantic_agent.run_sync("weather?")
    events = sink.wait_for(5)
    assert nested_trees(events) == [("trace request", ("span helper agent", *RUN[1:]))]
    assert {event.distinct_id for event in events} == {"user-7"}
    assert {event.properties["$ai_session_id"] for event in events} == {"mine"}


def test_pydantic_ai_whose_tool_fails(
    pydantic_agent: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider._scripts.clear()
    provider.script("/chat/completions", Reply.tool_call("weather", {"city": "Nowhere"}))
    with pytest.raises(ValueError, match="no such city"):
        pydantic_agent.run_sync("weather?")
    events = sink.wait_for(3)
    assert nested_trees(events) == [RUN[:3]]
    for name in ("helper", "weather"):
        assert named(events, name)["$ai_error"] == "no such city"


def test_pydantic_ai_with_private_content(pydantic_agent: Any, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        pydantic_agent.run_sync("weather?")
    events = sink.wait_for(4)
    assert nested_trees(events) == [RUN]
    assert not any(text in str(events) for text in ("weather?", "Rome", "Sunny", "sunny"))


def test_two_runs_of_pydantic_ai_at_the_same_time(
    pydantic_agent: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider._scripts.clear()

    async def main() -> None:
        await asyncio.gather(*(pydantic_agent.run(text) for text in ("one", "two")))

    asyncio.run(main())
    events = sink.wait_for(8)  # without a script, the model calls its tool, and then answers
    assert nested_trees(events) == [RUN, RUN]
    assert len({event.properties["$ai_session_id"] for event in events}) == 2


@pytest.mark.parametrize("version", [2, 3, 4])
def test_older_formats_of_pydantic_ai(pydantic_agent: Any, sink: MemorySink, version: Any) -> None:
    from pydantic_ai import InstrumentationSettings

    pydantic_agent.instrument_all(InstrumentationSettings(version=version))
    pydantic_agent.run_sync("weather?")
    check_pydantic(sink)


def test_pydantic_ai_with_a_model_that_uses_no_sdk(pydantic_agent: Any, sink: MemorySink) -> None:
    from pydantic_ai.models.test import TestModel

    pydantic_agent.run_sync("weather?", model=TestModel())
    events = sink.wait_for(4)
    label = ("generation test",)
    assert nested_trees(events) == [(RUN[0], label, RUN[2], label)]
    generations = [e.properties for e in events if e.event == "$ai_generation"]
    for told in generations:
        assert told["$ai_input_tokens"] > 0
        assert told["$ai_output_tokens"] > 0
    assert generations[0]["$ai_input"] == [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]}
    ]
