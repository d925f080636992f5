"""Answers under any content type, in any encoding of JSON: what the SDK reads is captured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver, every_provider, saying
from .test_hostile_answers import chat_body, message_body

KINDS = [
    *("application/octet-stream", "audio/mpeg", "image/png", "text/plain", "text/html", None),
    *("text/event-stream", "application/json; charset=utf-16", "", "application/problem+json"),
    "TEXT/EVENT-STREAM; charset=latin-1",
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def reply(body: Any, kind: str | None, encoding: str = "utf-8") -> Reply:
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return Reply([text.encode(encoding)], headers={} if kind is None else {"content-type": kind})


def body_for(drive: Driver) -> dict[str, Any]:
    chat = drive.vendor.path == "/chat/completions"
    names = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    return (chat_body if chat else message_body)(usage=dict(zip(names, (3, 7), strict=True)))


def assert_read(drive: Driver, sink: MemorySink, seen: Any) -> None:
    (event,) = sink.wait_for(1)
    found = event.properties
    assert (found["$ai_input_tokens"], found["$ai_output_tokens"]) == (3, 7)
    assert found["$ai_output_choices"] == saying("hello")
    assert "$ai_is_error" not in found
    assert seen.usage is not None


@every_provider
@pytest.mark.parametrize("kind", KINDS)
def test_json_is_read_under_any_content_type(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, kind: str | None
) -> None:
    provider.script(drive.vendor.path, reply(body_for(drive), kind))
    assert_read(drive, sink, drive.ask(drive.ours(posthog_client=sink)))


@every_provider
@pytest.mark.parametrize("kind", ["application/json", "audio/mpeg"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_read_in_any_encoding(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, encoding: str, kind: str
) -> None:
    provider.script(drive.vendor.path, reply(body_for(drive), kind, encoding))
    assert_read(drive, sink, drive.ask(drive.ours(posthog_client=sink)))


def test_json_that_is_read_as_it_comes_is_captured(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    provider.script(drive.vendor.path, reply(body_for(drive), "audio/mpeg", "utf-16"))
    create = drive.ours(posthog_client=sink).chat.completions.with_streaming_response.create
    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert_read(drive, sink, drive.inside(create(**ask), lambda answer: answer.parse()))


@pytest.mark.parametrize(
    ("kind", "text", "encoding"),
    [
        ("application/octet-stream", "Grüße", "utf-8"),
        ("text/plain; charset=latin-1", "Grüße", "latin-1"),
        ("text/plain; charset=unheard-of", "Grüße", "utf-8"),
        ("text/plain", "data: is what I said", "utf-8"),
    ],
)
def test_text_that_was_transcribed_is_the_callers(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, kind: str, text: str, encoding: str
) -> None:
    provider.script("/audio/transcriptions", reply(text, kind, encoding))
    create = drive.ours(posthog_client=sink).audio.transcriptions.create
    ask: Any = {"model": "m", "file": ("a.mp3", b"sound"), "response_format": "text"}
    assert drive.call(lambda: create(**ask)) == text
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_choices"] == saying(text)


def test_sound_is_counted_alone(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    sound = b'{"usage": {"input_tokens": 3}}'
    provider.script("/audio/speech", Reply([sound], headers={"content-type": "audio/mpeg"}))
    create = drive.ours(posthog_client=sink).audio.speech.create
    drive.call(lambda: create(model="m", voice="alloy", input="hi"))
    (event,) = sink.wait_for(1)
    assert "$ai_input_tokens" not in event.properties
    block = {"type": "audio", "data": f"[audio/mpeg, {len(sound)} bytes]"}
    assert event.properties["$ai_output_choices"] == [{"role": "assistant", "content": [block]}]
