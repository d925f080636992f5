"""OpenRouter through our OpenAI client: what its Broadcast reads, and what it charges."""

from __future__ import annotations

from typing import Any

import pytest

from posthog_llm import Price, configure, context
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver

ASK: Any = {"model": "anthropic/claude-sonnet-4.5", "messages": [{"role": "user", "content": "x"}]}
TRACE = {
    "trace_id": "trace-1",
    "trace_name": "support",
    "generation_name": "answer",
    "span_name": "step",
    "parent_span_id": "parent-1",
    "feature": "search",
    "nested": {"a": [1]},
}
FIELDS = {"user": "user-7", "session_id": "session-1", "trace": TRACE}
BODY = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "provider": "Anthropic",
    "model": "anthropic/claude-4.5-sonnet-20250929",
}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "cost": 0.00123,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 80},
    "cost_details": {"upstream_inference_cost": None},
}


@pytest.fixture
def router(drive: Driver, provider: ScriptedProvider) -> Driver:
    choice = {"index": 0, "message": {"role": "assistant", "content": "y"}, "finish_reason": "stop"}
    provider.script("/chat/completions", Reply.json({**BODY, "choices": [choice], "usage": USAGE}))
    return drive


def found(drive: Driver, sink: MemorySink, more: Any = (), **client: Any) -> Any:
    ours = drive.ours(posthog_client=sink, **{"posthog_openrouter": True, **client})
    drive.call(lambda: ours.chat.completions.create(**ASK, **dict(more)))
    (event,) = sink.wait_for(1)
    return event


@pytest.mark.parametrize(
    "client", [{}, {"posthog_openrouter": False, "posthog_provider_override": "openrouter"}]
)
def test_what_broadcast_reads(router: Driver, sink: MemorySink, client: Any) -> None:
    event = found(router, sink, {"extra_body": FIELDS}, **client)
    properties = event.properties
    assert event.distinct_id == properties["$ai_user"] == "user-7"
    assert properties["$ai_session_id"] == "session-1"
    assert properties["$ai_trace_id"] == "trace-1"
    assert properties["$ai_parent_id"] == "parent-1"
    assert properties["$ai_span_name"] == "answer"
    assert properties["$ai_trace_name"] == properties["trace_name"] == "support"
    assert properties["feature"] == "search"
    assert properties["nested"] == {"a": [1]}
    assert not {"trace_id", "generation_name", "span_name", "parent_span_id"} & properties.keys()


def test_what_it_charges(router: Driver, sink: MemorySink) -> None:
    properties = found(router, sink).properties
    assert properties["$ai_provider"] == "openrouter"
    assert properties["$ai_model"] == "anthropic/claude-sonnet-4.5"
    assert properties["posthog_llm_upstream_provider"] == "Anthropic"
    assert properties["$ai_total_cost_usd"] == 0.00123
    assert properties["$ai_cost_passthrough"] is True
    assert properties["$ai_cache_reporting_exclusive"] is False
    assert properties["$ai_cache_read_input_tokens"] == 80


def test_a_fallback_is_charged_at_its_own_price(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "cost": 0.000125}
    body = {"id": "c", "object": "chat.completion", "created": 1, "choices": [], "usage": usage}
    provider.script(
        "/chat/completions", Reply.json({**body, "model": "openai/gpt-5-mini-2025-08-07"})
    )
    requested, listed = "anthropic/claude-opus-4.5", "openai/gpt-5-mini"
    configure(prices={requested: Price(input=5, output=25), listed: Price(input=0.25, output=2)})
    try:
        client = drive.ours(posthog_client=sink, posthog_openrouter=True)
        drive.ask(client, model=requested, extra_body={"models": [requested, listed]})
        properties = sink.wait_for(1)[0].properties
    finally:
        configure(prices=None)
    assert properties["$ai_model"] == listed
    assert properties["posthog_llm_requested_model"] == requested
    assert properties["$ai_total_cost_usd"] == pytest.approx(0.000125)


def test_streamed(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    chunk = {**BODY, "object": "chat.completion.chunk"}
    said = {"index": 0, "delta": {"content": "y"}, "finish_reason": "stop"}
    last = {**chunk, "choices": [], "usage": USAGE}
    provider.script("/chat/completions", Reply.stream([{**chunk, "choices": [said]}, last]))
    client = drive.ours(posthog_client=sink, posthog_openrouter=True)
    drive.collect(lambda: client.chat.completions.create(**ASK, stream=True, extra_body=FIELDS))
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "user-7"
    assert event.properties["$ai_total_cost_usd"] == 0.00123
    assert event.properties["posthog_llm_upstream_provider"] == "Anthropic"


def test_session_header(router: Driver, sink: MemorySink) -> None:
    event = found(router, sink, {"extra_headers": {"X-Session-Id": "by-header"}})
    assert event.properties["$ai_session_id"] == "by-header"


def test_arguments_win(router: Driver, sink: MemorySink) -> None:
    given = {"posthog_trace_id": "mine", "posthog_properties": {"feature": "own"}}
    with context(session_id="ours"):
        event = found(router, sink, {"extra_body": FIELDS, **given}, posthog_distinct_id="service")
    assert event.distinct_id == "service"
    assert event.properties["$ai_user"] == "user-7"
    assert event.properties["$ai_trace_id"] == "mine"
    assert event.properties["$ai_session_id"] == "ours"
    assert event.properties["feature"] == "own"


def test_others_do_not_read_it(router: Driver, sink: MemorySink) -> None:
    event = found(router, sink, {"extra_body": FIELDS}, posthog_openrouter=False)
    assert event.distinct_id == event.properties["$ai_trace_id"] != "trace-1"
    assert not {"$ai_user", "feature", "$ai_session_id"} & event.properties.keys()


@pytest.mark.parametrize("odd", [None, 7, "text", [], {"trace_id": None}, {"trace_id": {}}])
def test_odd_traces(router: Driver, sink: MemorySink, odd: Any) -> None:
    event = found(router, sink, {"extra_body": {"trace": odd, "user": odd, "session_id": odd}})
    assert event.properties["$ai_input"] == ASK["messages"]
