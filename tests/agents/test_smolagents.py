"""Runs of smolagents: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("smolagents", "openinference.instrumentation.smolagents"):
    pytest.importorskip(package, reason="the frameworks have a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def smolagent(tracers: TracerProvider, provider: ScriptedProvider) -> Iterator[Any]:
    from openinference.instrumentation.smolagents import SmolagentsInstrumentor
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool

    SmolagentsInstrumentor().instrument()

    @tool
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: a city
        """
        return f"sunny in {city}"

    provider.script(
        "/chat/completions",
        Reply.tool_call("weather", {"city": "Rome"}),
        Reply.tool_call("final_answer", {"answer": "Sunny."}),
    )
    model = OpenAIServerModel("gpt-4o", api_base=provider.base_url, api_key="k")
    yield ToolCallingAgent(tools=[weather], model=model, verbosity_level=0)
    SmolagentsInstrumentor().uninstrument()


STEPS = (
    "trace ToolCallingAgent.run agent",
    ("span Step 1 chain", ("generation gpt-4o",), ("span weather tool",)),
    ("span Step 2 chain", ("generation gpt-4o",), ("span final_answer tool",)),
)


@pytest.mark.parametrize("how", ["plain", "streamed", "private"])
def test_smolagents(smolagent: Any, sink: MemorySink, how: str) -> None:
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        if how == "streamed":
            smolagent.stream_outputs = True
            assert list(smolagent.run("weather?", stream=True))
        else:
            assert smolagent.run("weather?") == "Sunny."
    events = sink.wait_for(7)
    assert shown(sink) == picture("smolagents")
    assert {event.distinct_id for event in events} == {"user-7"}
    assert {event.properties["$ai_framework"] for event in events} == {"smolagents"}
    tool = named(events, "weather")
    if how == "private":
        assert not any(text in str(events) for text in ("weather?", "Rome", "unny"))
        return
    assert tool["$ai_input_state"]["kwargs"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == "sunny in Rome"
    assert named(events, "ToolCallingAgent.run")["$ai_input_state"]["task"] == "weather?"


def test_smolagents_in_a_thread_of_a_loop(smolagent: Any, sink: MemorySink) -> None:
    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.to_thread(smolagent.run, "weather?")

    asyncio.run(main())
    inside = ("span ToolCallingAgent.run agent", *STEPS[1:])
    assert nested_trees(sink.wait_for(8)) == [("trace request", inside)]
