"""Runs of agents of Semantic Kernel: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import openai
import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

# It reads the variable when it is imported.
os.environ["SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE"] = "true"
pytest.importorskip("semantic_kernel", reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]

CITY = {"city": "Rome"}


def agent_of(provider: ScriptedProvider, *plugins: Any, name: str = "helper") -> Any:
    from semantic_kernel.agents import ChatCompletionAgent
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

    client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="k")
    service = OpenAIChatCompletion(ai_model_id="gpt-4o", async_client=client)
    return ChatCompletionAgent(
        service=service, name=name, description="helps", plugins=list(plugins)
    )


def weather_plugin() -> Any:
    from semantic_kernel.functions import KernelPlugin, kernel_function

    class Weather:
        @kernel_function(name="weather", description="Tell the weather.")
        def weather(self, city: str) -> str:
            if city == "Nowhere":
                with posthog_llm.span("look up"):
                    raise ValueError("no such city")
            return f"sunny in {city}"

    return KernelPlugin.from_object("tools", Weather())


@pytest.fixture
def an_agent(provider: ScriptedProvider) -> Any:
    provider.script(
        "/chat/completions", Reply.tool_call("tools-weather", CITY), Reply.text("Sunny.")
    )
    return agent_of(provider, weather_plugin())


def check(sink: MemorySink) -> None:
    events = sink.wait_for(4)
    assert shown(sink) == picture("Semantic Kernel")
    for event in events:
        assert event.properties["$ai_framework"] == "semantic-kernel"
        if event.event == "$ai_generation":
            assert event.properties["posthog_llm_endpoint"] == "chat"  # it is from the wire
    agent, tool = named(events, "helper"), named(events, "tools-weather")
    assert agent["$ai_agent_name"] == "helper"
    assert agent["$ai_input_state"] == [{"role": "user", "content": "weather?"}]
    answer = {"role": "assistant", "content": "Sunny.", "name": "helper"}
    assert agent["$ai_output_state"] == [answer]
    assert tool["$ai_input_state"] == CITY
    assert tool["$ai_output_state"] == "sunny in Rome"


def test_semantic_kernel(an_agent: Any, sink: MemorySink) -> None:
    asyncio.run(an_agent.get_response("weather?"))
    check(sink)


@pytest.mark.parametrize("how", ["invoke", "invoke_stream"])
def test_semantic_kernel_that_yields(an_agent: Any, sink: MemorySink, how: str) -> None:
    async def main() -> None:
        assert [one async for one in getattr(an_agent, how)("weather?")]

    asyncio.run(main())
    check(sink)
    streams = [e.properties["$ai_stream"] for e in sink.events if e.event == "$ai_generation"]
    assert streams == [how == "invoke_stream"] * 2


def test_messages_by_name_are_no_empty_input(an_agent: Any, sink: MemorySink) -> None:
    """Semantic Kernel notes only positional ones."""
    asyncio.run(an_agent.get_response(messages="weather?"))
    sink.wait_for(4)
    assert shown(sink) == picture("Semantic Kernel")
    assert "$ai_input_state" not in named(sink.events, "helper")


def test_semantic_kernel_with_private_content(an_agent: Any, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        asyncio.run(an_agent.get_response("weather?"))
    sink.wait_for(4)
    assert shown(sink) == picture("Semantic Kernel")
    assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))


def test_semantic_kernel_whose_tool_fails(provider: ScriptedProvider, sink: MemorySink) -> None:
    call = Reply.tool_call("tools-weather", {"city": "Nowhere"})
    provider.script("/chat/completions", call, Reply.text("Sorry."))
    asyncio.run(agent_of(provider, weather_plugin()).get_response("weather?"))
    sink.wait_for(5)
    assert shown(sink) == [
        "trace helper (agent)",
        "  generation gpt-4o",
        "  span tools-weather (tool) !",
        "    span look up !",
        "  generation gpt-4o",
    ]
    assert "no such city" in named(sink.events, "tools-weather")["$ai_error"]


def test_an_agent_of_semantic_kernel_as_a_tool_inside_our_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    call = Reply.tool_call("expert-expert", {"messages": "Rome?"})
    provider.script("/chat/completions", call, Reply.text("Sun."), Reply.text("Sunny."))
    expert = agent_of(provider, name="expert")
    with posthog_llm.trace("request", distinct_id="user-1", session_id="mine"):
        asyncio.run(agent_of(provider, expert).get_response("weather?"))
    events = sink.wait_for(7)
    assert shown(sink) == [
        "trace request",
        "  span helper (agent)",
        "    generation gpt-4o",
        "    span expert-expert (tool)",
        "      span expert (agent)",
        "        generation gpt-4o",
        "    generation gpt-4o",
    ]
    assert {event.distinct_id for event in events} == {"user-1"}
    assert {event.properties["$ai_session_id"] for event in events} == {"mine"}


def test_two_runs_of_semantic_kernel_at_the_same_time(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    async def main() -> None:
        agents = [agent_of(provider, name=name) for name in ("one", "two")]
        await asyncio.gather(*(agent.get_response("hi") for agent in agents))

    asyncio.run(main())
    assert sorted(nested_trees(sink.wait_for(4))) == [
        (f"trace {name} agent", ("generation gpt-4o",)) for name in ("one", "two")
    ]
