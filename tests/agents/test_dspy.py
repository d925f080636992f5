"""Programs of DSPy: each run is one trace, with its modules, tools and generations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .trees import named, nested_trees, picture, shown

for package in ("dspy", "litellm", "openinference.instrumentation.dspy"):
    pytest.importorskip(package, reason="the framework has a nox session")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("spans_watched")]


@pytest.fixture
def react(tracers: TracerProvider, provider: ScriptedProvider) -> Iterator[Any]:
    """An agent whose model calls a tool, finishes and answers; the tool knows no Atlantis."""
    import dspy
    from openinference.instrumentation.dspy import DSPyInstrumentor

    DSPyInstrumentor().instrument()

    def weather(city: str) -> str:
        """Tell the weather."""
        with posthog_llm.span("look up"):
            if city == "Atlantis":
                raise LookupError("no such city")
            return f"sunny in {city}"

    model = dspy.LM(
        "openai/gpt-4o", api_base=provider.base_url, api_key="k", cache=False, engine="litellm"
    )
    with dspy.context(lm=model):
        yield dspy.ReAct("question -> answer", tools=[weather])
    DSPyInstrumentor().uninstrument()


def script(provider: ScriptedProvider, city: str, *more: Reply) -> None:
    """Let the model call the tool, finish and answer, or do `more` at the end."""
    provider.script(
        "/chat/completions",
        _said(next_thought="ask", next_tool_name="weather", next_tool_args={"city": city}),
        _said(next_thought="done", next_tool_name="finish", next_tool_args={}),
        *(more or (_said(reasoning="told", answer="Sunny."),)),
    )


def _said(**fields: Any) -> Reply:
    """Return an answer in the format of DSPy's adapter for chats."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
    parts = [f"[[ ## {name} ## ]]\n{text}" for name, text in texts.items()]
    return Reply.text("\n\n".join([*parts, "[[ ## completed ## ]]"]))


def tree(forward: str) -> list[str]:
    """Return the tree of the documentation, with another method."""
    return [line.replace(".forward", f".{forward}") for line in picture("DSPy")]


@pytest.mark.parametrize("how", ["plain", "async", "private"])
def test_react(react: Any, provider: ScriptedProvider, sink: MemorySink, how: str) -> None:
    script(provider, "Rome")
    with posthog_llm.context(distinct_id="user-7", privacy_mode=how == "private" or None):
        if how == "async":
            said = asyncio.run(react.acall(question="weather?"))
        else:
            said = react(question="weather?")
    assert said.answer == "Sunny."
    lines = [line for line in shown(sink) if "look up" not in line]
    assert lines == tree("aforward" if how == "async" else "forward")
    assert {event.distinct_id for event in sink.events} == {"user-7"}
    generations = [event for event in sink.events if event.event == "$ai_generation"]
    assert [event.properties["posthog_llm_endpoint"] for event in generations] == ["chat"] * 3
    assert {event.properties["$ai_framework"] for event in generations} == {"dspy"}
    if how == "private":
        assert not any(text in str(sink.events) for text in ("weather?", "Rome", "unny"))
        return
    tool = named(sink.events, "weather")
    assert tool["$ai_input_state"] == {"kwargs": {"city": "Rome"}}
    assert tool["$ai_output_state"] == "sunny in Rome"
    (run,) = [event.properties for event in sink.events if event.event == "$ai_trace"]
    assert run["$ai_input_state"] == {"input_args": {"question": "weather?"}}
    assert run["$ai_output_state"]["answer"] == "Sunny."


def test_a_program_around_with_a_tool_that_fails(
    react: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    import dspy
    from openinference.instrumentation import using_session

    class Helper(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return react(question=question)

    script(provider, "Atlantis")
    with using_session("chat-1"):
        assert Helper()(question="weather?").answer == "Sunny."
    assert shown(sink) == [
        "trace Helper.forward (chain)",
        "  span ReAct.forward (chain)",
        "    span Predict.forward (chain)",
        "      generation gpt-4o",
        "    span weather (tool) !",
        "      span look up !",
        "    span Predict.forward (chain)",
        "      generation gpt-4o",
        "    span finish (tool)",
        "    span ChainOfThought.forward (chain)",
        "      span Predict.forward (chain)",
        "        generation gpt-4o",
    ]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"chat-1"}
    assert "no such city" in named(sink.events, "weather")["$ai_error"]


def test_modules_beside_each_other_in_one_trace(
    react: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    import dspy

    provider.script("/chat/completions", *[_said(answer="Sunny.")] * 2)
    ask = dspy.Predict("question -> answer")

    async def main() -> None:
        with posthog_llm.trace("request"):
            await asyncio.gather(ask.acall(question="Rome?"), ask.acall(question="Oslo?"))

    asyncio.run(main())
    assert posthog_llm.flush(10)
    run = ("span Predict.aforward chain", ("generation gpt-4o",))
    assert nested_trees(sink.events) == [("trace request", run, run)]


def test_its_own_engine_reports_no_tokens(
    react: Any, provider: ScriptedProvider, sink: MemorySink
) -> None:
    import dspy

    provider.script("/chat/completions", _said(answer="Sunny."))
    model = dspy.LM("openai/gpt-4o", api_base=provider.base_url, api_key="k", cache=False)
    with dspy.context(lm=model):
        assert dspy.Predict("question -> answer")(question="weather?").answer == "Sunny."
    assert posthog_llm.flush(10)
    assert nested_trees(sink.events) == [
        ("trace Predict.forward chain", ("generation gpt-4o",)),
    ]
    (call,) = [event.properties for event in sink.events if event.event == "$ai_generation"]
    assert "Sunny." in str(call["$ai_output_choices"])
    assert not any("tokens" in name for name in call)
