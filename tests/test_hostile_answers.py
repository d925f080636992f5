"""Answers that are not what the protocol says: what is well-formed in them is in the event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver, every_provider, outcome, saying


def chat_body(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", **more} | {
        "choices": [choice]
    }


def message_body(**more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "hello"}]
    head = {"id": "c", "type": "message", "role": "assistant", "model": "m"}
    return {**head, "content": content, "stop_reason": "end_turn", **more}


def raw(text: str) -> Reply:
    return Reply([text.encode()], headers={"content-type": "application/json"})


# -- counts that nobody can mean -----------------------------------------------------------

MEANINGLESS = ["1" + "0" * 400, "1e300", "1e999", "-1", "NaN", "Infinity", "9007199254740993"]


@every_provider
@pytest.mark.parametrize("number", MEANINGLESS, ids=lambda text: text[:9])
def test_count_that_nobody_can_mean_is_absent(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, number: str
) -> None:
    chat = drive.vendor.path == "/chat/completions"
    names = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    body = (chat_body if chat else message_body)(usage={names[0]: "N", names[1]: 7})
    provider.script(drive.vendor.path, raw(json.dumps(body).replace('"N"', number)))
    drive.ask(drive.ours(posthog_client=sink))
    (event,) = sink.wait_for(1)
    assert event.properties.get("$ai_input_tokens") is None
    assert event.properties["$ai_output_tokens"] == 7
    assert event.properties["$ai_output_choices"] == saying("hello")


def test_length_and_cost_that_nobody_can_mean_are_absent(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    huge = "1" + "0" * 400
    body = {"id": "r", "status": "completed", "created_at": -8, "completed_at": "N", "output": []}
    body["usage"] = {"input_tokens": 3, "cost": "N"}
    provider.script("/responses", raw(json.dumps(body).replace('"N"', huge)))
    text = {"text": "hello", "duration": "N"}
    provider.script("/audio/transcriptions", raw(json.dumps(text).replace('"N"', huge)))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.responses.create(model="m", input="hi"))
    file = ("a.mp3", b"sound")
    drive.call(lambda: client.audio.transcriptions.create(model="m", file=file))
    response, transcription = sink.wait_for(2)
    assert response.properties["$ai_input_tokens"] == 3
    assert response.properties.get("$ai_total_cost_usd") is None
    assert transcription.properties["$ai_output_choices"] == saying("hello")
    assert transcription.properties.get("posthog_llm_audio_seconds") is None


# -- chat: what comes in pieces --------------------------------------------------------------


def chunk(delta: Any, **more: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, **more}]}


def thought(*texts: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text} for text in texts]}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def detail(said: str, index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": said, "format": "f", "index": index, **more}


def tool(identity: str | None, name: str | None, arguments: str, index: Any = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    function = {key: value for key, value in function.items() if value is not None}
    named = {} if identity is None else {"id": identity}
    return {"index": index, **named, "type": "function", "function": function}


def called(identity: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {k: v for k, v in tool(identity, name, arguments).items() if k != "index"}


ENCRYPTED = {"type": "reasoning.encrypted", "data": "abc", "id": "rs_1", "index": 0}
CALLS = [called("a", "add", '{"x":1}'), called("b", "sub", '{"y":2}')]
NAMELESS = [called(None, "add", '{"x":1}'), called(None, "add", '{"y":2}')]
DELTAS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "thoughts, then a text": (
        [
            {"content": ""},
            {"content": [thought("let ")]},
            {"content": [thought("me", " see")]},
            {"content": "4"},
            {"content": "2"},
            {"content": "!"},
        ],
        {"content": [thought("let me", " see"), text("42!")]},
    ),
    "a text, then parts": (
        [{"content": "4"}, {"content": "2"}, {"content": [text("!"), text("?")]}],
        {"content": [text("42!"), text("?")]},
    ),
    "reasoning details": (
        [
            {"reasoning": "let ", "reasoning_details": [detail("let ")]},
            {"reasoning": "me", "reasoning_details": [detail("me"), detail("and", 1)]},
            {"reasoning_details": [detail("", signature="s")]},
            {"reasoning_details": [ENCRYPTED]},
            {"content": "42"},
        ],
        {
            "content": [{"type": "thinking", "thinking": "let me"}, text("42")],
            "reasoning_details": [detail("let me", signature="s"), detail("and", 1), ENCRYPTED],
        },
    ),
    "reasoning details without an index": (
        [{"reasoning_details": [{"type": "reasoning.summary", "summary": s}]} for s in "abc"],
        {"content": [], "reasoning_details": [{"type": "reasoning.summary", "summary": "abc"}]},
    ),
    "citations are whole": (
        [{"content": "x", "annotations": [{"type": "file_citation", "text": t}]} for t in "ab"],
        {
            "content": [
                {**text("xx"), "annotations": [{"type": "file_citation", "text": t} for t in "ab"]}
            ]
        },
    ),
    "whole calls of one index": (
        [
            {"tool_calls": [tool("a", "add", '{"x":1}')]},
            {"tool_calls": [tool("b", "sub", '{"y":2}')]},
        ],
        {"content": CALLS},
    ),
    "whole calls of one index, in one chunk": (
        [{"tool_calls": [tool("a", "add", '{"x":1}'), tool("b", "sub", '{"y":2}')]}],
        {"content": CALLS},
    ),
    "calls of one index, by turns": (
        [
            {"tool_calls": [tool("a", "add", '{"x"')]},
            {"tool_calls": [tool("b", "sub", '{"y"')]},
            {"tool_calls": [tool("a", None, ":1}")]},
            {"tool_calls": [tool("b", None, ":")]},
            {"tool_calls": [tool(None, None, "2}")]},
        ],
        {"content": CALLS},
    ),
    "whole calls without an id": (
        [
            {"tool_calls": [tool(None, "add", '{"x":1}')]},
            {"tool_calls": [tool(None, "add", '{"y":2}')]},
        ],
        {"content": NAMELESS},
    ),
    "whole calls without an id or an index": (
        [
            {"tool_calls": [tool("", "add", '{"x":1}', None)]},
            {"tool_calls": [tool("", "sub", '{"y":2}', None)]},
        ],
        {"content": [called("", "add", '{"x":1}'), called("", "sub", '{"y":2}')]},
    ),
    "the name with every piece": (
        [{"tool_calls": [tool(None, "add", piece)]} for piece in ("", '{"x":{}', "}", "")],
        {"content": [called(None, "add", '{"x":{}}')]},
    ),
    "broken pieces": (
        [
            {"content": "4", "tool_calls": [tool("a", "add", '{"x"')], "audio": {"data": "a"}},
            {"content": 7, "tool_calls": 7, "audio": 7, "role": ["x"]},
            {"content": {"x": 1}, "tool_calls": [7, {"index": 0, "function": 7}], "audio": [7]},
            {"content": "2", "tool_calls": [tool(None, None, ":1}")], "audio": {"data": "b"}},
        ],
        {"content": [text("42"), CALLS[0], {"type": "audio", "data": "ab"}]},
    ),
}


@pytest.mark.parametrize("name", DELTAS)
def test_pieces_of_a_chat_are_put_together(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, name: str
) -> None:
    deltas, expected = DELTAS[name]
    deltas = [{"role": "assistant", "content": None}, *deltas]
    events = [*map(chunk, deltas), chunk({}, finish_reason="stop")]
    provider.script("/chat/completions", Reply.stream(events))
    drive.items(drive.ask(drive.ours(posthog_client=sink), stream=True))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_choices"] == [{"role": "assistant", **expected}]
    assert event.properties["$ai_time_to_first_token"] is not None
    assert event.properties["posthog_llm_outcome"] == "ok"


# -- responses: what stands around the answer ------------------------------------------------

ITEM = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42"}]}
CREATED = {
    "type": "response.created",
    "response": {
        "id": "r",
        "status": "in_progress",
        "instructions": "end with response.output_text.delta",
        "metadata": {"type": "response.output_text.delta", "x": "response.completed"},
        "output": [],
    },
}
OPENED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {"type": "message", "role": "assistant", "content": []},
}
SAID = {
    "type": "response.output_text.delta",
    "output_index": 0,
    "content_index": 0,
    "delta": "42",
}
COMPLETED = {
    "type": "response.completed",
    "response": {"id": "r", "status": "completed", "model": "m", "output": [ITEM]}
    | {"usage": {"input_tokens": 3, "output_tokens": 1}},
}
AFTER: dict[str, list[Any]] = {
    "nothing": [],
    "a keep-alive": [{"type": "keepalive"}],
    "what echoes": [CREATED, {"type": "response.rate_limits.updated", "error": None}],
    "no object": [7, None, [], "response.completed"],
}


def streamed(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, events: list[Any], **more: Any
) -> Any:
    provider.script("/responses", Reply.stream(events, done=False, **more))
    client = drive.ours(posthog_client=sink)
    outcome(
        lambda: drive.collect(lambda: client.responses.create(model="m", input="hi", stream=True))
    )
    (event,) = sink.wait_for(1)
    return event.properties


@pytest.mark.parametrize("after", AFTER)
def test_response_is_whole_whatever_follows_it(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, after: str
) -> None:
    events = [CREATED, OPENED, SAID, COMPLETED, *AFTER[after]]
    found = streamed(drive, sink, provider, events)
    assert found["posthog_llm_outcome"] == "ok", found.get("$ai_error")
    assert found["$ai_output_choices"] == saying("42")
    assert found["$ai_input_tokens"] == 3


def test_error_after_the_response_is_one(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    events = [CREATED, OPENED, SAID, COMPLETED, {"type": "error", "error": {"message": "late"}}]
    found = streamed(drive, sink, provider, events)
    assert found["posthog_llm_outcome"] == "error"
    assert found["$ai_error"] == "late"
    assert found["$ai_output_choices"] == saying("42")
    assert found["$ai_input_tokens"] == 3


def test_output_that_only_came_in_pieces_is_kept(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    bare = {**COMPLETED, "response": {**COMPLETED["response"], "output": []}}
    found = streamed(drive, sink, provider, [CREATED, OPENED, SAID, bare])
    assert found["$ai_output_choices"] == saying("42")
    assert found["posthog_llm_outcome"] == "ok"


def test_what_a_response_echoes_is_no_first_token(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    found = streamed(drive, sink, provider, [CREATED, OPENED, COMPLETED])
    assert found.get("$ai_time_to_first_token") is None
    empty = {**SAID, "delta": ""}
    found = streamed(drive, MemorySink(), provider, [CREATED, OPENED, empty, COMPLETED])
    assert found.get("$ai_time_to_first_token") is None
    found = streamed(drive, MemorySink(), provider, [CREATED, OPENED, SAID, COMPLETED])
    assert found["$ai_time_to_first_token"] > 0
