"""What the README's table says of agents, for us and for posthog.ai: each cell happened here."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import posthog
import pytest

import posthog_llm
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider

from ..test_compared import said, table

pytest.importorskip("langgraph", reason="the frameworks have a nox session")
pytest.importorskip("smolagents", reason="the frameworks have a nox session")

import agents
from agents import OpenAIResponsesModel, Runner, set_trace_processors, set_tracing_disabled
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from openai import AsyncOpenAI
from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from posthog.ai.langchain import CallbackHandler
from posthog.ai.openai_agents import PostHogTracingProcessor
from posthog.ai.otel import PostHogSpanProcessor
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from smolagents import OpenAIServerModel, ToolCallingAgent, tool

from posthog_llm.otel import SpanProcessor

pytestmark = pytest.mark.filterwarnings("ignore")
ASKED: Any = {"messages": [{"role": "user", "content": "Is it raining in Rome?"}]}
Nodes = list[tuple[str, str | None, str]]
"""The id, the parent's, and the name of each step that arrived at PostHog."""


class Spans(HTTPServer):
    """Receives what an OpenTelemetry exporter sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.nodes: Nodes = []
        Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Spans

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                parent = span.parent_span_id.hex() or None
                self.server.nodes.append((span.span_id.hex(), parent, span.name))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Try:
    """One library, and what arrived at PostHog of one run."""

    def __init__(self, *, ours: bool, provider: ScriptedProvider) -> None:
        self.ours, self.provider, self._open = ours, provider, ExitStack()
        self._receiver = self._open.enter_context(PostHogReceiver())
        self._spans = self._open.enter_context(closing(Spans()))
        self.client = posthog.Posthog("phc_compared", host=self._receiver.url)
        self._open.callback(self.client.shutdown)
        self._open.callback(posthog_llm.uninstrument)

    def close(self) -> None:
        self._open.close()

    def instrument(self) -> None:
        posthog_llm.instrument(self.client)

    def tracers(self) -> TracerProvider:
        """Return a provider with the library's own processor."""
        made = TracerProvider(shutdown_on_exit=False)
        if self.ours:
            self.instrument()
            made.add_span_processor(SpanProcessor())
        else:
            host = f"http://127.0.0.1:{self._spans.server_port}"
            made.add_span_processor(PostHogSpanProcessor("phc_compared", host=host))
        self._open.callback(made.shutdown)
        self._made = made
        return made

    def events(self) -> list[dict[str, Any]]:
        posthog_llm.flush()
        self.client.flush()
        return [dict(event) for event in self._receiver.events]

    def nodes(self) -> Nodes:
        if hasattr(self, "_made"):
            self._made.force_flush()
        found = list(self._spans.nodes)
        for event in self.events():
            about = event["properties"]
            trace_id, parent = about["$ai_trace_id"], about.get("$ai_parent_id")
            if event["event"] == "$ai_trace":
                found.append((trace_id, parent, str(about.get("$ai_span_name"))))
            else:  # PostHog shows what has no parent below the trace
                own = about.get("$ai_span_id") or str(uuid4())
                found.append((own, parent or trace_id, str(about.get("$ai_span_name"))))
        return found


def is_one_tree(nodes: Nodes) -> bool:
    """Whether each step but one is in another, and a tool is there."""
    ids = {own for own, _, _ in nodes}
    is_tool = any("weather" in name for _, _, name in nodes)
    return is_tool and sum(parent not in ids for _, parent, _ in nodes) == 1


# -- runs -----------------------------------------------------------------------------------


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: a city
    """
    return f"sunny in {city}"


def script(library: Try) -> None:
    library.provider.script(
        "/chat/completions", Reply.tool_call("weather", {"city": "Rome"}), Reply.text("Sunny.")
    )


def graph(library: Try, *, streamed: bool = False) -> None:
    script(library)
    callbacks = [] if library.ours else [CallbackHandler(library.client)]
    if library.ours:
        library.instrument()
    place = {"base_url": library.provider.base_url, "api_key": "k"}
    agent: Any = create_agent(
        ChatOpenAI(model="gpt-4o", streaming=streamed, **place),  # type: ignore[call-arg, arg-type]
        [weather],
        name="helper",
        checkpointer=InMemorySaver(),
    )
    config = {"callbacks": callbacks, "configurable": {"thread_id": "chat-1"}}
    if streamed:
        list(agent.stream(ASKED, config, stream_mode="messages"))
    else:
        agent.invoke(ASKED, config)


def generations(library: Try) -> list[dict[str, Any]]:
    return [e["properties"] for e in library.events() if e["event"] == "$ai_generation"]


def graph_is_a_tree(library: Try) -> bool:
    graph(library)
    return is_one_tree(library.nodes())


def graph_streams_tokens(library: Try) -> bool:
    graph(library, streamed=True)
    found = generations(library)
    return len(found) == 2 and all(told.get("$ai_output_tokens") for told in found)


def graph_streams_first_token(library: Try) -> bool:
    graph(library, streamed=True)
    return all("$ai_time_to_first_token" in told for told in generations(library))


def graph_has_a_session(library: Try) -> bool:
    graph(library)
    return {e["properties"].get("$ai_session_id") for e in library.events()} == {"chat-1"}


def agents_run(library: Try) -> Nodes:
    library.provider.script(
        "/responses",
        Reply.tool_call("transfer_to_expert", {}),
        Reply.tool_call("weather", {"city": "Rome"}),
        Reply.text("Sunny."),
    )
    set_tracing_disabled(False)
    set_trace_processors([] if library.ours else [PostHogTracingProcessor(library.client)])
    if library.ours:
        library.instrument()
    sdk = AsyncOpenAI(base_url=library.provider.base_url, api_key="k")
    model = OpenAIResponsesModel("gpt-5", sdk)
    tools: Any = [agents.function_tool(weather)]
    expert: Any = agents.Agent(name="expert", model=model, tools=tools)
    Runner.run_sync(agents.Agent(name="front", model=model, handoffs=[expert]), "Rome?")
    return library.nodes()


def agents_are_a_tree(library: Try) -> bool:
    return is_one_tree(agents_run(library))


def agents_have_no_noise(library: Try) -> bool:
    names = [name for _, _, name in agents_run(library)]
    return not any(noise in name for name in names for noise in ("turn", "task"))


def pydantic_is_a_tree(library: Try) -> bool:
    script(library)
    place = OpenAIProvider(base_url=library.provider.base_url, api_key="k")
    watched = InstrumentationSettings(tracer_provider=library.tracers())
    PydanticAgent.instrument_all(watched)
    try:
        agent = PydanticAgent(OpenAIChatModel("gpt-4o", provider=place), name="helper")
        agent.tool_plain(weather)
        agent.run_sync("Rome?")
    finally:
        PydanticAgent.instrument_all(False)
    return is_one_tree(library.nodes())


def smolagents_are_a_tree(library: Try) -> bool:
    library.provider.script(
        "/chat/completions",
        Reply.tool_call("weather", {"city": "Rome"}),
        Reply.tool_call("final_answer", {"answer": "Sunny."}),
    )
    SmolagentsInstrumentor().instrument(tracer_provider=library.tracers())
    try:
        model = OpenAIServerModel("gpt-4o", api_base=library.provider.base_url, api_key="k")
        ToolCallingAgent(tools=[tool(weather)], model=model, verbosity_level=0).run("Rome?")
    finally:
        SmolagentsInstrumentor().uninstrument()
    return is_one_tree(library.nodes())


ROWS: dict[str, Callable[[Try], bool]] = {
    "LangGraph: a run is one tree": graph_is_a_tree,
    "LangGraph: tokens of streamed answers": graph_streams_tokens,
    "LangGraph: time to first token": graph_streams_first_token,
    "LangGraph: a conversation is a session": graph_has_a_session,
    "OpenAI Agents: a run is one tree": agents_are_a_tree,
    "OpenAI Agents: without turns and tasks": agents_have_no_noise,
    "pydantic-ai: a run is one tree": pydantic_is_a_tree,
    "smolagents: a run is one tree": smolagents_are_a_tree,
}


@pytest.fixture(params=["posthog-llm", "posthog.ai"])
def tried(
    request: pytest.FixtureRequest, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Try]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = Try(ours=request.param == "posthog-llm", provider=provider)
    yield made
    made.close()
    set_trace_processors([])


@pytest.mark.parametrize("row", ROWS)
def test_the_table_says_what_happens(row: str, tried: Try) -> None:
    assert ROWS[row](tried) == said(table()[row][0 if tried.ours else 1])
