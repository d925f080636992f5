"""The event: whole, true, and the same for a plain and a streamed call."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import openai as sdk
import posthog
import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .driving import Driver, SyncDriver, failure_of, saying

MESSAGES = [{"role": "user", "content": "hi you"}]
ASK: dict[str, Any] = {"model": "gpt-5-mini", "messages": MESSAGES}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_whole_event_through_the_real_posthog_client(
    drive: Driver, receiver: PostHogReceiver, provider: ScriptedProvider
) -> None:
    destination = posthog.Posthog("phc_test", host=receiver.url)
    before = time.time()
    drive.call(
        lambda: drive.ours(posthog_client=destination).chat.completions.create(
            model="gpt-5-mini",
            messages=[{"role": "system", "content": "Be brief."}, *MESSAGES],
            temperature=0.5,
            max_completion_tokens=100,
            posthog_distinct_id="u1",
            posthog_trace_id="trace-1",
            posthog_session_id="session-1",
            posthog_span_id="span-2",
            posthog_parent_id="span-1",
            posthog_span_name="answer",
            posthog_properties={"plan": "team"},
            posthog_groups={"company": "acme"},
        )
    )
    destination.flush()
    (event,) = receiver.events
    properties = event["properties"]
    assert event["event"] == "$ai_generation"
    assert event["distinct_id"] == "u1"
    assert UUID.fullmatch(event["uuid"])
    at = datetime.fromisoformat(event["timestamp"]).timestamp()
    assert before - 0.001 <= at <= time.time()
    ours = {k: v for k, v in properties.items() if k.startswith(("$ai", "posthog_llm"))}
    assert 0 < ours.pop("$ai_latency") < 10
    assert re.fullmatch(r"chatcmpl-\d+", ours.pop("posthog_llm_response_id"))
    assert ours == {
        "$ai_lib": "posthog-llm",
        "$ai_lib_version": posthog_llm.__version__,
        "$ai_trace_id": "trace-1",
        "$ai_session_id": "session-1",
        "$ai_span_id": "span-2",
        "$ai_parent_id": "span-1",
        "$ai_span_name": "answer",
        "$ai_provider": "openai",
        "$ai_model": "gpt-5-mini",
        "posthog_llm_requested_model": "gpt-5-mini",
        "posthog_llm_served_model": "gpt-5-mini",
        "$ai_model_parameters": {"temperature": 0.5, "max_completion_tokens": 100},
        "$ai_base_url": provider.base_url + "/",
        "$ai_http_status": 200,
        "$ai_stream": False,
        "$ai_stop_reason": "stop",
        "$ai_input": [{"role": "system", "content": "Be brief."}, *MESSAGES],
        "$ai_output_choices": saying("You said: hi you"),
        "$ai_input_tokens": 10,
        "$ai_output_tokens": 4,
        "$ai_total_tokens": 14,
        "$ai_cache_reporting_exclusive": False,
        "$ai_tokens_source": "sdk",
        "$ai_usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
        "posthog_llm_outcome": "ok",
        "posthog_llm_endpoint": "chat",
        "posthog_llm_request_id": "req_test",
        "posthog_llm_retries": 0,
    }
    assert properties["plan"] == "team"
    assert properties["$groups"] == {"company": "acme"}
    assert "$process_person_profile" not in properties


def test_anonymous(drive: Driver, sink: MemorySink) -> None:
    drive.call(lambda: drive.ours(posthog_client=sink).chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$process_person_profile"] is False
    assert event.distinct_id == event.properties["$ai_trace_id"]
    assert event.properties["$ai_span_id"] == event.uuid != event.properties["$ai_trace_id"]
    assert event.timestamp is not None
    assert event.timestamp.tzinfo is timezone.utc


# -- one answer, plain and streamed ----------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
CALL_2 = {"id": "call_2", "type": "function", "function": {"name": "sub", "arguments": "{}"}}
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "text": [{"role": "assistant", "content": 'He said "hi"\n\\ ünï 🎉'}],
    "three choices": [{"role": "assistant", "content": f"answer {i}"} for i in range(3)],
    "tool calls": [{"role": "assistant", "content": None, "tool_calls": [CALL, CALL_2]}],
    "text and tool": [{"role": "assistant", "content": "Let me see", "tool_calls": [CALL]}],
    "refusal": [{"role": "assistant", "content": None, "refusal": "I can't do that"}],
    "reasoning": [{"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}],
    "function call": [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    ],
    "audio": [
        {"role": "assistant", "content": None, "audio": {"id": "a", "transcript": "hello you"}}
    ],
}
FUNCTIONS = [
    {"type": "function", "id": call["id"], "function": call["function"]} for call in (CALL, CALL_2)
]
SHOWN: dict[str, list[dict[str, Any]]] = {
    "text": saying('He said "hi"\n\\ ünï 🎉'),
    "three choices": [message for i in range(3) for message in saying(f"answer {i}")],
    "tool calls": [{"role": "assistant", "content": FUNCTIONS}],
    "text and tool": [
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see"}, FUNCTIONS[0]]}
    ],
    "refusal": [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I can't do that"}]}
    ],
    "reasoning": [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "2 and 2"},
                {"type": "text", "text": "4"},
            ],
        }
    ],
    "function call": [
        {
            "role": "assistant",
            "content": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ],
    "audio": [
        {
            "role": "assistant",
            "content": [{"type": "audio", "id": "a", "transcript": "hello you"}],
        }
    ],
}
"""How each is shown: its messages' fields are blocks."""
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 2},
}


def base(kind: str) -> dict[str, Any]:
    return {"id": "c", "object": kind, "created": 1, "model": "gpt-5-mini-2025-08-07"}


def plain(messages: list[dict[str, Any]]) -> Reply:
    empty = {"refusal": None, "annotations": [], "audio": None}
    choices = [
        {"index": i, "message": {**empty, **m}, "finish_reason": "stop", "logprobs": None}
        for i, m in enumerate(messages)
    ]
    body = {**base("chat.completion"), "service_tier": "flex", "choices": choices}
    return Reply.json({**body, "usage": USAGE})


def deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    for key in ("reasoning_content", "content", "refusal"):
        text = message.get(key) or ""
        found += [{key: text[at : at + 2]} for at in range(0, len(text), 2)]
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        found.append({"tool_calls": [head]})
        found += [
            {"tool_calls": [{"index": index, "function": {"arguments": c}}]} for c in arguments
        ]
    for key in ("function_call", "audio"):
        if key in message:
            text_key = "arguments" if key == "function_call" else "transcript"
            found.append({key: {k: v for k, v in message[key].items() if k != text_key}})
            found += [{key: {text_key: c}} for c in message[key][text_key]]
    return found


def streamed(messages: list[dict[str, Any]]) -> Reply:
    head = {**base("chat.completion.chunk"), "service_tier": "flex"}
    rows = [[(i, d) for d in deltas(m)] for i, m in enumerate(messages)]
    longest = max(map(len, rows))
    interleaved = [row[n] for n in range(longest) for row in rows if n < len(row)]
    events = [
        {**head, "choices": [{"index": i, "delta": d, "finish_reason": None}], "usage": None}
        for i, d in interleaved
    ]
    for i in range(len(messages)):
        end = {"index": i, "delta": {}, "finish_reason": "stop"}
        events.append({**head, "choices": [end], "usage": None})
    return Reply.stream([*events, {**head, "choices": [], "usage": USAGE}])


@pytest.mark.parametrize("name", list(ANSWERS))
def test_streamed_and_plain_agree(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, name: str
) -> None:
    messages = ANSWERS[name]
    client = drive.ours(posthog_client=sink)
    provider.script("/chat/completions", plain(messages), streamed(messages))
    drive.call(lambda: client.chat.completions.create(**ASK, n=len(messages)))
    drive.collect(lambda: client.chat.completions.create(**ASK, n=len(messages), stream=True))
    one, other = (dict(event.properties) for event in sink.wait_for(2))
    assert one["$ai_output_choices"] == SHOWN[name]
    assert other.pop("$ai_time_to_first_token") > 0
    assert other["$ai_model_parameters"].pop("stream") is True
    differing = ("$ai_latency", "$ai_stream", "$ai_trace_id", "$ai_span_id", "$ai_base_url")
    for properties in (one, other):
        for key in differing:
            del properties[key]
    assert other == one


def test_streamed_and_plain_responses_agree(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    ask = {"model": "gpt-5-mini", "input": "hi you", "instructions": "Be brief."}
    drive.call(lambda: client.responses.create(**ask))
    drive.collect(lambda: client.responses.create(**ask, stream=True))
    one, other = (event.properties for event in sink.wait_for(2))
    assert one["$ai_output_choices"] == other["$ai_output_choices"]
    assert one["$ai_input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi you"},
    ]
    assert one["$ai_stop_reason"] == other["$ai_stop_reason"] == "completed"
    assert one["$ai_output_tokens"] == other["$ai_output_tokens"] == 4
    assert 0 < other["$ai_time_to_first_token"] <= other["$ai_latency"]


def test_broken_response_stream_keeps_what_came(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    item = {"type": "message", "id": "m", "role": "assistant", "status": "in_progress"}
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": {"id": "r", "model": "gpt-5", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", **place, "delta": "Hel"},
        {"type": "response.output_text.delta", **place, "delta": "lo"},
    ]
    failed = {
        "id": "r",
        "model": "gpt-5",
        "status": "failed",
        "output": [],
        "error": {"code": "server_error", "message": "boom"},
    }
    incomplete = {
        **failed,
        "status": "incomplete",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }
    error = {"type": "error", "code": "rate_limit", "message": "slow down", "param": None}
    ends = [
        [],
        [{"type": "response.failed", "response": failed}],
        [{"type": "response.incomplete", "response": incomplete}],
        [error],
    ]
    for end in ends:
        provider.script("/responses", Reply.stream([*events, *end], done=False))
    client = drive.ours(posthog_client=sink)
    for _ in ends:
        try:
            drive.collect(lambda: client.responses.create(model="gpt-5", input="x", stream=True))
        except sdk.APIError as raised:
            assert "slow down" in str(raised)
    cut, failed_, incomplete_, error_ = (event.properties for event in sink.wait_for(4))
    assert cut["$ai_output_choices"][0]["content"] == [{"type": "text", "text": "Hello"}]
    assert cut["posthog_llm_error"]["type"] == "IncompleteStream"
    assert failed_["posthog_llm_error"]["code"] == "server_error"
    assert failed_["$ai_is_error"] is True
    assert "$ai_is_error" not in incomplete_
    assert incomplete_["$ai_stop_reason"] == "max_output_tokens"
    assert incomplete_["$ai_output_tokens"] == 2
    assert error_["posthog_llm_error"]["code"] == "rate_limit"
    assert error_["$ai_output_choices"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([("c1", 0, "add", "{"), (None, 0, None, "}")], id="by index"),
        pytest.param([("c1", None, "add", "{"), (None, None, None, "}")], id="no index"),
        pytest.param([("c1", 0, "add", "{}"), ("c2", 0, "sub", "{}")], id="index reused"),
    ],
)
def test_tool_calls_of_providers_that_count_in_their_own_way(
    sink: MemorySink, provider: ScriptedProvider, pieces: list[Any]
) -> None:
    def chunk(identity: Any, index: Any, name: Any, arguments: str) -> dict[str, Any]:
        call: dict[str, Any] = {"id": identity, "index": index, "type": "function"}
        call["function"] = {"name": name, "arguments": arguments}
        call = {k: v for k, v in call.items() if v is not None}
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
        return {**base("chat.completion.chunk"), "choices": [choice]}

    provider.script("/chat/completions", Reply.stream(chunk(*piece) for piece in pieces))
    drive = SyncDriver(provider)
    list(drive.ours(posthog_client=sink).chat.completions.create(**ASK, stream=True))
    (message,) = sink.wait_for(1)[0].properties["$ai_output_choices"]
    assert message["content"] == [
        {"type": "function", "id": identity, "function": {"name": name, "arguments": "{}"}}
        for identity, _, name, _ in pieces
        if identity
    ]


# -- what went in ----------------------------------------------------------------------


def test_input_is_what_was_sent_when_it_was_sent(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    messages: list[Any] = [{"role": "user", "content": "first"}]
    client = drive.ours(posthog_client=sink)
    answer = drive.call(
        lambda: client.chat.completions.create(
            model="m",
            messages=messages,
            temperature=sdk.NOT_GIVEN,
            tools=getattr(sdk, "omit", sdk.NOT_GIVEN),
        )
    )
    messages[0]["content"] = "changed"
    messages.append(answer.choices[0].message)
    drive.call(
        lambda: client.chat.completions.create(model="m", messages=(m for m in list(messages)))
    )
    first, second = sink.wait_for(2)
    assert first.properties["$ai_input"] == [{"role": "user", "content": "first"}]
    assert first.properties["$ai_model_parameters"] == {}
    assert second.properties["$ai_input"][1]["content"] == "You said: first"
    json.dumps(dict(second.properties))


def test_sdk_messages_show_their_tool_calls(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {}}}}}
    ]
    first = drive.call(lambda: client.chat.completions.create(**ASK, tools=tools))
    reply = first.choices[0].message
    result = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
    drive.call(
        lambda: client.chat.completions.create(model="m", messages=[*MESSAGES, reply, result])
    )
    one, two = sink.wait_for(2)
    assert one.properties["$ai_tools"] == tools
    assert two.properties["$ai_input"][1]["tool_calls"][0]["function"]["name"] == "f"
    assert two.properties["$ai_input"][2] == result


class Colour(Enum):
    RED = "red"


@dataclass
class Seat:
    row: int


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_properties_degrade_by_themselves(drive: Driver, receiver: PostHogReceiver) -> None:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = cycle
    properties = {
        "set": {3},
        "bytes": b"12345",
        "nan": math.nan,
        "infinite": -math.inf,
        "cycle": cycle,
        "keys": {1: "a", None: "b", Colour.RED: "c"},
        "enum": Colour.RED,
        "decimal": Decimal("1.5"),
        "uuid": uuid.UUID(int=5),
        "when": datetime(2026, 1, 2, tzinfo=timezone.utc),
        "dataclass": Seat(7),
        "object": object(),
        "odd": Odd(),
        "type": dict,
        "surrogate": "\ud800",
        "tuple": (1, (2,)),
        7: "number as name",
    }
    destination = posthog.Posthog("phc_test", host=receiver.url)
    client = drive.ours(posthog_client=destination)
    drive.call(lambda: client.chat.completions.create(**ASK, posthog_properties=properties))
    destination.flush()
    (event,) = receiver.events
    found = event["properties"]
    assert found["set"] == [3]
    assert found["bytes"] == "[binary, 5 bytes]"
    assert (found["nan"], found["infinite"]) == ("nan", "-inf")
    assert found["cycle"] == {"a": 1, "self": "[circular]"}
    assert found["keys"] == {"1": "a", "None": "b", "red": "c"}
    assert (found["enum"], found["decimal"]) == ("red", 1.5)
    assert found["uuid"] == str(uuid.UUID(int=5))
    assert found["when"] == "2026-01-02T00:00:00+00:00"
    assert found["dataclass"] == {"row": 7}
    assert (found["object"], found["odd"]) == ("[object]", "[Odd]")
    assert found["tuple"] == [1, [2]]
    assert found["7"] == "number as name"


def test_callers_properties_win_over_ours(drive: Driver, sink: MemorySink) -> None:
    custom = {"$ai_input_tokens": 99, "$ai_input_token_price": 1e-6, "$ai_output_token_price": 2e-6}
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.chat.completions.create(**ASK, posthog_properties=custom))
    (event,) = sink.wait_for(1)
    assert {k: event.properties[k] for k in custom} == custom
    assert event.properties["$ai_tokens_source"] == "passthrough"


# -- errors ----------------------------------------------------------------------------


def test_refused_call(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    error = {"message": "too fast", "type": "requests", "param": None, "code": "rate_limit"}
    provider.script("/chat/completions", Reply.json({"error": error}, 429))
    client = drive.ours(posthog_client=sink)
    with pytest.raises(sdk.RateLimitError) as raised:
        drive.call(lambda: client.chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_http_status"] == 429
    assert event.properties["$ai_error_type"] == "RateLimitError"
    assert failure_of(event.properties) == {
        "type": "RateLimitError",
        "status": 429,
        "code": "rate_limit",
        "message": str(raised.value),
    }
    assert "$ai_input_tokens" not in event.properties
    assert event.properties["$ai_output_choices"] == []


def test_no_answer_at_all(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(sdk.APIConnectionError):
        drive.call(lambda: client.chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_error_type"] == "APIConnectionError"
    assert event.properties["$ai_http_status"] == 0


def test_timeout(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    provider.script("/chat/completions", Reply([b"{}"], delay=0.5))
    client = drive.ours(posthog_client=sink, timeout=0.1)
    with pytest.raises(sdk.APITimeoutError):
        drive.call(lambda: client.chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_error_type"] == "APITimeoutError"


def test_retries_are_one_event(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    busy = Reply.json({"error": {"message": "busy"}}, 500, **{"retry-after-ms": "30"})
    provider.script("/chat/completions", busy, busy)
    client = drive.ours(posthog_client=sink, max_retries=2)
    drive.call(lambda: client.chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_retries"] == 2
    assert "$ai_is_error" not in event.properties
    last = event.properties["posthog_llm_last_attempt_latency"]
    assert 0 < last < event.properties["$ai_latency"] - 0.05


def test_answer_that_the_sdk_cannot_parse_keeps_its_usage(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str

    message = {"role": "assistant", "content": '{"name": "Lis'}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    provider.script(
        "/chat/completions",
        Reply.json({**base("chat.completion"), "choices": [choice], "usage": USAGE}),
    )
    client = drive.ours(posthog_client=sink)
    with pytest.raises(sdk.LengthFinishReasonError):
        drive.call(lambda: client.chat.completions.parse(**ASK, response_format=City))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert event.properties["$ai_stop_reason"] == "length"
    assert event.properties["$ai_output_tokens"] == 10
    assert event.properties["$ai_http_status"] == 200


@pytest.mark.parametrize("said", [("no JSON", "stop"), ('{"name": "Lis', "length")])
def test_an_answer_that_the_callers_schema_rejects_is_no_error(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, said: tuple[str, str]
) -> None:
    """The provider answered, and charges for it: plain and streamed."""
    from pydantic import BaseModel

    class City(BaseModel):
        name: str

    content, finish = said
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": finish}
    body = {**base("chat.completion"), "usage": USAGE}
    chunk = {**base("chat.completion.chunk"), "usage": USAGE}
    provider.script(
        "/chat/completions",
        Reply.json({**body, "choices": [{**choice, "message": message}]}),
        Reply.stream([{**chunk, "choices": [{**choice, "delta": message}]}]),
    )
    completions = drive.ours(posthog_client=sink).chat.completions
    ask: Any = {**ASK, "response_format": City}
    with pytest.raises(Exception):  # noqa: B017
        drive.call(lambda: completions.parse(**ask))
    with pytest.raises(Exception):  # noqa: B017
        drive.inside(completions.stream(**ask), lambda stream: stream.get_final_completion())
    plain, streamed = (event.properties for event in sink.wait_for(2))
    for properties in (plain, streamed):
        assert properties["posthog_llm_outcome"] == "ok"
        assert not {"$ai_is_error", "$ai_error", "$ai_error_type"} & properties.keys()
        assert properties["$ai_stop_reason"] == finish
        assert properties["$ai_output_choices"] == saying(content)


def test_error_with_status_200(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    provider.script("/chat/completions", Reply.json({"error": {"message": "no", "code": 502}}))
    drive.call(lambda: drive.ours(posthog_client=sink).chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_error"]["code"] == "502"


def test_event_id(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    answer = drive.call(lambda: client.chat.completions.create(**ASK))
    other = drive.call(lambda: client.chat.completions.create(**ASK))
    first, second = sink.wait_for(2)
    assert posthog_llm.event_id(answer) == first.uuid
    assert posthog_llm.event_id(other) == second.uuid
    bare = drive.call(lambda: drive.bare().chat.completions.create(**ASK))
    assert posthog_llm.event_id(bare) is None
    assert posthog_llm.event_id("text") is None
    answer.id = bare.id = other.id = "same"
    answer.created = bare.created = other.created = 0
    assert answer == bare
    assert answer.to_dict() == bare.to_dict()


def test_posted_with_the_plain_http_response_as_type(
    sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = SyncDriver(provider).ours(posthog_client=sink)
    kind = type(client.with_raw_response.models.list().http_response)
    response = client.post("/chat/completions", body=ASK, cast_to=kind)
    assert response.status_code == 200
    assert posthog_llm.event_id(response) == sink.wait_for(1)[0].uuid
