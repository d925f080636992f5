"""Spans of OpenTelemetry, as its own SDK makes them, in both conventions."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Status, StatusCode

import posthog_llm
from posthog_llm import _faults as faults
from posthog_llm._context import add_step_source, remove_step_source
from posthog_llm._frameworks import langchain, otel
from posthog_llm.openai import AsyncOpenAI, OpenAI
from posthog_llm.otel import SpanProcessor
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .agents.trees import named, nested_trees

AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def tracers(sink: MemorySink) -> TracerProvider:
    """A provider of one's own; steps go to `sink`."""
    posthog_llm.configure(posthog_client=sink)
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SpanProcessor())
    return made


@pytest.fixture
def tracer(tracers: TracerProvider) -> trace.Tracer:
    return tracers.get_tracer("pydantic-ai")


@pytest.fixture
def ours(provider: ScriptedProvider) -> OpenAI:
    return OpenAI(base_url=provider.base_url, api_key="k")


@pytest.fixture
def unset() -> Iterator[None]:
    """No global provider yet, as in a new process."""
    before = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = type(before[1])()
    yield
    posthog_llm.uninstrument()
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = before


def ask(client: Any) -> None:
    client.chat.completions.create(model="gpt-4o", messages=HI)


# -- trees -----------------------------------------------------------------------------


def test_an_agent_with_a_tool_in_the_genai_convention(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    begun = {**AGENT, "gen_ai.conversation.id": "chat-1", "user.id": "user-7"}
    asked = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    call = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'}
    answer = {"type": "tool_call_response", "id": "c1", "response": "sunny"}
    with tracer.start_as_current_span("invoke_agent helper", attributes=begun) as agent:
        agent.set_attribute("gen_ai.input.messages", json.dumps(asked))
        with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
            ask(ours)
        given = {**TOOL, "gen_ai.tool.call.arguments": '{"city": "Rome"}'}
        with tracer.start_as_current_span("execute_tool weather", attributes=given) as tool:
            tool.set_attribute("gen_ai.tool.call.result", "sunny")
        with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
            ask(ours)
        said = [{"role": "assistant", "parts": [call, answer, {"type": "x"}]}]
        agent.set_attribute("gen_ai.output.messages", json.dumps(said))
    events = sink.wait_for(4)
    assert nested_trees(events) == [
        (
            "trace helper agent",
            ("generation gpt-4o",),
            ("span weather tool",),
            ("generation gpt-4o",),
        )
    ]
    for event in events:
        assert event.distinct_id == "user-7"
        assert event.properties["$ai_session_id"] == "chat-1"
        assert event.properties["$ai_framework"] == "pydantic-ai"
    tool_event, agent_event = named(events, "weather"), named(events, "helper")
    assert tool_event["$ai_input_state"] == {"city": "Rome"}
    assert tool_event["$ai_output_state"] == "sunny"
    assert "$ai_agent_name" not in tool_event
    assert agent_event["$ai_agent_name"] == "helper"
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    shown = {"type": "function", "id": "c1", "function": function}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}
    hi = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    assert agent_event["$ai_input_state"] == [hi]
    content = [shown, result, {"type": "x"}]
    assert agent_event["$ai_output_state"] == [{"role": "assistant", "content": content}]
    assert agent_event["posthog_llm_outcome"] == "ok"


def test_openinference(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    def span(kind: str, name: str, **more: Any) -> Any:
        given = {key.replace("_", "."): value for key, value in more.items()}
        attributes = {"openinference.span.kind": kind, **given}
        return tracer.start_as_current_span(name, attributes=attributes)

    with span("AGENT", "Helper.run", input_value='{"task": "hi"}', session_id="s") as agent:
        with span("CHAIN", "Step 1"), span("CHAIN", "Step 2", input_value="go"):
            with span("LLM", "Model.generate"):
                ask(ours)
            with span("RETRIEVER", "find", input_value="q") as found:
                found.set_attribute("retrieval.documents.0.document.content", "one")
                found.set_attribute("retrieval.documents.1.document.content", "two")
            with span("RERANKER", "rank"), span("GUARDRAIL", "safe"):
                pass
        with span("TOOL", "SimpleTool", tool_name="weather", input_value="1") as tool:
            tool.set_attributes({"output.value": "[1]", "output.mime_type": "text/plain"})
        agent.set_attribute("output.value", '["done"]')
    events = sink.wait_for(7)
    own = agent.get_span_context()
    about = named(events, "Helper.run")
    assert about["$trace_id"] == f"{own.trace_id:032x}"
    assert about["$span_id"] == f"{own.span_id:016x}"
    assert nested_trees(events) == [
        (
            "trace Helper.run agent",
            (
                "span Step 2 chain",
                ("generation gpt-4o",),
                ("span find retrieval",),
                ("span rank rerank", ("span safe guardrail",)),
            ),
            ("span weather tool",),
        )
    ]
    assert named(events, "Helper.run")["$ai_input_state"] == {"task": "hi"}
    assert named(events, "Helper.run")["$ai_output_state"] == ["done"]
    assert named(events, "weather")["$ai_output_state"] == "[1]"
    assert named(events, "find")["$ai_output_state"] == [{"content": "one"}, {"content": "two"}]
    assert {event.properties["$ai_session_id"] for event in events} == {"s"}


def test_names_that_say_what_a_span_is(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    """Some frameworks set all attributes later."""
    with tracer.start_as_current_span("agent run") as agent:
        agent.set_attribute("agent_name", "helper")
        with tracer.start_as_current_span("chat gpt-4o") as chat:
            ask(ours)
            chat.set_attributes(CHAT)
        with tracer.start_as_current_span("chat with a friend"):
            pass
        with tracer.start_as_current_span("running tools"):
            with tracer.start_as_current_span("execute_tool weather"):
                pass
            with tracer.start_as_current_span("running tool", attributes=TOOL):
                pass
    events = sink.wait_for(4)
    assert nested_trees(events) == [
        (
            "trace agent run agent",
            ("generation gpt-4o",),
            ("span weather tool",),
            ("span weather tool",),
        )
    ]
    assert named(events, "agent run")["$ai_agent_name"] == "helper"


def test_a_model_that_nothing_saw_on_the_wire(tracer: trace.Tracer, sink: MemorySink) -> None:
    ended = {
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.response.model": "gemini-3-pro",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.system_instructions": '[{"type": "text", "content": "be kind"}]',
        "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]',
        "gen_ai.output.messages": '[{"role": "assistant", "parts": '
        '[{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Hello"}]}]',
        "gen_ai.tool.definitions": '[{"type": "function", "name": "weather"}]',
    }
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        chat = tracer.start_span("chat gemini", attributes=CHAT, start_time=10**18)
        chat.add_event("First Token Stream Event", timestamp=10**18 + 10**9)
        chat.set_attributes(ended)
        chat.end(10**18 + 2 * 10**9)
    (agent, event) = sorted(sink.wait_for(2), key=lambda e: e.event, reverse=True)
    told = event.properties
    assert told["$ai_parent_id"] == agent.properties["$ai_span_id"]
    assert (told["$ai_model"], told["$ai_provider"]) == ("gemini-3-pro", "gemini")
    assert (told["$ai_input_tokens"], told["$ai_output_tokens"]) == (20, 5)
    assert told["$ai_cache_read_input_tokens"] == 8
    assert told["$ai_cache_reporting_exclusive"] is False
    assert (told["$ai_latency"], told["$ai_time_to_first_token"]) == (2.0, 1.0)
    assert event.timestamp is not None
    assert event.timestamp.timestamp() == 10**9
    assert told["$ai_stop_reason"] == "stop"
    assert told["$ai_model_parameters"] == {"temperature": 0.5}
    assert told["$ai_input"] == [
        {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    assert told["$ai_output_choices"] == [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}],
        }
    ]
    assert told["$ai_tools"] == [{"type": "function", "name": "weather"}]


def test_a_model_and_an_embedding_of_openinference(tracer: trace.Tracer, sink: MemorySink) -> None:
    call = "llm.output_messages.0.message.tool_calls.0.tool_call"
    llm = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o",
        "llm.provider": "openai",
        "llm.token_count.prompt": 9,
        "llm.token_count.completion": 3,
        "llm.token_count.prompt_details.cache_read": 4,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "hi",
        "llm.output_messages.0.message.role": "assistant",
        f"{call}.id": "c1",
        f"{call}.function.name": "weather",
        f"{call}.function.arguments": '{"city": "Rome"}',
        "llm.tools.0.tool.json_schema": '{"type": "function"}',
    }
    embedding = {
        "openinference.span.kind": "EMBEDDING",
        "embedding.model_name": "small",
        "embedding.embeddings.0.embedding.text": "hi",
        "embedding.embeddings.0.embedding.vector": (0.5, 0.5),
    }
    for attributes in (llm, embedding):
        with tracer.start_as_current_span("run", attributes=attributes):
            pass
    first, second = sink.wait_for(2)
    assert (first.event, second.event) == ("$ai_generation", "$ai_embedding")
    said = first.properties
    assert said["$ai_input"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    made = {"type": "function", "id": "c1", "function": function}
    assert said["$ai_output_choices"] == [{"role": "assistant", "content": [made]}]
    assert (said["$ai_input_tokens"], said["$ai_cache_read_input_tokens"]) == (9, 4)
    assert said["$ai_tools"] == [{"type": "function"}]
    assert second.properties["$ai_model"] == "small"
    assert "hi" in str(second.properties["$ai_input"])
    assert "0.5" not in str(second.properties)


def test_steps_of_a_model_inside_another(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    """A wrapper's span, the SDK's span, and the call: one generation, also without the call."""
    for is_called in (True, False):
        with (
            tracer.start_as_current_span("call_llm", attributes=CHAT),
            tracer.start_as_current_span("chat gpt-4o", attributes=CHAT),
        ):
            if is_called:
                ask(ours)
        assert [event.event for event in sink.wait_for(1 if is_called else 2)][-1] == (
            "$ai_generation"
        )


def test_a_span_below_our_seam_is_not_another_call(
    tracer: trace.Tracer, provider: ScriptedProvider, sink: MemorySink
) -> None:
    """The SDK, or what instruments it, begins a span once we have seen the call."""

    class Traced(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
                return super()._prepare_options(options)

    posthog_llm.instrument(sink)
    ask(Traced(base_url=provider.base_url, api_key="k"))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input_tokens"] == 9


@pytest.mark.parametrize("is_watched", [True, False])
def test_frameworks_that_are_watched_without_opentelemetry(
    sink: MemorySink, is_watched: bool
) -> None:
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    if is_watched:
        add_step_source(langchain.innermost)
    try:
        scope = tracers.get_tracer("openinference.instrumentation.langchain")
        with scope.start_as_current_span("run", attributes={"openinference.span.kind": "AGENT"}):
            pass
        with tracers.get_tracer("litellm").start_as_current_span("call", attributes=CHAT):
            pass  # LiteLLM has a callback of ours
    finally:
        remove_step_source(langchain.innermost)
    assert nested_trees(sink.events) == ([] if is_watched else [("trace run agent",)])


# -- what is around and inside -----------------------------------------------------------


def test_spans_that_are_not_about_ai_are_passed_through(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    elsewhere = TracerProvider(shutdown_on_exit=False).get_tracer("httpx")
    with tracer.start_as_current_span("GET /"):
        assert not otel.steps
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            with tracer.start_as_current_span("db"), tracer.start_as_current_span("POST"):
                ask(ours)
                with tracer.start_as_current_span("execute_tool weather", attributes=TOOL):
                    pass
            with elsewhere.start_as_current_span("POST"):
                ask(ours)
    assert not otel.steps
    assert nested_trees(sink.wait_for(4)) == [
        (
            "trace helper agent",
            ("generation gpt-4o",),
            ("span weather tool",),
            ("generation gpt-4o",),
        )
    ]


def test_our_blocks_around_and_inside(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    attributes = {**AGENT, "gen_ai.conversation.id": "theirs", "user.id": "theirs"}
    with posthog_llm.trace("request", distinct_id="user-7", session_id="mine"):  # noqa: SIM117
        with tracer.start_as_current_span("invoke_agent helper", attributes=attributes):
            with posthog_llm.span("prepare"):
                ask(ours)
                with tracer.start_as_current_span("execute_tool weather", attributes=TOOL):
                    ask(ours)
    events = sink.wait_for(6)
    assert nested_trees(events) == [
        (
            "trace request",
            (
                "span helper agent",
                (
                    "span prepare",
                    ("generation gpt-4o",),
                    ("span weather tool", ("generation gpt-4o",)),
                ),
            ),
        )
    ]
    assert {event.distinct_id for event in events} == {"user-7"}
    assert {event.properties["$ai_session_id"] for event in events} == {"mine"}


def test_another_services_trace(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    with posthog_llm.trace("request") as outer:
        headers = posthog_llm.trace_headers()
    with posthog_llm.continue_trace(headers):  # noqa: SIM117
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            ask(ours)
    events = sink.wait_for(3)
    assert nested_trees(events) == [
        ("trace request", ("span helper agent", ("generation gpt-4o",))),
    ]
    assert {event.properties["$ai_trace_id"] for event in events} == {outer.trace_id}


def test_threads(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT) as agent:

        def work() -> None:
            with (
                trace.use_span(agent),
                tracer.start_as_current_span("execute_tool weather", attributes=TOOL),
            ):
                ask(ours)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert nested_trees(sink.wait_for(3)) == [
        ("trace helper agent", ("span weather tool", ("generation gpt-4o",)))
    ]


async def _run(tracer: trace.Tracer, client: AsyncOpenAI, name: str, streamed: bool) -> None:
    attributes = {**AGENT, "gen_ai.agent.name": name, "gen_ai.conversation.id": name}
    with tracer.start_as_current_span("invoke_agent", attributes=attributes):
        for _ in range(2):
            with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
                await asyncio.sleep(0)
                made: Any = await client.chat.completions.create(
                    model="gpt-4o", messages=HI, stream=streamed
                )
                assert not streamed or [chunk async for chunk in made]
            with tracer.start_as_current_span("execute_tool", attributes=TOOL):
                await asyncio.sleep(0)


@pytest.mark.parametrize("streamed", [False, True])
def test_runs_at_the_same_time_in_one_loop(
    tracer: trace.Tracer, provider: ScriptedProvider, sink: MemorySink, streamed: bool
) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="k") as client:
            await asyncio.gather(*(_run(tracer, client, name, streamed) for name in ("a", "b")))

    asyncio.run(main())
    inside = (("generation gpt-4o",), ("span weather tool",)) * 2
    events = sink.wait_for(10)
    assert sorted(nested_trees(events)) == [("trace a agent", *inside), ("trace b agent", *inside)]
    for name in "ab":
        assert sum(event.properties["$ai_session_id"] == name for event in events) == 5


# -- ends ----------------------------------------------------------------------------------


def test_errors(tracer: trace.Tracer, sink: MemorySink) -> None:
    with pytest.raises(ValueError):  # noqa: SIM117, PT012
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            with tracer.start_as_current_span("execute_tool weather", attributes=TOOL):
                raise ValueError("no city")
    with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT) as span:
        span.set_status(Status(StatusCode.ERROR, "overloaded"))
    events = sink.wait_for(3)
    for event in events:
        assert event.properties["$ai_is_error"] is True
        assert event.properties["posthog_llm_outcome"] == "error"
    for name in ("helper", "weather"):
        told = named(events, name)
        assert told["$ai_error"] == "no city"
        assert told["posthog_llm_error"]["type"] == "ValueError"
    (generation,) = (e for e in events if e.event == "$ai_generation")
    assert generation.properties["$ai_error"] == "overloaded"


def test_cancellation_is_no_success(tracer: trace.Tracer, sink: MemorySink) -> None:
    async def main() -> None:
        async def run() -> None:
            with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "cancelled"
    assert "$ai_is_error" not in event.properties


def test_a_call_while_another_model_streams_is_not_that_models(
    tracer: trace.Tracer, ours: OpenAI, sink: MemorySink
) -> None:
    """The model of the span runs in the process; its span is not the current one any more."""
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        answering = tracer.start_span(
            "chat local", attributes={**CHAT, "gen_ai.request.model": "local"}
        )
        ask(ours)
        answering.end()
    assert nested_trees(sink.wait_for(3)) == [
        ("trace helper agent", ("generation local",), ("generation gpt-4o",))
    ]


class Dropping(Sampler):
    """Samples all spans but those of HTTP."""

    def should_sample(self, context: Any, trace_id: int, name: str, *more: Any) -> SamplingResult:  # type: ignore[override]
        is_http = name.startswith("HTTP")
        return SamplingResult(Decision.DROP if is_http else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "Dropping"


def test_spans_inside_of_one_that_a_sampler_drops(ours: OpenAI, sink: MemorySink) -> None:
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False, sampler=Dropping())
    tracers.add_span_processor(SpanProcessor())
    tracer = tracers.get_tracer("pydantic-ai")
    for _ in range(2):
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            with tracer.start_as_current_span("execute_tool first", attributes=TOOL):
                pass
            with tracer.start_as_current_span("HTTP GET"):
                ask(ours)
                with tracer.start_as_current_span("execute_tool x", attributes=TOOL):
                    pass
    with tracer.start_as_current_span("HTTP GET"):
        ask(ours)
    run = (
        "trace helper agent",
        ("span first tool",),
        ("generation gpt-4o",),
        ("span x tool",),
    )
    assert nested_trees(sink.wait_for(9)) == [run, run, ("generation gpt-4o",)]


def test_what_is_being_handled_around_a_run_is_not_its_end(
    tracer: trace.Tracer, sink: MemorySink
) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            pass
        with pytest.raises(ValueError), tracer.start_as_current_span("x", attributes=AGENT):
            int("no number")
    fine, failed = sink.wait_for(2)
    assert fine.properties["posthog_llm_outcome"] == "ok"
    assert "no number" in failed.properties["$ai_error"]


def test_spans_that_never_end_are_bounded(tracer: trace.Tracer, sink: MemorySink) -> None:
    spans = [tracer.start_span("execute_tool x", attributes=TOOL) for _ in range(10_010)]
    assert len(otel.steps._steps) == 10_000
    events = sink.wait_for(10)
    assert {event.properties["posthog_llm_outcome"] for event in events} == {"dropped"}
    for span in spans:
        span.end()
    assert not otel.steps
    sink.wait_for(10_010)


def test_the_content_of_spans_that_never_end_is_bounded(
    tracer: trace.Tracer, sink: MemorySink
) -> None:
    """The oldest lose their input, say so, and are captured like the others when they end."""
    question = "x" * 400_000
    asked = {**TOOL, "input.value": question}
    spans = [tracer.start_span("execute_tool x", attributes=asked) for _ in range(100)]
    spans[0].end()  # the oldest
    spans[-1].end()
    oldest, newest = (event.properties for event in sink.wait_for(2))
    assert "$ai_input_state" not in oldest
    assert oldest["posthog_llm_content_cut_bytes"] >= 400_000
    assert newest["$ai_input_state"] == question
    assert "posthog_llm_content_cut_bytes" not in newest
    for span in spans[1:-1]:
        span.end()
    kept = [e for e in sink.wait_for(100) if "$ai_input_state" in e.properties]
    assert 50 <= len(kept) <= 80


@settings(max_examples=40, deadline=None)
@given(order=st.lists(st.integers(0, 7), max_size=24))
def test_ends_in_any_order(order: list[int]) -> None:
    """Each number begins a span below one that is open, or ends it: one event a span."""
    sink = MemorySink()
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    tracer, opened, count = tracers.get_tracer("t"), {}, 0
    for number in order:
        if number in opened:
            opened.pop(number).end()
            continue
        around = next(iter(opened.values()), None)
        where = None if around is None else trace.set_span_in_context(around)
        attributes = (AGENT, TOOL)[number % 2] if number < 6 else {}
        opened[number] = tracer.start_span("x", attributes=attributes, context=where)
        count += number < 6
    for span in opened.values():
        span.end()
    assert not otel.steps
    sink.wait_for(count)


@settings(max_examples=60, deadline=None)
@given(
    attributes=st.dictionaries(
        st.sampled_from(
            [
                *("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions"),
                *("gen_ai.usage.input_tokens", "gen_ai.response.finish_reasons", "gen_ai.system"),
                *("llm.input_messages.0.message.role", "llm.input_messages.0", "llm.tools.x"),
                *("llm.output_messages.a.b", "llm.output_messages.1.message.tool_calls.0"),
                *("input.value", "pydantic_ai.all_messages", "pydantic_ai.new_message_index"),
                *("retrieval.documents.0", "retrieval.documents.0.document.content"),
                *("gen_ai.system_instructions", "session.id", "embedding.embeddings.0"),
            ]
        ),
        st.sampled_from(
            ["", "x", "[", "[1]", "{}", '{"parts": 1}', '[{"parts": [1, {}]}]', 1, True]
        )
        | st.sampled_from(["9" * 5000, "[" * 5000, ("a", "b"), (), 1.5, -3, 1 << 62]),
    ),
    kind=st.sampled_from(["LLM", "EMBEDDING", "AGENT", "RETRIEVER", "?"]),
)
def test_nothing_that_attributes_hold_loses_an_event(attributes: Any, kind: str) -> None:
    sink = MemorySink()
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    given = {"openinference.span.kind": kind, **attributes}
    with tracers.get_tracer("t").start_as_current_span("x", attributes=given):
        pass
    sink.wait_for(1)
    assert not faults.counts


# -- what may leave the process -------------------------------------------------------------


def _whole_run(tracer: trace.Tracer) -> None:
    secret = {"input.value": "secret", "openinference.span.kind": "AGENT"}
    with pytest.raises(ValueError):  # noqa: SIM117, PT012
        with tracer.start_as_current_span("Helper.run", attributes=secret):
            chat = {**CHAT, "gen_ai.input.messages": '[{"role": "user", "content": "secret"}]'}
            with tracer.start_as_current_span("chat", attributes=chat):
                pass
            with tracer.start_as_current_span("execute_tool weather", attributes=TOOL) as tool:
                tool.set_attribute("gen_ai.tool.call.result", "secret")
                raise ValueError("secret")


def test_privacy(tracer: trace.Tracer, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        _whole_run(tracer)
    events = sink.wait_for(3)
    assert "secret" not in str(events)
    assert named(events, "weather")["$ai_is_error"] is True


def test_redaction(tracer: trace.Tracer, sink: MemorySink) -> None:
    posthog_llm.configure(redact=lambda text: text.replace("secret", "***"))
    _whole_run(tracer)
    events = sink.wait_for(3)
    assert "secret" not in str(events)
    assert named(events, "Helper.run")["$ai_input_state"] == "***"


def test_capture_false_and_sampling(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    with posthog_llm.context(capture=False):
        _whole_run(tracer)
    with tracer.start_as_current_span("chat", attributes=CHAT):
        ours.chat.completions.create(model="gpt-4o", messages=HI, posthog_capture=False)
    sink.wait_for(0)
    posthog_llm.configure(sample_rate=0.5)
    for _ in range(40):
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            ask(ours)
    events = sink.events
    assert 0 < len(events) < 80
    assert all(len(tree) == 2 for tree in nested_trees(events))


# -- the global provider ----------------------------------------------------------------------


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("is_early", [True, False])
def test_instrument_adds_a_processor_once(
    provider: ScriptedProvider, sink: MemorySink, is_early: bool
) -> None:
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    early = trace.get_tracer("pydantic-ai")
    if is_early:
        posthog_llm.instrument()
    assert trace._TRACER_PROVIDER is None
    trace.set_tracer_provider(tracer_provider=tracers)
    posthog_llm.instrument()
    client = openai.OpenAI(base_url=provider.base_url, api_key="k")
    for tracer in (early, trace.get_tracer("x")):
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            ask(client)
    tree = ("trace helper agent", ("generation gpt-4o",))
    assert nested_trees(sink.wait_for(4)) == [tree, tree]

    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        posthog_llm.uninstrument()
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        ask(client)
    sink.wait_for(5)  # what had begun is observed to its end
    posthog_llm.instrument()
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        ask(client)
    sink.wait_for(7)
    assert len(tracers._active_span_processor._span_processors) == 1


@pytest.mark.usefixtures("unset")
def test_one_may_be_left_out_or_added_as_well(sink: MemorySink) -> None:
    tracers = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(tracers)
    posthog_llm.instrument(sink, otel=False)
    with trace.get_tracer("x").start_as_current_span("invoke_agent a", attributes=AGENT):
        pass
    sink.wait_for(0)
    tracers.add_span_processor(SpanProcessor())
    posthog_llm.instrument(sink)
    with trace.get_tracer("x").start_as_current_span("invoke_agent a", attributes=AGENT):
        pass
    sink.wait_for(1)


@pytest.mark.parametrize("has_exporter", [False, True])
def test_posthogs_own_processor_captures_what_it_exports(
    tracer: trace.Tracer,
    ours: OpenAI,
    sink: MemorySink,
    caplog: pytest.LogCaptureFixture,
    has_exporter: bool,
) -> None:
    theirs = pytest.importorskip("posthog.ai.otel", reason="needs OpenTelemetry's HTTP exporter")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = theirs.PostHogTraceExporter("phc_x", "http://127.0.0.1:9")
    made = SimpleSpanProcessor(exporter)
    if not has_exporter:
        made = theirs.PostHogSpanProcessor("phc_x", "http://127.0.0.1:9")
    exported: list[str] = []
    made.on_end = lambda span: exported.append(span.name)  # type: ignore[method-assign]
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    tracers.add_span_processor(made)
    tracer = tracers.get_tracer("pydantic-ai")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
                with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
                    ask(ours)
                with tracer.start_as_current_span("execute_tool weather", attributes=TOOL):
                    ask(ours)  # no span of theirs is about this call
    assert [event.event for event in sink.wait_for(2)] == ["$ai_generation"] * 2
    assert exported == ["chat gpt-4o", "execute_tool weather", "invoke_agent helper"] * 2
    assert sum("remove it" in record.getMessage() for record in caplog.records) == 1


def test_a_span_that_is_never_the_current_one(
    tracers: TracerProvider, ours: OpenAI, sink: MemorySink
) -> None:
    """Traceloop's instrumentation of Anthropic begins such spans."""
    tracer = tracers.get_tracer("opentelemetry.instrumentation.anthropic")
    for _ in range(2):
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            chat = tracer.start_span("chat gpt-4o", attributes=CHAT)
            ask(ours)
            chat.end()
            tracer.start_span("chat gpt-4o", attributes=CHAT)  # it never ends
    chat = tracer.start_span("chat gpt-4o", attributes=CHAT)
    ask(ours)
    chat.end()
    run = ("trace helper agent", ("generation gpt-4o",))
    assert nested_trees(sink.wait_for(5)) == [run, run, ("generation gpt-4o",)]


def test_logs_are_not_calls(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    """Logfire logs a stream once it is over, with the attributes of its span."""
    with tracer.start_as_current_span("Chat with gpt-4o", attributes=CHAT):
        ask(ours)
    with tracer.start_as_current_span("log", attributes={**CHAT, "logfire.span_type": "log"}):
        pass
    assert nested_trees(sink.wait_for(1)) == [("generation gpt-4o",)]


@pytest.mark.usefixtures("unset")
def test_spans_of_an_sdk_itself(provider: ScriptedProvider, sink: MemorySink) -> None:
    """Anthropic's newer SDKs begin one below our seam."""
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    posthog_llm.instrument(sink)
    client = anthropic.Anthropic(base_url=provider.url, api_key="k")
    client.messages.create(model="claude-opus-4-8", max_tokens=9, messages=HI)
    with client.messages.stream(model="claude-opus-4-8", max_tokens=9, messages=HI) as stream:
        stream.get_final_message()
    assert nested_trees(sink.wait_for(2)) == [("generation claude-opus-4-8",)] * 2


def test_a_reply_that_is_streamed(tracer: trace.Tracer, ours: OpenAI, sink: MemorySink) -> None:
    """The span of a stream ends long after it was current."""
    with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
        chat = tracer.start_span("chat gpt-4o", attributes=CHAT)
        with trace.use_span(chat):
            stream = ours.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
        assert list(stream)
        chat.end()
    assert nested_trees(sink.wait_for(2)) == [("trace helper agent", ("generation gpt-4o",))]


def test_a_failed_call_is_one_event(
    tracer: trace.Tracer, ours: OpenAI, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", Reply.error(400, "bad"))
    with pytest.raises(openai.BadRequestError):  # noqa: SIM117
        with tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
            ask(ours)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_http_status"] == 400
