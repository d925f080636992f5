"""Pipelines and agents of Haystack: each run is one trace, with its components."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("haystack", "openinference.instrumentation.haystack"):
    pytest.importorskip(package, reason="the framework has a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def generator(tracers: TracerProvider, provider: ScriptedProvider) -> Iterator[Callable[..., Any]]:
    from haystack.components.agents import Agent  # noqa: F401 - what is imported now is traced
    from haystack.components.builders import ChatPromptBuilder  # noqa: F401
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.utils import Secret
    from openinference.instrumentation.haystack import HaystackInstrumentor

    HaystackInstrumentor().instrument()

    def made(**given: Any) -> Any:
        key = Secret.from_token("k")
        return OpenAIChatGenerator(key, model="gpt-4o", api_base_url=provider.base_url, **given)

    yield made
    HaystackInstrumentor().uninstrument()


def weather(city: str) -> str:
    """Tell the weather."""
    with posthog_llm.span("weather", type="tool"):
        if city == "Atlantis":
            raise LookupError("no such city")
        return f"sunny in {city}"


def pipeline(generator: Any) -> Any:
    """Return a pipeline of a prompt and an agent with a tool."""
    from haystack import Pipeline
    from haystack.components.agents import Agent
    from haystack.components.builders import ChatPromptBuilder
    from haystack.dataclasses import ChatMessage
    from haystack.tools import create_tool_from_function

    made = Pipeline()
    template = [ChatMessage.from_user("weather in {{ city }}?")]
    made.add_component("prompt", ChatPromptBuilder(template, required_variables=["city"]))
    tools = [create_tool_from_function(weather)]
    made.add_component("agent", Agent(chat_generator=generator, tools=tools))
    made.connect("prompt.prompt", "agent.messages")
    return made


def answer(result: Any) -> str:
    return str(result["agent"]["messages"][-1].text)


@pytest.mark.parametrize("how", ["plain", "async", "streamed", "private"])
def test_a_pipeline_with_an_agent(
    generator: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink, how: str
) -> None:
    call = Reply.tool_call("weather", {"city": "Rome"})
    provider.script("/chat/completions", call, Reply.text("Sunny."))
    chunks: list[Any] = []
    made = pipeline(generator(streaming_callback=chunks.append if how == "streamed" else None))
    given = {"prompt": {"city": "Rome"}}
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        result = asyncio.run(made.run_async(given)) if how == "async" else made.run(given)
    assert answer(result) == "Sunny."
    assert bool(chunks) == (how == "streamed")
    method = "run_async" if how == "async" else "run"
    lines = [line.replace(".run_async", ".run") for line in shown(sink)]
    assert lines == picture("Haystack")
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    generations = [event for event in sink.events if event.event == "$ai_generation"]
    assert [event.properties["posthog_llm_endpoint"] for event in generations] == ["chat"] * 2
    assert {event.properties["$ai_framework"] for event in generations} == {"haystack"}
    assert {event.properties["$ai_stream"] for event in generations} == {how == "streamed"}
    if how == "private":
        assert not any(text in str(sink.events) for text in ("weather in", "Rome", "unny"))
        return
    run, agent = named(sink.events, f"Pipeline.{method}"), named(sink.events, f"Agent.{method}")
    assert run["$ai_input_state"]["data"] == given
    assert "weather in Rome?" in str(agent["$ai_input_state"])
    assert "Sunny." in str(agent["$ai_output_state"])


def test_a_tool_that_fails_in_a_session(
    generator: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    from openinference.instrumentation import using_session

    call = Reply.tool_call("weather", {"city": "Atlantis"})
    provider.script("/chat/completions", call, Reply.text("Unknown."))
    with using_session("chat-1"):
        result = pipeline(generator()).run({"prompt": {"city": "Atlantis"}})
    assert answer(result) == "Unknown."
    assert shown(sink) == [
        "trace Pipeline.run (chain)",
        "  span ChatPromptBuilder.run (chain)",
        "  span Agent.run (agent)",
        "    generation gpt-4o",
        "    span weather (tool) !",
        "    generation gpt-4o",
    ]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}


def test_pipelines_beside_each_other_in_one_trace(
    generator: Callable[..., Any], sink: MemorySink
) -> None:
    from haystack import Pipeline
    from haystack.dataclasses import ChatMessage

    async def ask(question: str) -> None:
        made = Pipeline()
        made.add_component("llm", generator())
        await made.run_async({"llm": {"messages": [ChatMessage.from_user(question)]}})

    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.gather(ask("hello"), ask("again"))

    asyncio.run(main())
    assert posthog_llm.flush(10)
    run = ("span Pipeline.run_async chain", ("generation gpt-4o",))
    assert nested_trees(sink.events) == [("trace request", run, run)]
