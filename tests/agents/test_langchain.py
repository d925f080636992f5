"""Runs of LangChain and LangGraph: each is one trace, with its steps."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, NonCallableMagicMock

import openai
import posthog
import pytest

import posthog_llm
import posthog_llm.openai
from posthog_llm import instrument, span, trace, uninstrument
from posthog_llm._context import remove_step_source
from posthog_llm._frameworks import langchain as langchain_source
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from ..test_processes import Children
from .trees import named, picture, shown, trees

pytest.importorskip("langgraph", reason="the frameworks have a nox session")

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from posthog.ai.langchain import CallbackHandler as PostHogHandler

from posthog_llm.langchain import CallbackHandler

pytestmark = pytest.mark.filterwarnings("ignore")
QUESTION: Any = {"messages": [{"role": "user", "content": "Is it raining in Rome?"}]}
CALL = Reply.tool_call("weather", {"city": "Rome"})
TEXT = Reply.text("No.")
GRAPH = picture("LangChain and LangGraph")


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return "sunny"


@pytest.fixture(autouse=True)
def instrumented(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    instrument(sink)
    yield
    assert not langchain_source.steps, "a run is never forgotten"
    uninstrument()
    langchain_source.by_hand.clear()
    remove_step_source(langchain_source.innermost)


def model(provider: ScriptedProvider) -> ChatOpenAI:
    return ChatOpenAI(base_url=provider.base_url, api_key="k", model="gpt-4o-mini", max_retries=0)  # type: ignore[arg-type]


def helper(provider: ScriptedProvider, *replies: Reply, **more: Any) -> Any:
    provider.script("/chat/completions", *(replies or (CALL, TEXT)))
    return create_agent(model(provider), [weather], **{"name": "helper", **more})


def streamed(agent: Any) -> None:
    list(agent.stream(QUESTION))


def streamed_async(agent: Any) -> None:
    async def read() -> None:
        async for _ in agent.astream(QUESTION, stream_mode="messages"):
            pass

    asyncio.run(read())


WAYS: list[Callable[[Any], Any]] = [
    lambda agent: agent.invoke(QUESTION),
    lambda agent: asyncio.run(agent.ainvoke(QUESTION)),
    streamed,
    streamed_async,
]


@pytest.mark.parametrize("run", WAYS, ids=["invoke", "ainvoke", "stream", "astream messages"])
def test_an_agent_is_a_trace(
    provider: ScriptedProvider, sink: MemorySink, run: Callable[[Any], Any]
) -> None:
    run(helper(provider))
    assert shown(sink) == GRAPH
    assert len({event.properties["$ai_trace_id"] for event in sink.events}) == 1
    assert {event.properties["$ai_framework"] for event in sink.events} == {"langchain"}
    (root,) = [e.properties for e in sink.events if e.event == "$ai_trace"]
    assert root["$ai_input_state"]["messages"][0]["content"] == "Is it raining in Rome?"
    assert root["$ai_output_state"]["messages"][-1]["content"] == "No."
    assert named(sink.events, "weather")["$ai_input_state"] == {"city": "Rome"}
    assert named(sink.events, "weather")["$ai_output_state"]["content"] == "sunny"


def test_private_runs_have_no_content(provider: ScriptedProvider, sink: MemorySink) -> None:
    with posthog_llm.context(privacy_mode=True):
        helper(provider).invoke(QUESTION)
    assert shown(sink) == GRAPH
    text = repr([event.properties for event in sink.events])
    assert "Rome" not in text
    assert "sunny" not in text


@pytest.mark.parametrize("by", ["context", "handler"])
def test_steps_around_a_private_part_have_no_content(sink: MemorySink, by: str) -> None:
    inner = RunnableLambda(lambda given: f"{given} diagnosed", name="inner")

    def work(given: str) -> str:
        if by == "handler":
            return inner.invoke(given, {"callbacks": [CallbackHandler(privacy_mode=True)]})
        with posthog_llm.context(privacy_mode=True):
            return inner.invoke(given)

    middle = RunnableLambda(work, name="middle")
    RunnableLambda(lambda given: middle.invoke(given), name="outer").invoke("secret")
    RunnableLambda(lambda given: given, name="other").invoke("public")
    tree = ["trace outer (chain)", "  span middle (chain)", "    span inner (chain)"]
    assert shown(sink) == [*tree, "trace other (chain)"]
    assert "secret" not in repr([event.properties for event in sink.events])
    assert named(sink.events, "other")["$ai_output_state"] == "public"


def test_runs_inside_our_trace_and_our_span_inside_a_tool(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    @tool
    def look(city: str) -> str:
        """Look."""
        with span("read the sky", type="retrieval"), posthog_llm.context(properties={"deep": 1}):
            model(provider).invoke("sky?")
        return "sunny"

    provider.script("/chat/completions", Reply.tool_call("look", {"city": "Rome"}), TEXT, TEXT)
    agent = create_agent(model(provider), [look], name="helper")
    with trace("request", distinct_id="ann", session_id="s"):
        agent.invoke(QUESTION)
        model(provider).invoke("after")
    assert shown(sink) == [
        "trace request",
        "  span helper (agent)",
        "    span model (chain)",
        "      generation gpt-4o-mini",
        "    span tools (chain)",
        "      span look (tool)",
        "        span read the sky (retrieval)",
        "          generation gpt-4o-mini",
        "    span model (chain)",
        "      generation gpt-4o-mini",
        "  generation gpt-4o-mini",
    ]
    assert {event.distinct_id for event in sink.events} == {"ann"}
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"s"}
    assert [e.properties.get("deep") for e in sink.events].count(1) == 1


def test_parallel_agents_in_one_loop(provider: ScriptedProvider, sink: MemorySink) -> None:
    agent = create_agent(model(provider), [weather], name="helper")  # the model echoes

    async def both() -> None:
        await asyncio.gather(*(agent.ainvoke(QUESTION) for _ in range(3)))

    asyncio.run(both())
    assert len(shown(sink)) == 3 * len(GRAPH)
    by_trace = {event.properties["$ai_trace_id"] for event in sink.events}
    assert len(by_trace) == 3
    for trace_id in by_trace:
        of_one = [e for e in sink.events if e.properties["$ai_trace_id"] == trace_id]
        assert trees(of_one) == GRAPH


@pytest.mark.parametrize("run", ["batch", "abatch"])
def test_batches(provider: ScriptedProvider, sink: MemorySink, run: str) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | model(provider)
    given = [{"x": "one"}, {"x": "two"}]
    if run == "batch":
        chain.batch(given)  # in threads
    else:
        asyncio.run(chain.abatch(given))
    one = ["trace RunnableSequence (chain)", "  span ChatPromptTemplate (chain)"]
    assert shown(sink) == [*one, "  generation gpt-4o-mini"] * 2


def test_a_failing_tool(provider: ScriptedProvider, sink: MemorySink) -> None:
    @tool
    def broken(city: str) -> str:
        """Fail."""
        raise ValueError("no such city")

    provider.script("/chat/completions", Reply.tool_call("broken", {"city": "Rome"}))
    with pytest.raises(ValueError, match="no such city"):
        create_agent(model(provider), [broken], name="helper").invoke(QUESTION)
    assert shown(sink) == [
        "trace helper (agent) !",
        "  span model (chain)",
        "    generation gpt-4o-mini",
        "  span tools (chain) !",
        "    span broken (tool) !",
    ]
    assert "no such city" in named(sink.events, "broken")["$ai_error"]


def test_a_failing_model(provider: ScriptedProvider, sink: MemorySink) -> None:
    agent = helper(provider, Reply.error(400, "bad request"))
    with pytest.raises(Exception, match="bad request"):
        agent.invoke(QUESTION)
    assert shown(sink) == [
        "trace helper (agent) !",
        "  span model (chain) !",
        "    generation gpt-4o-mini !",
    ]


def test_an_interrupted_run_is_no_error_and_its_session_has_two_traces(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    @tool
    def ask(city: str) -> str:
        """Ask a human."""
        return str(interrupt("sure?"))

    provider.script("/chat/completions", Reply.tool_call("ask", {"city": "Rome"}), TEXT)
    saver = InMemorySaver()
    agent = create_agent(model(provider), [ask], name="helper", checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "thread-1"}}
    agent.invoke(QUESTION, config)
    agent.invoke(Command(resume="yes"), config)
    assert [line for line in shown(sink) if line.startswith("trace")] == [
        "trace helper (agent)"
    ] * 2
    assert not [line for line in trees(sink.events) if "!" in line]
    assert {event.properties["$ai_session_id"] for event in sink.events} == {"thread-1"}


def test_an_agent_as_a_tool_of_another(provider: ScriptedProvider, sink: MemorySink) -> None:
    inner = create_agent(model(provider), [weather], name="inner")

    @tool
    def delegate(city: str) -> str:
        """Delegate."""
        return str(inner.invoke(QUESTION)["messages"][-1].content)

    call = Reply.tool_call("delegate", {"city": "Rome"})
    provider.script("/chat/completions", call, CALL, TEXT, TEXT)
    create_agent(model(provider), [delegate], name="outer").invoke(QUESTION)
    lines = shown(sink)
    assert lines[4:6] == ["    span delegate (tool)", "      span inner (agent)"]
    assert lines[6:-2] == ["      " + line for line in GRAPH[1:]]
    assert lines[0] == "trace outer (agent)"


def test_a_model_that_no_wire_shows_is_captured_from_the_framework(sink: MemorySink) -> None:
    usage: Any = {
        "input_tokens": 7,
        "output_tokens": 2,
        "total_tokens": 9,
        "input_token_details": {"cache_read": 3},
    }
    fake = GenericFakeChatModel(messages=iter([AIMessage("hello", usage_metadata=usage)]))
    (ChatPromptTemplate.from_messages([("user", "{x}")]) | fake).invoke({"x": "hi"})
    assert shown(sink)[-1] == "  generation GenericFakeChatModel"
    (event,) = [e for e in sink.events if e.event == "$ai_generation"]
    said = event.properties
    assert said["$ai_input"] == [{"role": "user", "content": "hi"}]
    assert said["$ai_output_choices"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "hello"}]}
    ]
    assert (said["$ai_output_tokens"], said["$ai_cache_read_input_tokens"]) == (2, 3)


def test_a_model_that_only_claims_to_be_of_an_sdk(sink: MemorySink) -> None:
    """LangChain derives the provider from the name of the class."""

    class ChatOpenAI(GenericFakeChatModel):
        pass

    ChatOpenAI(messages=iter([AIMessage("hello")])).invoke("hi")
    (event,) = sink.wait_for(1)
    assert event.event == "$ai_generation"
    assert event.properties["$ai_provider"] == "openai"
    assert event.properties["$ai_input"] == [{"role": "user", "content": "hi"}]


def test_an_input_that_the_run_changes_in_place(sink: MemorySink) -> None:
    def change(given: Any) -> str:
        given["ticket"]["customer"]["name"] = "changed"
        given["ticket"]["notes"].append("later")
        return "done"

    RunnableLambda(change).invoke({"ticket": {"customer": {"name": "ann"}, "notes": []}})
    shown(sink)
    asked = sink.events[0].properties["$ai_input_state"]
    assert asked == {"ticket": {"customer": {"name": "ann"}, "notes": []}}


def test_a_private_client_keeps_what_the_framework_reports_private(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    posthog_llm.openai.OpenAI(api_key="k", posthog_privacy_mode=True)
    GenericFakeChatModel(messages=iter([AIMessage("hello")])).invoke("hi Rome")
    (event,) = sink.wait_for(1)
    assert "Rome" not in str(event)
    assert "hello" not in str(event)


class Question(dict[str, Any]):
    """An input that can be watched."""


def test_abandoned_streams_hold_a_bounded_amount(sink: MemorySink) -> None:
    def answer(given: Iterator[Any]) -> Iterator[str]:
        yield "a"
        yield "b"

    asked: list[weakref.ref[Question]] = []
    for _ in range(100):
        question = Question(text="x" * 1_000_000 + str(len(asked)))
        asked.append(weakref.ref(question))
        next(RunnableGenerator(answer).stream(question))
    del question
    gc.collect()
    assert sum(one() is not None for one in asked) <= 34
    langchain_source.steps.forget()


def test_a_model_alone_is_a_generation_alone(provider: ScriptedProvider, sink: MemorySink) -> None:
    model(provider).invoke("hi")
    assert shown(sink) == ["generation gpt-4o-mini"]


@pytest.mark.parametrize("is_instrumented", [True, False])
def test_the_handler_by_hand_counts_nothing_twice(
    provider: ScriptedProvider, sink: MemorySink, is_instrumented: bool
) -> None:
    if not is_instrumented:
        uninstrument()
    handler = CallbackHandler(sink, distinct_id="ann", groups={"company": "acme"})  # type: ignore[arg-type]
    helper(provider).invoke(QUESTION, {"callbacks": [handler]})
    assert shown(sink) == GRAPH
    assert {event.distinct_id for event in sink.events} == {"ann"}
    assert all(event.groups == {"company": "acme"} for event in sink.events)


def test_a_run_that_posthogs_own_handler_captures_is_its_alone(
    provider: ScriptedProvider, sink: MemorySink, receiver: PostHogReceiver
) -> None:
    client = posthog.Posthog("phc_key", host=receiver.url)
    theirs = PostHogHandler(client)
    helper(provider).invoke(QUESTION, {"callbacks": [theirs]})
    client.shutdown()
    assert Counter(event["event"] for event in receiver.events)["$ai_generation"] == 2
    assert shown(sink) == []


def test_posthogs_own_handler_on_the_model_alone(
    provider: ScriptedProvider, sink: MemorySink, receiver: PostHogReceiver
) -> None:
    client = posthog.Posthog("phc_key", host=receiver.url)
    asked: Any = model(provider).with_config(callbacks=[PostHogHandler(client)])
    (ChatPromptTemplate.from_messages([("user", "{x}")]) | asked).invoke({"x": "hi"})
    client.shutdown()
    assert Counter(event["event"] for event in receiver.events)["$ai_generation"] == 1
    assert shown(sink) == ["trace RunnableSequence (chain)", "  span ChatPromptTemplate (chain)"]


def test_a_stream_that_is_read_later_gives_its_identity_to_nothing_else(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    with posthog_llm.context(distinct_id="ann", session_id="s"):
        stream = model(provider).stream("of ann")
        next(stream)
    model(provider).invoke("of nobody")
    with span("mine"):
        pass
    list(stream)
    assert posthog_llm.flush(10)
    of_ann = [event for event in sink.events if event.distinct_id == "ann"]
    assert [event.properties["$ai_input"][0]["content"] for event in of_ann] == ["of ann"]
    assert len(sink.events) == 3


def test_streams_with_handlers_of_two_users_are_read_in_turn(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    handlers: Any = [
        CallbackHandler(distinct_id="ann", groups={"company": "a"}),
        CallbackHandler(distinct_id="ben"),
    ]
    streams = [model(provider).stream("hi", {"callbacks": [handler]}) for handler in handlers]
    list(zip(*streams, strict=False))
    for stream in streams:
        list(stream)
    assert posthog_llm.flush(10)
    assert {e.distinct_id: e.groups for e in sink.events} == {"ann": {"company": "a"}, "ben": {}}


@pytest.mark.parametrize("is_in_chain", [True, False])
def test_each_handler_applies_to_what_it_is_given(
    provider: ScriptedProvider, sink: MemorySink, is_in_chain: bool
) -> None:
    handler = CallbackHandler(distinct_id="ann", privacy_mode=True)
    asked: Any = ChatOpenAI(
        base_url=provider.base_url,
        api_key="k",  # type: ignore[arg-type]
        model="gpt-4o-mini",
        callbacks=[handler] if is_in_chain else None,
    )
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | asked
    both: Any = [CallbackHandler(properties={"a": 1}), *([] if is_in_chain else [handler])]
    chain.invoke({"x": "hi"}, {"callbacks": both})
    assert posthog_llm.flush(10)
    (event,) = [e for e in sink.events if e.event == "$ai_generation"]
    assert event.distinct_id == "ann"
    assert event.properties["a"] == 1
    assert "$ai_input" not in event.properties


@pytest.mark.parametrize("changes", [False, True])
def test_a_graph_that_a_generator_streams(
    provider: ScriptedProvider, sink: MemorySink, changes: bool
) -> None:
    """Its blocks are made anew at each resume; its consumer may enter a block in between."""
    agent = helper(provider)

    @trace("answer")
    def answer() -> Iterator[Any]:
        with posthog_llm.context(distinct_id="ann"):
            yield from agent.stream(QUESTION)

    stream = answer()
    next(stream)
    if changes:
        with posthog_llm.context(distinct_id="ben"):
            list(stream)
    else:
        list(stream)
    inside = [f"  {line}".replace("trace helper", "span helper") for line in GRAPH]
    assert shown(sink) == ["trace answer", *inside]
    assert "ben" not in {event.distinct_id for event in sink.events}


def test_a_call_that_is_left_out_is_not_captured_from_the_framework(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    uninstrument()
    from posthog_llm.openai import OpenAI

    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    instrument(sink, openai=False)
    asked = model(provider)
    asked.client = client.with_options(posthog_capture=False).chat.completions
    asked.invoke("hi")
    assert shown(sink) == []


def test_what_comes_from_langchains_cache_is_no_call(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    asked = model(provider)
    asked.cache = InMemoryCache()
    asked.invoke("hi")
    asked.invoke("hi")
    assert len(provider.requests) == 1
    assert shown(sink) == ["generation gpt-4o-mini"]


def test_a_private_client_keeps_the_steps_around_its_calls_private(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from posthog_llm.openai import OpenAI

    asked = model(provider)
    private = OpenAI(
        base_url=provider.base_url, api_key="k", posthog_client=sink, posthog_privacy_mode=True
    )
    asked.client = private.chat.completions
    (ChatPromptTemplate.from_messages([("user", "{x}")]) | asked).invoke({"x": "of the merger"})
    assert len(shown(sink)) == 3
    assert "merger" not in repr([event.properties for event in sink.events])


def test_uninstrument_leaves_handlers_of_the_application(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    from posthog_llm.openai import OpenAI

    handler: Any = CallbackHandler(sink, distinct_id="ann")
    uninstrument()
    asked = model(provider)
    asked.client = OpenAI(base_url=provider.base_url, api_key="k").chat.completions
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | asked
    chain.invoke({"x": "hi"}, {"callbacks": [handler]})
    assert len(shown(sink)) == 3
    assert {event.distinct_id for event in sink.events} == {"ann"}


@pytest.mark.parametrize("is_instrumented", [True, False])
def test_runs_of_one_id_in_two_threads_are_two(
    provider: ScriptedProvider, sink: MemorySink, is_instrumented: bool
) -> None:
    if not is_instrumented:
        uninstrument()
    both, run_id = threading.Barrier(2), uuid.uuid4()

    def work(user: str) -> str:
        both.wait()
        said = RunnableLambda(lambda given: f"of {given}", name="inner").invoke(user)
        both.wait()
        return said

    chain = RunnableLambda(work, name="outer")
    handlers = {user: CallbackHandler(sink, distinct_id=user) for user in ("ann", "ben")}

    def run(user: str) -> None:
        chain.invoke(user, {"run_id": run_id, "callbacks": [handlers[user]]})

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, handlers))
    assert shown(sink) == ["trace outer (chain)", "  span inner (chain)"] * 2
    for event in sink.events:
        said = event.properties
        user = event.distinct_id
        assert (said["$ai_input_state"], said["$ai_output_state"]) == (user, f"of {user}")


def test_a_run_inside_one_of_the_same_id(provider: ScriptedProvider, sink: MemorySink) -> None:
    config: Any = {"run_id": uuid.uuid4()}
    step = RunnableLambda(lambda given: given, name="step")

    def work(given: str) -> str:
        inner.invoke("in", config)
        return step.invoke(given)

    inner: Any = RunnableLambda(lambda given: step.invoke(given), name="inner")
    RunnableLambda(work, name="outer").invoke("out", config)
    assert shown(sink) == [
        "trace outer (chain)",
        "  span inner (chain)",
        "    span step (chain)",
        "  span step (chain)",
    ]
    assert named(sink.events, "inner")["$ai_output_state"] == "in"
    assert named(sink.events, "outer")["$ai_output_state"] == "out"


@pytest.mark.parametrize("ends_first", [0, 1])
def test_streams_of_one_run_id_that_are_read_in_turn(
    provider: ScriptedProvider, sink: MemorySink, ends_first: int
) -> None:
    def pieces(given: Iterator[str]) -> Iterator[str]:
        for user in given:
            yield RunnableLambda(lambda user: f"of {user}", name="inner").invoke(user)
            yield "."

    chain, config = RunnableGenerator(pieces, name="outer"), {"run_id": uuid.uuid4()}
    streams = []
    for user in ("ann", "ben"):
        with posthog_llm.context(distinct_id=user):
            streams.append(chain.stream(user, config))  # type: ignore[arg-type]
            next(streams[-1])
    list(streams[ends_first])
    list(streams[1 - ends_first])
    assert shown(sink) == ["trace outer (chain)", "  span inner (chain)"] * 2
    for event in sink.events:
        assert event.properties["$ai_output_state"].startswith(f"of {event.distinct_id}")


def test_models_of_one_run_id_at_once(sink: MemorySink) -> None:
    both, config = threading.Barrier(2), {"run_id": uuid.uuid4()}

    class Local(GenericFakeChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            both.wait()
            try:
                return super()._generate(*args, **kwargs)
            finally:
                both.wait()

    def run(user: str) -> None:
        usage: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        messages = iter([AIMessage(f"of {user}", usage_metadata=usage)])
        with posthog_llm.context(distinct_id=user):
            Local(messages=messages).invoke(user, config)  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, ("ann", "ben")))
    assert shown(sink) == ["generation Local"] * 2
    for event in sink.events:
        said = event.properties
        assert said["$ai_input"][0]["content"] == event.distinct_id
        assert f"of {event.distinct_id}" in repr(said["$ai_output_choices"])


class Strange:
    """Whatever is asked of it fails."""

    def _fail(self, *args: object) -> Any:
        raise RuntimeError("strange")

    __bool__ = __len__ = __iter__ = __str__ = __repr__ = __eq__ = __getitem__ = _fail
    model_dump = _fail
    __hash__ = None  # type: ignore[assignment]


TOOLS: dict[str, Any] = {
    "a text": "weather",
    "a mapping": {"type": "function"},
    "an object": Strange(),
    "objects": [Strange(), {"type": Strange(), "function": Strange()}, {Strange: 1}],
    "other values": [None, 1, [[]], weather, {"function": {"name": 1, "parameters": "x"}}],
}


@pytest.mark.parametrize("tools", TOOLS.values(), ids=TOOLS)
def test_parameters_of_any_type(sink: MemorySink, tools: Any) -> None:
    class Local(GenericFakeChatModel):
        def _get_invocation_params(self, *args: Any, **kwargs: Any) -> Any:
            return {"model": Strange(), "tools": tools}

    usage: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    config: Any = {"metadata": {"ls_model_name": Strange(), "thread_id": Strange()}}
    config["metadata"]["ls_provider"] = Strange()
    config["run_name"] = "local"
    Local(messages=iter([AIMessage("hi", usage_metadata=usage)])).invoke("x", config)
    assert shown(sink) == ["generation local"]


def seen_by(mocks: list[Any]) -> list[Any]:
    """Return what was done to mocks: calls, and attributes that were read."""
    return [(one.mock_calls, sorted(vars(one)["_mock_children"])) for one in mocks]


def test_mocks_in_steps_see_nothing_of_us(sink: MemorySink) -> None:
    def mocks() -> list[Any]:
        kinds = (MagicMock, Mock, AsyncMock, NonCallableMagicMock)
        return [*(kind() for kind in kinds), MagicMock(spec=AIMessage), MagicMock(spec=dict)]

    def run(made: list[Any]) -> None:
        given = {"plain": made[:4], "type": made[0], "role": made[1], "content": made[4:]}
        for one in (given, *made):
            RunnableLambda(lambda _, one=one: one).invoke(one)
        with span("mine", input=made[0]) as mine:
            mine.output = made

    bare, watched = mocks(), mocks()
    uninstrument()
    run(bare)
    posthog_llm.flush(10)
    sink.events.clear()
    instrument(sink)
    run(watched)
    assert len(shown(sink)) == 8
    assert "[MagicMock]" in repr([event.properties for event in sink.events])
    assert seen_by(watched) == seen_by(bare)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("is_given", [True, False])
def test_copies_and_pickles_of_a_runs_configuration(
    sink: MemorySink, way: Callable[[Any], Any], is_given: bool
) -> None:
    """A run's configuration holds the handlers: `instrument`'s, too."""

    def work(given: str, config: Any) -> str:
        made = way(config["callbacks"])
        made = pickle.loads(made) if isinstance(made, bytes) else made
        return step.invoke(given, {**config, "callbacks": made})

    step = RunnableLambda(lambda given: given, name="step")
    handlers = [CallbackHandler(sink, distinct_id="ann", groups={"company": "acme"})]
    given: Any = {"callbacks": handlers if is_given else []}
    RunnableLambda(work, name="outer").invoke("x", given)
    assert shown(sink) == ["trace outer (chain)", "  span step (chain)"]
    assert {event.distinct_id for event in sink.events if is_given} <= {"ann"}


def test_handlers_in_another_process(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    children = Children(provider, receiver)
    client = posthog.Posthog("phc_key", host=receiver.url)
    config = {
        "free": [CallbackHandler(distinct_id="ann", properties={"plan": "gold"})],
        "bound": [CallbackHandler(client, distinct_id="ben")],
    }
    out = children.run(
        f"""
        import pickle
        from langchain_core.runnables import RunnableLambda
        posthog_llm.configure(posthog_client=project())
        for name, callbacks in pickle.loads({pickle.dumps(config)!r}).items():
            step = RunnableLambda(lambda given: given, name=name)
            print(step.invoke("x", {{"callbacks": callbacks}}))
        """
    )
    assert out.split() == ["x", "x"]
    (event,) = receiver.events
    assert (event["distinct_id"], event["properties"]["plan"]) == ("ann", "gold")
    assert event["properties"]["$ai_span_name"] == "free"


class InThreads(BaseChatModel):
    """A model of the application's, which calls the SDK in a thread without our context."""

    base_url: str
    id_in: str
    pool: Any

    @property
    def _llm_type(self) -> str:
        return "in-threads"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        said = self.pool.submit(self._ask, messages[-1].content).result()
        about = {"id": said.id} if self.id_in == "response_metadata" else {}
        own_id = said.id if self.id_in == "id" else None
        usage: Any = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        message = AIMessage(
            str(said.choices[0].message.content),
            id=own_id,
            response_metadata=about,
            usage_metadata=usage,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _ask(self, text: str) -> Any:
        client = openai.OpenAI(base_url=self.base_url, api_key="k", max_retries=0)
        asked: Any = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="gpt-4o-mini", messages=asked)


@pytest.mark.parametrize("id_in", ["response_metadata", "id"])
def test_a_model_that_calls_the_sdk_in_a_thread_of_its_own_is_captured_once(
    provider: ScriptedProvider, sink: MemorySink, id_in: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = InThreads(base_url=provider.base_url, id_in=id_in, pool=pool)
        (ChatPromptTemplate.from_messages([("user", "{x}")]) | asked).invoke({"x": "hi"})
    assert sorted(shown(sink)) == [
        "  span ChatPromptTemplate (chain)",
        "generation gpt-4o-mini",
        "trace RunnableSequence (chain)",
    ]


def test_a_response_that_was_seen_before_the_run_hides_no_other(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    said = openai.OpenAI(base_url=provider.base_url, api_key="k").chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
    )
    usage: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    messages = iter([AIMessage("hi", id=said.id, usage_metadata=usage)])
    GenericFakeChatModel(messages=messages).invoke("x")
    assert shown(sink) == ["generation gpt-4o-mini", "generation GenericFakeChatModel"]


@pytest.mark.parametrize("copies", [True, False], ids=["with the context", "without it"])
def test_calls_in_threads_of_a_tool(
    provider: ScriptedProvider, sink: MemorySink, copies: bool
) -> None:
    """LangChain's executor copies the context, Python's does not."""
    client = openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0)

    def ask(text: str) -> Any:
        asked: Any = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="gpt-4o-mini", messages=asked)

    @tool
    def look(city: str) -> str:
        """Look."""
        executor: Any = ContextThreadPoolExecutor if copies else ThreadPoolExecutor
        with executor(2) as threads:
            list(threads.map(ask, [city, city]))
        return "sunny"

    RunnableParallel(a=look, b=look).invoke({"city": "Rome"})
    calls = ["generation gpt-4o-mini"] * 2
    under = [f"    {call}" for call in calls] if copies else []
    spans = ["  span look (tool)", *under] * 2
    flat = [] if copies else calls * 2
    lines = shown(sink)
    assert sorted(lines) == sorted(["trace RunnableParallel<a,b> (chain)", *spans, *flat])
    assert [line for line in lines if line not in flat] == [lines[0], *spans]


def test_misuse_of_the_handler() -> None:
    with pytest.raises(TypeError, match="distinct_id"):
        CallbackHandler(distinct_id=object())  # type: ignore[arg-type]


def test_uninstrument_leaves_no_steps(provider: ScriptedProvider, sink: MemorySink) -> None:
    uninstrument()
    helper(provider).invoke(QUESTION)
    assert shown(sink) == []


@pytest.mark.parametrize("is_local", [False, True], ids=["on the wire", "in the process"])
def test_a_run_in_which_uninstrument_is_called_is_captured_where_it_began(
    provider: ScriptedProvider, sink: MemorySink, is_local: bool
) -> None:
    usage: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}

    class Local(GenericFakeChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            uninstrument()
            return super()._generate(*args, **kwargs)

    local = Local(messages=iter([AIMessage("hi", usage_metadata=usage)]))

    def work(given: str) -> Any:
        if is_local:
            return local.invoke(given)
        said = model(provider).invoke(given)
        uninstrument()
        RunnableLambda(lambda given: given, name="begins later").invoke("x")
        return said

    RunnableLambda(work, name="outer").invoke("x")
    name = "Local" if is_local else "gpt-4o-mini"
    assert shown(sink) == ["trace outer (chain)", f"  generation {name}"]
    assert not posthog_llm.stats().dropped


def test_one_framework_may_be_left_out(provider: ScriptedProvider, sink: MemorySink) -> None:
    uninstrument()
    instrument(sink, langchain=False)
    helper(provider).invoke(QUESTION)
    assert {line.split()[0] for line in shown(sink)} == {"generation"}
