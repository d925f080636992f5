"""A program with our library and one other that watches the SDKs: run by test_beside_others.py.

    python -m tests.beside openinference before

`before`, `after`: when the other library was set up, seen from `instrument()`. It prints, stage
by stage, how many events each call gave.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.update(
    DD_TRACE_AGENT_URL="http://127.0.0.1:9",
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    LANGFUSE_HOST="http://127.0.0.1:9",
    LANGFUSE_PUBLIC_KEY="pk-test",
    LANGFUSE_SECRET_KEY="sk-test",
    LANGFUSE_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="false",
)

import anthropic
import openai
from opentelemetry import trace

import posthog_llm
import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm import _faults as faults
from posthog_llm.testing import MemorySink, ScriptedProvider

Undo = Callable[[], object]
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SAID = "You said: hi"
seen: list[Any] = []
"""Spans of the other library, by which it shows that it still watches."""


def _spans() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Kept(SpanExporter):
        def export(self, spans: Any) -> Any:
            seen.extend(spans)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    processor = SimpleSpanProcessor(Kept())
    provider.add_span_processor(processor)
    return provider, processor


def openinference() -> Undo:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    provider, _ = _spans()
    trace.set_tracer_provider(provider)  # so that `instrument` sees its spans, too
    both = [OpenAIInstrumentor(), AnthropicInstrumentor()]
    for one in both:
        one.instrument(tracer_provider=provider, skip_dep_check=True)
    return lambda: [one.uninstrument() for one in both]


def traceloop() -> Undo:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    provider, _ = _spans()
    trace.set_tracer_provider(provider)  # so that `instrument` sees its spans, too
    both = [OpenAIInstrumentor(), AnthropicInstrumentor()]
    for one in both:
        one.instrument(tracer_provider=provider, skip_dep_check=True)
    return lambda: [one.uninstrument() for one in both]


def logfire() -> Undo:
    import logfire

    _, processor = _spans()
    logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[processor])
    stack = contextlib.ExitStack()
    for one in (openai.OpenAI, openai.AsyncOpenAI):
        stack.enter_context(logfire.instrument_openai(one))
    for one in (anthropic.Anthropic, anthropic.AsyncAnthropic):
        stack.enter_context(logfire.instrument_anthropic(one))
    return stack.close


def langfuse() -> Undo:
    import langfuse.openai  # noqa: F401 - that is all it takes, and it cannot be undone

    return lambda: None


def ddtrace() -> Undo:
    import ddtrace
    from ddtrace.contrib.internal.anthropic.patch import unpatch as unpatch_anthropic
    from ddtrace.contrib.internal.openai.patch import unpatch as unpatch_openai

    ddtrace.patch(openai=True, anthropic=True)
    assert openai.__datadog_patch
    return lambda: (unpatch_openai(), unpatch_anthropic())


def clients(module_openai: Any, module_anthropic: Any, url: str, **ours: Any) -> list[Any]:
    kwargs = {"api_key": "test", "max_retries": 0, **ours}
    return [
        module_openai.OpenAI(base_url=f"{url}/v1", **kwargs),
        module_openai.AsyncOpenAI(base_url=f"{url}/v1", **kwargs),
        module_anthropic.Anthropic(base_url=url, **kwargs),
        module_anthropic.AsyncAnthropic(base_url=url, **kwargs),
    ]


async def ask(client: Any, stream: bool) -> str:
    """Return what the model said."""
    more: Any = {"stream": True} if stream else {}
    if hasattr(client, "chat"):
        answer = client.chat.completions.create(**QUESTION, **more)
    else:
        answer = client.messages.create(max_tokens=9, **QUESTION, **more)
    answer = await answer if inspect.isawaitable(answer) else answer
    if not stream:
        content = answer.choices[0].message if hasattr(answer, "choices") else answer.content[0]
        return str(getattr(content, "text", None) or content.content)
    waits = "Async" in type(client).__name__
    items = [item async for item in answer] if waits else list(answer)
    return "".join(map(_text, items))


def _text(item: Any) -> str:
    if choices := getattr(item, "choices", None):
        return choices[0].delta.content or ""
    return getattr(getattr(item, "delta", None), "text", None) or ""


async def events_of(clients: list[Any], sink: MemorySink) -> list[int]:
    """Return how many whole events each client's plain and streamed call gave."""
    counts = []
    for client in clients:
        for stream in (False, True):
            before = len(sink.events)
            assert await ask(client, stream) == SAID
            found = sink.events[before:]
            for event in found:
                assert SAID in str(event.properties["$ai_output_choices"]), event
                assert event.properties["posthog_llm_outcome"] == "ok"
                assert event.properties["$ai_input_tokens"]
            counts.append(len(found))
    return counts


async def main(other: str, when: str) -> None:
    sink = MemorySink()
    properties: dict[str, Any] = {}
    with ScriptedProvider() as provider:
        early = clients(openai, anthropic, provider.url)
        await events_of(early, sink)  # their resources are made before anybody watches
        if when == "before":
            undo = globals()[other]()
            posthog_llm.instrument(sink)
        else:
            posthog_llm.instrument(sink)
            undo = globals()[other]()
        bare = clients(openai, anthropic, provider.url)
        ours = clients(posthog_llm.openai, posthog_llm.anthropic, provider.url, posthog_client=sink)
        properties["watched"] = await events_of(bare + early, sink)
        properties["ours"] = await events_of(ours, sink)
        properties["spans"] = len(seen)
        posthog_llm.uninstrument()
        properties["off"] = await events_of(bare + early, sink)
        properties["ours, off"] = await events_of(ours, sink)
        properties["spans, off"] = len(seen)
        posthog_llm.instrument(sink)
        properties["again"] = await events_of(bare + early, sink)
        undo()
        properties["alone"] = await events_of(bare + clients(openai, anthropic, provider.url), sink)
        posthog_llm.uninstrument()
        properties["off at last"] = await events_of(bare, sink)
    properties["faults"] = dict(faults.counts)
    print("told", json.dumps(properties))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
