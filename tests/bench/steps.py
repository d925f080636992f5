"""What the steps of frameworks cost beside the bare framework and posthog.ai, in one process.

    nox -s bench_steps

Spans of OpenTelemetry, and nodes of a graph of LangGraph, which call no model. The contenders'
blocks are interleaved; figures are microseconds of the caller's thread for one step, medians over
the blocks with their quartiles. The official client runs with `send=False`.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypedDict

import posthog
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import TracerProvider
from posthog.ai.langchain import CallbackHandler
from posthog.ai.otel import PostHogSpanProcessor

import posthog_llm
from posthog_llm.otel import SpanProcessor
from posthog_llm.testing import MemorySink

BLOCKS, SPANS, NODES, RUNS = 60, 100, 10, 5
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
TOOL = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "weather",
    "gen_ai.tool.call.arguments": '{"city": "Rome"}',
}
REQUEST = {"http.request.method": "GET", "url.full": "http://127.0.0.1/", "server.port": 80}
CLIENT = posthog.Posthog("phc_bench", send=False)
Contender = tuple[Callable[[], AbstractContextManager[Any]], Callable[[], object]]


class State(TypedDict):
    number: int


def spans(*processors: Any, attributes: dict[str, Any]) -> Callable[[], None]:
    """Return a run: an agent with many tools, or with other spans."""
    made = TracerProvider(shutdown_on_exit=False)
    for one in processors:
        made.add_span_processor(one)
    tracer = made.get_tracer("pydantic-ai")

    def run() -> None:
        with tracer.start_as_current_span("invoke_agent helper", attributes=AGENT):
            for _ in range(SPANS):
                with tracer.start_as_current_span("x", attributes=attributes) as span:
                    span.set_attribute("gen_ai.tool.call.result", "sunny")

    return run


def graph(*callbacks: Any) -> Callable[[], None]:
    """Return runs of a graph of nodes in a row."""

    def node(state: State) -> State:
        return {"number": state["number"] + 1}

    made = StateGraph(State)
    names = [f"node {number}" for number in range(NODES)]
    for name in names:
        made.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        made.add_edge(before, after)
    compiled: Any = made.compile()

    def run() -> None:
        for _ in range(RUNS):
            compiled.invoke({"number": 0}, {"callbacks": list(callbacks)})

    return run


@contextmanager
def instrumented() -> Any:
    posthog_llm.instrument(MemorySink())
    yield
    posthog_llm.uninstrument()
    posthog_llm.flush()


def measure(title: str, count: int, contenders: dict[str, Contender]) -> None:
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(BLOCKS):
        for name, (around, run) in contenders.items():
            with around():
                run()  # the first after a change is slower
                before = time.thread_time()
                run()
                found[name].append((time.thread_time() - before) / count * 1e6)
    print(title)
    for name, values in found.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"  {name:12} {middle:7.1f} us ({low:.1f}-{high:.1f})")


def main() -> None:
    logging.disable(logging.WARNING)
    theirs = PostHogSpanProcessor("phc_bench", host="http://127.0.0.1:9")
    for title, attributes in (("a tool's span", TOOL), ("a span that is not of AI", REQUEST)):
        measure(
            title,
            SPANS,
            {
                "bare": (nullcontext, spans(attributes=attributes)),
                "posthog-llm": (instrumented, spans(SpanProcessor(), attributes=attributes)),
                "posthog.ai": (nullcontext, spans(theirs, attributes=attributes)),
            },
        )
    measure(
        "a node of a graph",
        RUNS * NODES,
        {
            "bare": (nullcontext, graph()),
            "posthog-llm": (instrumented, graph()),
            "posthog.ai": (nullcontext, graph(CallbackHandler(CLIENT))),
        },
    )


if __name__ == "__main__":
    main()
