"""Spans of OpenInference's packages whose kind is set at their end, as their names say it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.openai import OpenAI
from posthog_llm.otel import SpanProcessor
from posthog_llm.testing import MemorySink, ScriptedProvider

from .agents.trees import nested_trees

KIND = "openinference.span.kind"


@pytest.fixture
def tracer(sink: MemorySink) -> trace.Tracer:
    posthog_llm.configure(posthog_client=sink)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    return tracers.get_tracer("openinference.instrumentation.llama_index")


@pytest.mark.parametrize(
    ("name", "kind", "label"),
    [
        ("FunctionAgent.run", "CHAIN", "agent"),
        ("AgentWorkflow.arun", "CHAIN", "agent"),
        ("Agent.run_async", "CHAIN", "agent"),
        ("QueryEngineTool.call", "TOOL", "tool"),
        ("VectorIndexRetriever.aretrieve", "RETRIEVER", "retrieval"),
        ("LLMRerank.postprocess_nodes", "RERANKER", "rerank"),
        ("MyFlow.run", "CHAIN", "chain"),
        ("Custom.run", "GUARDRAIL", "guardrail"),
        ("RetrieverQueryEngine.aquery", "CHAIN", "chain"),
        ("ContextChatEngine.chat", "CHAIN", "chain"),
    ],
)
def test_steps(tracer: trace.Tracer, sink: MemorySink, name: str, kind: str, label: str) -> None:
    with tracer.start_as_current_span(name) as span:
        span.set_attribute(KIND, kind)
    assert nested_trees(sink.wait_for(1)) == [(f"trace {name} {label}",)]


@pytest.mark.parametrize(
    "name", ["SentenceSplitter.split_text", "OpenAI._prepare_chat_with_tools", "GET", "a b.run"]
)
def test_what_begins_no_trace(tracer: trace.Tracer, sink: MemorySink, name: str) -> None:
    with tracer.start_as_current_span(name) as span:
        span.set_attribute(KIND, "LLM")
    assert posthog_llm.flush(10)
    assert not sink.events


@pytest.mark.parametrize(
    ("name", "kind", "event"),
    [
        ("OpenAI.achat", "LLM", "$ai_generation"),
        ("Ollama.stream_complete", "LLM", "$ai_generation"),
        ("OpenAIChatGenerator.run", "LLM", "$ai_generation"),
        ("OpenAIEmbedding.get_text_embedding_batch", "EMBEDDING", "$ai_embedding"),
        ("TextEmbedder.run", "EMBEDDING", "$ai_embedding"),
    ],
)
def test_models(
    tracer: trace.Tracer,
    provider: ScriptedProvider,
    sink: MemorySink,
    name: str,
    kind: str,
    event: str,
) -> None:
    """A model's span is a generation if no call was seen on the wire, and if it says so itself."""
    said = {KIND: kind, "llm.model_name": "m", "llm.token_count.prompt": 3}
    with tracer.start_as_current_span(name) as span:
        span.set_attributes(said)
    with tracer.start_as_current_span(name) as span:
        span.set_attribute(KIND, "CHAIN")
    with tracer.start_as_current_span(name) as span:
        ask(provider)
        span.set_attributes(said)
    assert [e.event for e in sink.wait_for(2)] == [event, "$ai_generation"]
    assert sink.events[1].properties["$ai_model"] == "gpt-4o"


def ask(provider: ScriptedProvider) -> None:
    client = OpenAI(base_url=provider.base_url, api_key="k")
    hi: Any = [{"role": "user", "content": "hi"}]
    client.chat.completions.create(model="gpt-4o", messages=hi)


def test_a_chain_that_is_an_agent(tracer: trace.Tracer, sink: MemorySink) -> None:
    for name in ("Agent.run_async", "Tool.call"):
        with tracer.start_as_current_span(name, attributes={KIND: "CHAIN"}):
            pass
    agent, chain = nested_trees(sink.wait_for(2))
    assert (agent, chain) == (("trace Agent.run_async agent",), ("trace Tool.call chain",))


def test_how_a_framework_is_built_is_left_out(
    tracer: trace.Tracer, provider: ScriptedProvider, sink: MemorySink
) -> None:
    def chain(name: str) -> Any:
        return tracer.start_as_current_span(name, attributes={KIND: "CHAIN", "input.value": "1"})

    with (
        chain("Program.forward"),
        chain("Program.forward"),
        chain("Predict.forward"),
        chain("Predict(Signature(a.b -> c)\nx).forward"),
        chain("Adapter.__call__"),
        chain("Adapter.acall"),
        tracer.start_as_current_span("Flow.call_tool"),
    ):
        ask(provider)
    assert nested_trees(sink.wait_for(4)) == [
        (
            "trace Program.forward chain",
            (
                "span Program.forward chain",
                ("span Predict.forward chain", ("generation gpt-4o",)),
            ),
        )
    ]


def test_names_and_inputs_that_a_person_reads(tracer: trace.Tracer, sink: MemorySink) -> None:
    run = "Crew_bf0abf6a-c507-4d15-bc7d-364fae9ea4a1.kickoff"
    with tracer.start_as_current_span(run, attributes={KIND: "CHAIN"}) as span:
        span.set_attribute("input.value", '{"init_state": {"workers": 1}, "start_event": "go"}')
        with tracer.start_as_current_span("a helper\n._execute_core", attributes={KIND: "AGENT"}):
            pass
        with tracer.start_as_current_span("Tool.call") as tool:
            tool.set_attributes({KIND: "TOOL", "tool.name": "weather"})
        for name in ("find.__call__", "seek.acall"):
            with tracer.start_as_current_span(name, attributes={KIND: "TOOL"}):
                pass
        with tracer.start_as_current_span(run, attributes={KIND: "CHAIN"}):
            pass
    assert nested_trees(sink.wait_for(6)) == [
        (
            "trace Crew.kickoff chain",
            ("span a helper agent",),
            ("span weather tool",),
            ("span find tool",),
            ("span seek tool",),
            ("span Crew.kickoff chain",),
        )
    ]
    found = [e.properties for e in sink.events if e.event == "$ai_trace"]
    assert [event["$ai_input_state"] for event in found] == ["go"]
