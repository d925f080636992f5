"""Runs of Google's Agent Development Kit: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import check_agent_as_a_tool, named, picture, shown

pytest.importorskip("google.adk", reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]

GEMINI = "/v1beta/models/gemini-2.5-flash"


@pytest.fixture(autouse=True)
def content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    monkeypatch.setenv("GOOGLE_API_KEY", "k")


def lite_llm(provider: ScriptedProvider, *replies: Reply) -> Any:
    from google.adk.models.lite_llm import LiteLlm

    provider.script("/chat/completions", *replies)
    return LiteLlm(model="openai/gpt-4o", api_base=provider.base_url, api_key="k")


def gemini(provider: ScriptedProvider, *parts: dict[str, Any], streamed: bool = False) -> Any:
    from google.adk.models.google_llm import Gemini

    usage = {"promptTokenCount": 9, "candidatesTokenCount": 4, "thoughtsTokenCount": 2}
    for part in parts:
        candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
        body = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash"}
        usage |= {"totalTokenCount": 15, "cachedContentTokenCount": 3}
        body |= {"usageMetadata": usage, "responseId": "r1"}
        if streamed:
            provider.script(f"{GEMINI}:streamGenerateContent", Reply.stream([body], done=False))
        else:
            provider.script(f"{GEMINI}:generateContent", Reply.json(body))
    return Gemini(model="gemini-2.5-flash", base_url=provider.base_url)


def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Nowhere":
        with posthog_llm.span("look up"):
            raise ValueError("no such city")
    return f"sunny in {city}"


def agent_of(model: Any, tool: Any = weather, name: str = "helper") -> Any:
    from google.adk.agents import Agent

    return Agent(name=name, model=model, tools=[tool] if tool else [], description="helps")


async def run(agent: Any, session_id: str = "chat-1", mode: str | None = None) -> None:
    from google.adk.agents.run_config import RunConfig, StreamingMode
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    runner = InMemoryRunner(agent=agent, app_name="app")
    who = {"user_id": "user-7", "session_id": session_id}
    await runner.session_service.create_session(app_name="app", **who)
    message = types.Content(role="user", parts=[types.Part(text="weather?")])
    config = RunConfig(streaming_mode=StreamingMode.SSE if mode == "streamed" else None)
    async for _ in runner.run_async(**who, new_message=message, run_config=config):
        pass


def check(sink: MemorySink, model: str = "gpt-4o") -> list[Any]:
    events = sink.wait_for(5)
    tree = [line.replace("gpt-4o", model) for line in picture("google-adk")]
    assert shown(sink) == tree
    for event in events:
        assert event.properties["$ai_session_id"] == "chat-1"
        assert event.properties["$ai_framework"] == "google-adk"
    (agent,) = [e.properties for e in events if e.properties.get("$ai_span_type") == "agent"]
    assert agent["$ai_agent_name"] == agent["$ai_span_name"] == "helper"
    return [event.properties for event in events if event.event == "$ai_generation"]


@pytest.fixture
def with_lite_llm(provider: ScriptedProvider) -> Any:
    call = Reply.tool_call("weather", {"city": "Rome"})
    return agent_of(lite_llm(provider, call, Reply.text("Sunny.")))


@pytest.mark.parametrize("how", ["plain", "streamed"])
def test_google_adk_with_lite_llm(with_lite_llm: Any, sink: MemorySink, how: str) -> None:
    asyncio.run(run(with_lite_llm, mode=how))
    for said in check(sink):
        assert said["posthog_llm_endpoint"] == "chat"  # it is from the wire
        assert said["$ai_stream"] is (how == "streamed")
    tool = named(sink.events, "weather")
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == {"result": "sunny in Rome"}


@pytest.mark.parametrize("how", ["plain", "streamed"])
def test_google_adk_with_gemini(provider: ScriptedProvider, sink: MemorySink, how: str) -> None:
    """The calls are from the wire, under the framework's steps."""
    call = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    model = gemini(provider, call, {"text": "Sunny."}, streamed=how == "streamed")
    asyncio.run(run(agent_of(model), mode=how))
    first, second = check(sink, "gemini-2.5-flash")
    for said in (first, second):
        assert said["$ai_provider"] == "gemini"
        assert said["posthog_llm_endpoint"] != "manual"
        assert said["$ai_stream"] is (how == "streamed")
        assert (said["$ai_input_tokens"], said["$ai_output_tokens"]) == (9, 4)
        assert said["$ai_reasoning_tokens"] == 2
        assert said["$ai_cache_read_input_tokens"] == 3
        assert "weather" in str(said["$ai_tools"])
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    (message,) = first["$ai_output_choices"]
    assert message["content"][0]["function"] == function
    assert second["$ai_output_choices"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Sunny."}]}
    ]
    asked = second["$ai_input"]
    assert [one["role"] for one in asked] == ["system", "user", "assistant", "user"]
    assert asked[-1]["content"][0]["content"] == {"result": "sunny in Rome"}


def test_google_adk_with_a_call_to_gemini_that_fails(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from google.genai.errors import ClientError

    provider.script(f"{GEMINI}:generateContent", Reply.error(400, "no such model"))
    with pytest.raises(ClientError, match="no such model"):
        asyncio.run(run(agent_of(gemini(provider))))
    sink.wait_for(3)
    assert shown(sink) == [
        "trace helper (chain) !",
        "  span helper (agent) !",
        "    generation gemini-2.5-flash !",
    ]
    (failed,) = [e.properties for e in sink.events if e.event == "$ai_generation"]
    assert "no such model" in failed["$ai_error"]
    assert "$ai_input_tokens" not in failed


def test_google_adk_without_content(
    with_lite_llm: Any, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    asyncio.run(run(with_lite_llm))
    first, _ = check(sink)
    assert first["$ai_input"][-1] == {"role": "user", "content": "weather?"}
    assert "$ai_input_state" not in named(sink.events, "weather")


def test_google_adk_with_private_content(with_lite_llm: Any, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        asyncio.run(run(with_lite_llm))
    check(sink)
    assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))


def test_google_adk_whose_tool_fails(provider: ScriptedProvider, sink: MemorySink) -> None:
    agent = agent_of(lite_llm(provider, Reply.tool_call("weather", {"city": "Nowhere"})))
    with pytest.raises(ValueError, match="no such city"):
        asyncio.run(run(agent))
    sink.wait_for(5)
    assert shown(sink) == [
        "trace helper (chain) !",
        "  span helper (agent) !",
        "    generation gpt-4o",
        "    span weather (tool) !",
        "      span look up !",
    ]
    assert named(sink.events, "weather")["$ai_error"] == "no such city"


def test_a_google_adk_agent_as_a_tool_inside_our_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from google.adk.tools.agent_tool import AgentTool

    call = Reply.tool_call("expert", {"request": "Rome?"})
    model = lite_llm(provider, call, Reply.text("Sun."), Reply.text("Sunny."))
    expert = agent_of(model, None, "expert")
    with posthog_llm.trace("request", distinct_id="user-1", session_id="mine"):
        asyncio.run(run(agent_of(model, AgentTool(expert))))
    check_agent_as_a_tool(sink)


def test_two_runs_of_google_adk_at_the_same_time(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    async def main() -> None:
        model = lite_llm(provider)
        names = ("one", "two")
        await asyncio.gather(*(run(agent_of(model, None, name), name) for name in names))

    asyncio.run(main())
    events = sink.wait_for(6)
    for name in ("one", "two"):
        own = [e for e in events if e.properties["$ai_session_id"] == name]
        assert len({event.properties["$ai_trace_id"] for event in own}) == 1
        trace, agent = f"trace {name} (chain)", f"  span {name} (agent)"
        assert [line for line in shown(sink) if f" {name} " in line] == [trace, agent]
        assert [e.event for e in own].count("$ai_generation") == 1
