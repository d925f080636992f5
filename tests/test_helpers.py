"""Models that work for another's answer: events beneath it, as private, as sampled and as the
caller's as the answer's own."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import CapturedEvent, MemorySink, Reply, ScriptedProvider, reset

from .driving import DRIVERS, Driver

SECRET = "tell nobody of the merger"
WHO: dict[str, Any] = {
    "posthog_distinct_id": "user-7",
    "posthog_session_id": "chat-1",
    "posthog_trace_id": "trace-1",
    "posthog_groups": {"company": "acme"},
    "posthog_properties": {"plan": "pro", "$ai_input_tokens": 1},
}
COUNTS = {"input_tokens": 400, "output_tokens": 30}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": SECRET}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "output_tokens": 5,
        "iterations": [
            {"type": "message", "input_tokens": 10, "output_tokens": 5},
            {"type": "advisor_message", "model": "claude-opus-4-6", **COUNTS},
            {"type": "advisor_message", "model": "claude-opus-4-6", **COUNTS},
        ],
    },
}
DRAWN = {"input_tokens": 20, "output_tokens": 272, "total_tokens": 292}


def response(identity: str, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "object": "response",
        "created_at": 1,
        "model": "gpt-5",
        "status": "completed",
        "output": [],
        "tools": [{"type": "image_generation", "model": "gpt-image-1.5"}],
        "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11},
        "tool_usage": {"image_gen": DRAWN},
        **more,
    }


@pytest.fixture(params=["Anthropic sync", "Anthropic async"])
def claude(request: pytest.FixtureRequest, provider: ScriptedProvider) -> Any:
    driver = DRIVERS[request.param](provider)
    yield driver
    driver.close()


@pytest.fixture
def identity() -> str:
    return f"resp_{uuid.uuid4().hex}"


def ask(claude: Driver, client: Any, **more: Any) -> Any:
    claude.provider.script("/messages", Reply.json(MESSAGE))
    asked = {"messages": [{"role": "user", "content": SECRET}], **more}
    return claude.ask(client, model="claude-sonnet-4-6", **asked)


def beneath(first: CapturedEvent, helper: CapturedEvent) -> bool:
    same = ("$ai_trace_id", "$ai_session_id", "posthog_llm_response_id")
    return (
        helper.event == "$ai_generation"
        and helper.properties["$ai_parent_id"] == first.properties["$ai_span_id"]
        and all(helper.properties.get(n) == first.properties.get(n) for n in same)
        and helper.distinct_id == first.distinct_id
        and helper.groups == first.groups
        and helper.uuid == helper.properties["$ai_span_id"] != first.uuid
    )


def test_they_are_the_callers(claude: Driver, sink: MemorySink) -> None:
    ask(claude, claude.ours(posthog_client=sink), **WHO)
    first, *advisors = sink.wait_for(3)
    assert (first.distinct_id, first.groups) == ("user-7", {"company": "acme"})
    assert first.properties["$ai_input_tokens"] == 1
    for advisor in advisors:
        assert beneath(first, advisor)
        assert advisor.properties["plan"] == "pro"
        assert advisor.properties["$ai_input_tokens"] == 400
        assert advisor.properties["$ai_span_name"] == "advisor"
        assert advisor.properties["$ai_model"] == "claude-opus-4-6"
    assert len({event.uuid for event in (first, *advisors)}) == 3


def test_of_nobody_they_are_in_the_answers_trace(claude: Driver, sink: MemorySink) -> None:
    ask(claude, claude.ours(posthog_client=sink))
    first, *advisors = sink.wait_for(3)
    assert all(beneath(first, advisor) for advisor in advisors)
    assert all(event.properties["$process_person_profile"] is False for event in sink.events)


@pytest.mark.parametrize("private", ["call", "client", "destination"])
def test_they_are_private(claude: Driver, private: str) -> None:
    sink = MemorySink(privacy_mode=private == "destination")
    client = claude.ours(posthog_client=sink, posthog_privacy_mode=private == "client")
    more = {"posthog_privacy_mode": True} if private == "call" else {}
    ask(claude, client, system=SECRET, **more)
    found = [event.properties for event in sink.wait_for(3)]
    assert SECRET not in json.dumps(found, default=str)
    assert [properties["$ai_input_tokens"] for properties in found] == [10, 400, 400]


def test_no_content_leaves_with_them(claude: Driver, sink: MemorySink) -> None:
    ask(claude, claude.ours(posthog_client=sink))
    first, *advisors = sink.wait_for(3)
    assert SECRET in json.dumps(first.properties)
    assert SECRET not in json.dumps([advisor.properties for advisor in advisors])


def test_sampling_keeps_or_leaves_them_together(claude: Driver, sink: MemorySink) -> None:
    client = claude.ours(posthog_client=sink)
    posthog_llm.configure(sample_rate=0.5)
    try:
        for number in range(12):
            ask(claude, client, posthog_session_id=f"s{number}")
        found = [event.properties["$ai_session_id"] for event in sink.events]
    finally:
        posthog_llm.configure(sample_rate=1.0)
    assert 0 < len(set(found)) < 12
    assert all(found.count(session) == 3 for session in found)
    assert all(event.properties["posthog_llm_sample_rate"] == 0.5 for event in sink.events)


def test_what_is_refused_before_capture(claude: Driver, sink: MemorySink) -> None:
    """Each event is asked about: who leaves out the answer may keep its helpers."""
    posthog_llm.configure(
        before_capture=lambda event: event if "$ai_parent_id" in event["properties"] else None
    )
    try:
        ask(claude, claude.ours(posthog_client=sink))
        assert [e.properties["$ai_span_name"] for e in sink.wait_for(2)] == ["advisor"] * 2
    finally:
        posthog_llm.configure(before_capture=None)


def test_of_a_background_response(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str
) -> None:
    client = drive.ours(posthog_client=sink)
    queued = response(identity, status="queued", background=True, usage=None, tool_usage=None)
    ended = Reply.json(response(identity, background=True))
    provider.script("/responses", Reply.json(queued))
    provider.script(f"/responses/{identity}", ended, ended)
    drive.call(lambda: client.responses.create(model="gpt-5", input=SECRET, background=True, **WHO))
    for _ in range(2):
        drive.call(lambda: client.responses.retrieve(identity))
    first, picture = sink.wait_for(2)
    assert beneath(first, picture)
    assert picture.properties["$ai_span_name"] == "image_generation"
    assert (picture.distinct_id, picture.groups) == ("user-7", {"company": "acme"})
    assert SECRET not in json.dumps(picture.properties)


def test_a_second_process_tells_them_under_the_same_ids(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str
) -> None:
    """PostHog takes events with one uuid for one."""
    client = drive.ours(posthog_client=sink)
    ended = Reply.json(response(identity, background=True))
    provider.script(f"/responses/{identity}", ended, ended)
    drive.call(lambda: client.responses.retrieve(identity))
    first = [event.uuid for event in sink.wait_for(2)]
    reset()
    drive.call(lambda: client.responses.retrieve(identity))
    assert [event.uuid for event in sink.wait_for(4)] == first * 2


@pytest.mark.parametrize("said", ["call", "context", "client"])
def test_what_either_call_says_of_privacy_holds_for_a_background_response(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str, said: str
) -> None:
    client = drive.ours(posthog_client=sink)
    begun = response(identity, background=True, status="queued", usage=None)
    said_in = [{"type": "output_text", "text": SECRET, "annotations": []}]
    output = [{"type": "message", "id": "m", "role": "assistant", "content": said_in}]
    ended = response(identity, background=True, output=output, tool_usage=None)
    provider.script("/responses", Reply.json(begun))
    provider.script(f"/responses/{identity}", Reply.json(ended))
    drive.call(lambda: client.responses.create(model="gpt-5", input=SECRET, background=True))
    more = {"posthog_privacy_mode": True} if said == "call" else {}
    client = client.with_options(posthog_privacy_mode=True) if said == "client" else client
    with posthog_llm.context(privacy_mode=True if said == "context" else None):
        drive.call(lambda: client.responses.retrieve(identity, **more))
    (event,) = sink.wait_for(1)
    assert SECRET not in json.dumps(event.properties)
    assert event.properties["$ai_output_tokens"] == 6


def test_of_a_batch(claude: Driver, sink: MemorySink, identity: str) -> None:
    from .test_anthropic import script_batch

    line = {"custom_id": "r0", "result": {"type": "succeeded", "message": MESSAGE}}
    client = claude.ours(posthog_client=sink)
    for _ in range(2):
        script_batch(claude.provider, identity, json.dumps(line).encode() + b"\n", "")
        claude.collect(
            lambda: client.messages.batches.results(identity, posthog_distinct_id="user-7")
        )
    first, *advisors = sink.wait_for(3)
    assert [event.properties["$ai_model"] for event in (first, *advisors)] == [
        "claude-sonnet-4-6:batch",
        *["claude-opus-4-6:batch"] * 2,
    ]
    assert all(beneath(first, advisor) for advisor in advisors)
    assert first.distinct_id == "user-7"


def test_a_cost_that_was_reported_has_them_inside(claude: Driver, sink: MemorySink) -> None:
    charged = {**MESSAGE, "usage": {**MESSAGE["usage"], "cost": 0.5}}
    claude.provider.script("/messages", Reply.json(charged))
    claude.ask(claude.ours(posthog_client=sink))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_total_cost_usd"] == 0.5
