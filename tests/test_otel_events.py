"""Spans of OpenTelemetry that say late what they are about, in attributes or in events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.openai import OpenAI
from posthog_llm.otel import SpanProcessor
from posthog_llm.testing import MemorySink, ScriptedProvider

from .agents.trees import nested_trees

CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"n": 1}}}


@pytest.fixture
def tracer(sink: MemorySink) -> trace.Tracer:
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    return tracers.get_tracer("strands")


def said(event: Any) -> tuple[Any, Any]:
    return event.properties["$ai_input_state"], event.properties["$ai_output_state"]


def test_messages_in_events(tracer: trace.Tracer, sink: MemorySink) -> None:
    blocks = [
        {"text": "hi"},
        {"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"n": 1}}},
        {"toolResult": {"toolUseId": "c1", "status": "success", "content": [{"text": "sun"}]}},
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        {"image": {"format": "png"}},
    ]
    with tracer.start_as_current_span("invoke_agent helper") as span:
        span.add_event("gen_ai.user.message", {"content": json.dumps(blocks)})
        span.add_event("gen_ai.choice", {"message": "Hello", "finish_reason": "stop"})
    (event,) = sink.wait_for(1)
    result = {"type": "text", "text": "sun"}
    content = [
        {"type": "text", "text": "hi"},
        CALL,
        {"type": "tool_result", "tool_use_id": "c1", "content": [result]},
        {"type": "thinking", "thinking": "hm"},
        {"image": {"format": "png"}},
    ]
    asked = [{"role": "user", "content": content}]
    assert said(event) == (asked, [{"role": "assistant", "content": "Hello"}])


def test_a_tools_arguments_and_result_in_events(tracer: trace.Tracer, sink: MemorySink) -> None:
    with tracer.start_as_current_span("execute_tool weather") as span:
        span.add_event("gen_ai.tool.message", {"role": "tool", "content": '{"n": 1}', "id": "c1"})
        span.add_event("gen_ai.choice", {"message": '[{"text": "sun"}]', "id": "c1"})
    (event,) = sink.wait_for(1)
    assert said(event) == ({"n": 1}, [{"type": "text", "text": "sun"}])


def test_attributes_in_an_event(tracer: trace.Tracer, sink: MemorySink) -> None:
    def note(span: Any, name: str, role: str, part: Any) -> None:
        content = json.dumps([{"role": role, "parts": [part]}])
        span.add_event("gen_ai.client.inference.operation.details", {name: content})

    hi = {"type": "text", "content": "hi"}
    call = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"n": 1}}
    for name in ("invoke_agent helper", "chat"):
        with tracer.start_as_current_span(name) as span:
            span.set_attributes({"gen_ai.operation.name": name.split()[0]})
            note(span, "gen_ai.input.messages", "user", hi)
            note(span, "gen_ai.output.messages", "assistant", call)
    agent, generation = sink.wait_for(2)
    asked = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = [{"role": "assistant", "content": [CALL]}]
    assert said(agent) == (asked, answer)
    assert generation.properties["$ai_input"] == asked
    assert generation.properties["$ai_output_choices"] == answer


def test_no_messages_are_no_input(tracer: trace.Tracer, sink: MemorySink) -> None:
    empty = {"gen_ai.input.messages": "[]", "gen_ai.tool.call.result": "[]"}
    with tracer.start_as_current_span("execute_tool weather", attributes=empty):
        pass
    (event,) = sink.wait_for(1)
    assert "$ai_input_state" not in event.properties
    assert event.properties["$ai_output_state"] == []


@pytest.mark.parametrize("system", ["strands-agents", "microsoft.agent_framework", "autogen"])
def test_a_framework_is_no_provider(tracer: trace.Tracer, sink: MemorySink, system: str) -> None:
    with tracer.start_as_current_span("chat", attributes={"gen_ai.system": system}):
        pass
    (event,) = sink.wait_for(1)
    assert "$ai_provider" not in event.properties


def test_to_create_an_agent_is_no_run(tracer: trace.Tracer, sink: MemorySink) -> None:
    creation = {"gen_ai.operation.name": "create_agent", "gen_ai.agent.name": "helper"}
    with tracer.start_as_current_span("create_agent helper", attributes=creation):
        pass
    around = tracer.start_as_current_span("invoke_agent front")
    with around, tracer.start_as_current_span("create_agent helper", attributes=creation):
        pass
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_span_name"] == "front"


def test_a_workflow_is_around_its_agents(tracer: trace.Tracer, sink: MemorySink) -> None:
    workflow = {"gen_ai.operation.name": "invoke_workflow"}
    with tracer.start_as_current_span("invoke_workflow trip", attributes=workflow):
        for name in ("one", "two"):
            with tracer.start_as_current_span(f"invoke_agent {name}"):
                pass
    agents = (("span one agent",), ("span two agent",))
    assert nested_trees(sink.wait_for(3)) == [("trace trip chain", *agents)]


# -- users and sessions that are set after the start --------------------------------------


@pytest.fixture
def ours(provider: ScriptedProvider) -> OpenAI:
    return OpenAI(base_url=provider.base_url, api_key="k")


def run(tracer: trace.Tracer, client: OpenAI, between: str | None = None) -> None:
    with tracer.start_as_current_span("invoke_agent helper") as agent:
        agent.set_attributes({"session.id": "chat-1", "user.id": "user-7"})
        if between is not None:
            with tracer.start_as_current_span(between):
                client.responses.create(model="gpt-4o", input="hi")
        else:
            client.responses.create(model="gpt-4o", input="hi")


@pytest.mark.parametrize("between", [None, "execute_event_loop_cycle", "chat", "execute_tool it"])
def test_a_late_user_and_session(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink, between: str | None
) -> None:
    run(tracer, ours, between)
    events = sink.wait_for(3 if between == "execute_tool it" else 2)
    assert {event.distinct_id for event in events} == {"user-7"}
    assert {event.properties["$ai_session_id"] for event in events} == {"chat-1"}


def test_a_user_and_session_at_the_end(tracer: trace.Tracer, sink: MemorySink) -> None:
    with tracer.start_as_current_span("invoke_agent helper") as agent:
        agent.set_attributes({"session.id": "chat-1", "user.id": "user-7"})
    (event,) = sink.wait_for(1)
    assert (event.distinct_id, event.properties["$ai_session_id"]) == ("user-7", "chat-1")


def test_late_ones_do_not_replace_the_applications(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    with posthog_llm.context(distinct_id="mine"):
        run(tracer, ours)
    events = sink.wait_for(2)
    assert {event.distinct_id for event in events} == {"mine"}
    assert {event.properties["$ai_session_id"] for event in events} == {"chat-1"}


def test_a_late_session_is_sampled_as_a_whole(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    posthog_llm.configure(posthog_client=sink, sample_rate=0.5)
    for _ in range(20):
        run(tracer, ours)
    assert posthog_llm.flush(10)
    assert len(sink.events) in (0, 40)
