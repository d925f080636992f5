"""Runs of Strands: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import check_agent_as_a_tool, check_failed_tool, named, nested_trees, picture, shown

pytest.importorskip("strands", reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def model(provider: ScriptedProvider) -> Any:
    from strands.models.openai import OpenAIModel

    place = {"base_url": provider.base_url, "api_key": "k"}
    return OpenAIModel(client_args=place, model_id="gpt-4o")


def agent_of(model: Any, **more: Any) -> Any:
    from strands import Agent

    return Agent(model=model, callback_handler=None, **{"name": "helper", **more})


def weather_tool() -> Any:
    from strands import tool

    @tool
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: a city
        """
        if city == "Nowhere":
            with posthog_llm.span("look up"):
                raise ValueError("no such city")
        return f"sunny in {city}"

    return weather


@pytest.fixture
def strands_agent(model: Any, provider: ScriptedProvider) -> Any:
    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )
    session = {"session.id": "chat-1", "user.id": "user-7"}
    return agent_of(model, tools=[weather_tool()], trace_attributes=session)


def check(sink: MemorySink) -> None:
    events = sink.wait_for(4)
    assert shown(sink) == picture("Strands")
    for event in events:
        assert event.distinct_id == "user-7"
        assert event.properties["$ai_session_id"] == "chat-1"
        assert event.properties["$ai_framework"] == "strands"
        if event.event == "$ai_generation":
            assert event.properties["posthog_llm_endpoint"] == "chat"  # it is from the wire
            assert event.properties["$ai_stream"] is True  # as Strands always asks
    agent, tool = named(events, "helper"), named(events, "weather")
    assert agent["$ai_agent_name"] == "helper"
    asked = {"role": "user", "content": [{"type": "text", "text": "weather?"}]}
    assert agent["$ai_input_state"] == [asked]
    assert agent["$ai_output_state"] == [{"role": "assistant", "content": "Sunny.\n"}]
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == [{"type": "text", "text": "sunny in Rome"}]


def test_strands(strands_agent: Any, sink: MemorySink) -> None:
    strands_agent("weather?")
    check(sink)


def test_strands_async(strands_agent: Any, sink: MemorySink) -> None:
    asyncio.run(strands_agent.invoke_async("weather?"))
    check(sink)


def test_strands_streamed(strands_agent: Any, sink: MemorySink) -> None:
    async def main() -> None:
        assert [event async for event in strands_agent.stream_async("weather?")]

    asyncio.run(main())
    check(sink)


def test_strands_with_the_newer_convention(
    model: Any, provider: ScriptedProvider, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strands.telemetry import tracer

    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setattr(tracer, "_tracer_instance", None)  # it has read the variable
    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )
    agent_of(model, tools=[weather_tool()])("weather?")
    events = sink.wait_for(4)
    assert shown(sink) == picture("Strands")
    agent, tool = named(events, "helper"), named(events, "weather")
    asked = {"role": "user", "content": [{"type": "text", "text": "weather?"}]}
    assert agent["$ai_input_state"] == [asked]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Sunny.\n"}]}
    assert agent["$ai_output_state"] == [answer]
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == [{"text": "sunny in Rome"}]


def test_strands_with_a_model_that_uses_no_sdk(sink: MemorySink) -> None:
    """Its own span is the generation; Bedrock's Converse API is its format of messages."""
    from strands.models import Model

    class Local(Model):
        config = {"model_id": "local"}  # noqa: RUF012 - where Strands looks for it

        def update_config(self, **config: Any) -> None: ...
        def get_config(self) -> Any:
            return self.config

        async def structured_output(self, *args: Any, **kwargs: Any) -> Any:
            yield {}

        async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            answered = messages[-1]["role"] == "user" and "toolResult" in str(messages[-1])
            start = {} if answered else {"toolUse": {"name": "weather", "toolUseId": "c1"}}
            called = {"toolUse": {"input": '{"city": "Rome"}'}}
            yield {"messageStart": {"role": "assistant"}}
            yield {"contentBlockStart": {"start": start}}
            yield {"contentBlockDelta": {"delta": {"text": "Sunny."} if answered else called}}
            yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "end_turn" if answered else "tool_use"}}
            usage = {"inputTokens": 9, "outputTokens": 4, "cacheReadInputTokens": 5}
            yield {"metadata": {"usage": {**usage, "totalTokens": 18}, "metrics": {}}}

    agent_of(Local(), tools=[weather_tool()])("weather?")
    events = sink.wait_for(4)
    assert shown(sink) == [line.replace("gpt-4o", "local") for line in picture("Strands")]
    first, second = (e.properties for e in events if e.event == "$ai_generation")
    for said in (first, second):
        assert "$ai_provider" not in said
        assert (said["$ai_input_tokens"], said["$ai_output_tokens"]) == (14, 4)  # with the cache
        assert said["$ai_cache_read_input_tokens"] == 5
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    call = {"type": "function", "id": "c1", "function": function}
    assert first["$ai_output_choices"] == [{"role": "assistant", "content": [call]}]
    text = {"type": "text", "text": "sunny in Rome"}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [text]}
    assert second["$ai_input"][-1] == {"role": "tool", "content": [result]}


def test_strands_with_private_content(strands_agent: Any, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        strands_agent("weather?")
    events = sink.wait_for(4)
    assert shown(sink) == picture("Strands")
    assert not any(text in str(events) for text in ("weather?", "Rome", "unny"))


def test_strands_whose_tool_fails(
    strands_agent: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider._scripts.clear()
    provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Nowhere"}), Reply.text("Sorry.")
    )
    strands_agent("weather?")
    check_failed_tool(sink)


def test_a_strands_agent_as_a_tool_inside_our_trace(
    model: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    expert = agent_of(model, name="expert", description="knows the weather")
    provider.script(
        "/chat/completions",
        *(Reply.tool_call("expert", {"input": "Rome?"}), Reply.text("Sun."), Reply.text("Sunny.")),
    )
    with posthog_llm.trace("request", distinct_id="user-1", session_id="mine"):
        agent_of(model, tools=[expert], trace_attributes={"session.id": "other"})("weather?")
    check_agent_as_a_tool(sink)


def test_a_graph_of_strands(model: Any, sink: MemorySink) -> None:
    from strands.multiagent import GraphBuilder

    builder = GraphBuilder()
    for name in ("one", "two"):
        builder.add_node(agent_of(model, name=name), name)
    builder.add_edge("one", "two")
    builder.build()("weather?")
    events = sink.wait_for(5)
    agents = [(f"span {name} agent", ("generation gpt-4o",)) for name in ("one", "two")]
    assert nested_trees(events) == [("trace invoke_graph chain", *agents)]
    asked = {"role": "user", "content": "weather?"}
    assert named(events, "invoke_graph")["$ai_input_state"] == [asked]


def test_two_runs_of_strands_at_the_same_time(model: Any, sink: MemorySink) -> None:
    async def main() -> None:
        names = ("one", "two")
        runs = (
            agent_of(model, name=name, trace_attributes={"session.id": name}).invoke_async("hi")
            for name in names
        )
        await asyncio.gather(*runs)

    asyncio.run(main())
    events = sink.wait_for(4)
    assert sorted(nested_trees(events)) == [
        (f"trace {name} agent", ("generation gpt-4o",)) for name in ("one", "two")
    ]
    for name in ("one", "two"):
        own = [e for e in events if e.properties["$ai_session_id"] == name]
        assert named(own, name)["$ai_trace_id"] == own[-1].properties["$ai_trace_id"]
        assert len(own) == 2
