"""Runs of LlamaIndex: each is one trace, with its agents, tools and generations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("llama_index.llms.openai", "openinference.instrumentation.llama_index"):
    pytest.importorskip(package, reason="the framework has a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def looked_up(city: str) -> str:
    """Tell the weather."""
    with posthog_llm.span("look up"):
        if city == "Atlantis":
            raise LookupError("no such city")
        return f"sunny in {city}"


@pytest.fixture
def llm(tracers: TracerProvider, provider: ScriptedProvider) -> Iterator[Any]:
    from llama_index.llms.openai import OpenAI
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    LlamaIndexInstrumentor().instrument()
    yield OpenAI("gpt-4o", api_base=provider.base_url, api_key="k")
    LlamaIndexInstrumentor().uninstrument()


@pytest.fixture
def agent(llm: Any) -> Callable[..., Any]:
    from llama_index.core.agent.workflow import FunctionAgent

    def made(tool: Any, **given: Any) -> Any:
        return FunctionAgent(name="helper", tools=[tool], llm=llm, **given)

    return made


def ask(agent: Any, question: str = "weather?") -> str:
    async def main() -> str:
        return str(await agent.run(question))

    return asyncio.run(main())


@pytest.mark.parametrize("how", ["plain", "streamed", "private"])
def test_a_function_agent(
    agent: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink, how: str
) -> None:
    call = Reply.tool_call("weather", {"city": "Rome"})
    provider.script("/chat/completions", call, Reply.text("Sunny."))
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        assert ask(agent(weather, streaming=how == "streamed")) == "Sunny."
    assert shown(sink) == picture("LlamaIndex")
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    assert {event.properties["$ai_framework"] for event in sink.events} == {"llama-index"}
    generations = [event for event in sink.events if event.event == "$ai_generation"]
    assert [event.properties["posthog_llm_endpoint"] for event in generations] == ["chat"] * 2
    assert {event.properties["$ai_stream"] for event in generations} == {how == "streamed"}
    if how == "private":
        assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))
        return
    tool_event, run = named(sink.events, "weather"), named(sink.events, "FunctionAgent.run")
    assert tool_event["$ai_input_state"] == {"kwargs": {"city": "Rome"}}
    assert tool_event["$ai_output_state"]["raw_output"] == "sunny in Rome"
    assert run["$ai_input_state"] == "AgentWorkflowStartEvent()"
    assert "Sunny." in run["$ai_output_state"]


def test_a_tool_that_fails_in_a_session(
    agent: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    from openinference.instrumentation import using_session

    call = Reply.tool_call("looked_up", {"city": "Atlantis"})
    provider.script("/chat/completions", call, Reply.text("Unknown."))
    with using_session("chat-1"):
        assert ask(agent(looked_up)) == "Unknown."
    assert shown(sink) == [
        "trace FunctionAgent.run (agent)",
        "  generation gpt-4o",
        "  span looked_up (tool) !",
        "    span look up !",
        "  generation gpt-4o",
    ]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}
    assert "no such city" in named(sink.events, "looked_up")["$ai_error"]


def test_agents_that_hand_over(llm: Any, provider: ScriptedProvider, sink: MemorySink) -> None:
    from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent

    agents = [
        FunctionAgent(name="front", description="asks", llm=llm, can_handoff_to=["expert"]),
        FunctionAgent(name="expert", description="knows", llm=llm, tools=[weather]),
    ]
    provider.script(
        "/chat/completions",
        Reply.tool_call("handoff", {"to_agent": "expert", "reason": "weather"}),
        Reply.tool_call("weather", {"city": "Rome"}),
        Reply.text("Sunny."),
    )
    assert ask(AgentWorkflow(agents=agents, root_agent="front")) == "Sunny."
    assert shown(sink) == [
        "trace AgentWorkflow.run (agent)",
        "  generation gpt-4o",
        "  span handoff (tool)",
        "  generation gpt-4o",
        "  span weather (tool)",
        "  generation gpt-4o",
    ]


def test_runs_beside_each_other_in_one_trace(
    agent: Callable[..., Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.gather(agent(looked_up).run("hello"), agent(looked_up).run("again"))

    asyncio.run(main())
    assert posthog_llm.flush(10)
    tool = ("span looked_up tool", ("span look up",))
    run = ("span FunctionAgent.run agent", ("generation gpt-4o",), tool, ("generation gpt-4o",))
    assert nested_trees(sink.events) == [("trace request", run, run)]


def test_retrieval_and_a_query(llm: Any, sink: MemorySink) -> None:
    from llama_index.core import Document, SummaryIndex

    index = SummaryIndex.from_documents([Document(text="Rome is sunny.")])
    assert str(index.as_query_engine(llm=llm).query("weather?"))
    assert shown(sink) == [
        "trace RetrieverQueryEngine.query (chain)",
        "  span SummaryIndexRetriever.retrieve (retrieval)",
        "  generation gpt-4o",
    ]
    (found,) = named(sink.events, "SummaryIndexRetriever.retrieve")["$ai_output_state"]
    assert found["content"] == "Rome is sunny."
