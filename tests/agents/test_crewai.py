"""Runs of CrewAI: each is one trace, with its crews, agents, tools and generations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("crewai", "openinference.instrumentation.crewai"):
    pytest.importorskip(package, reason="the framework has a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture(autouse=True)
def traced(tracers: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from openinference.instrumentation.crewai import CrewAIInstrumentor

    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "false")
    CrewAIInstrumentor().instrument()
    yield
    CrewAIInstrumentor().uninstrument()


@pytest.fixture
def crew(provider: ScriptedProvider) -> Callable[..., Any]:
    """A crew whose agents have a role each, and a tool that may fail."""
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    @tool("weather")
    def weather(city: str) -> str:
        """Tell the weather."""
        with posthog_llm.span("look up"):
            if city == "Atlantis":
                raise LookupError("no such city")
            return f"sunny in {city}"

    def made(*roles: str, stream: bool = False) -> Any:
        llm = LLM("gpt-4o", base_url=provider.base_url, api_key="k", stream=stream)
        tools, tasks = [weather], []
        for role in roles:
            agent = Agent(role=role, goal="help", backstory="knows", tools=tools, llm=llm)
            tasks.append(Task(description="weather?", expected_output="text", agent=agent))
            tools = []
        return Crew(agents=[task.agent for task in tasks], tasks=tasks)

    return made


@pytest.mark.parametrize("how", ["plain", "streamed", "async", "private"])
def test_a_crew(
    crew: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink, how: str
) -> None:
    call = Reply.tool_call("weather", {"city": "Rome"})
    provider.script("/chat/completions", call, Reply.text("Sunny."))
    made = crew("helper", stream=how == "streamed")
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        result = asyncio.run(made.kickoff_async()) if how == "async" else made.kickoff()
    assert str(result) == "Sunny."
    assert [line for line in shown(sink) if "look up" not in line] == picture("CrewAI")
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    generations = [event for event in sink.events if event.event == "$ai_generation"]
    assert [event.properties["posthog_llm_endpoint"] for event in generations] == ["chat"] * 2
    assert {event.properties["$ai_framework"] for event in generations} == {"crewai"}
    assert {event.properties["$ai_stream"] for event in generations} == {how == "streamed"}
    if how == "private":
        assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))
        return
    tool = named(sink.events, "weather")
    assert tool["$ai_input_state"] == {"city": "Rome"}
    assert tool["$ai_output_state"] == "sunny in Rome"
    assert named(sink.events, "helper")["$ai_input_state"]["agent"]["role"] == "helper"
    assert named(sink.events, "Crew.kickoff")["$ai_output_state"]["raw"] == "Sunny."


def test_a_flow_of_two_agents_with_a_tool_that_fails(
    crew: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    from crewai.flow.flow import Flow, start
    from openinference.instrumentation import using_session

    class Report(Flow[dict[str, Any]]):
        name = "Report"

        @start()
        def write(self) -> str:
            return str(crew("helper", "writer").kickoff())

    call = Reply.tool_call("weather", {"city": "Atlantis"})
    provider.script("/chat/completions", call, Reply.text("Unknown."), Reply.text("Brief."))
    with using_session("chat-1"):
        assert Report().kickoff() == "Brief."
    assert shown(sink) == [
        "trace Report.kickoff (chain)",
        "  span Crew.kickoff (chain)",
        "    span helper (agent)",
        "      generation gpt-4o",
        "      span weather (tool) !",
        "        span look up !",
        "      generation gpt-4o",
        "    span writer (agent)",
        "      generation gpt-4o",
    ]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}
    assert "no such city" in named(sink.events, "weather")["$ai_error"]


def test_crews_beside_each_other_in_one_trace(crew: Callable[..., Any], sink: MemorySink) -> None:
    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.gather(crew("one").kickoff_async(), crew("two").kickoff_async())

    asyncio.run(main())
    assert posthog_llm.flush(10)
    tool = ("span weather tool", ("span look up",))
    one, two = (
        (f"span {role} agent", ("generation gpt-4o",), tool, ("generation gpt-4o",))
        for role in ("one", "two")
    )
    (tree,) = nested_trees(sink.events)
    crews = [("span Crew.kickoff chain", one), ("span Crew.kickoff chain", two)]
    assert (tree[0], sorted(tree[1:])) == ("trace request", crews)
