"""Which event of a stream is the first that says something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from posthog_llm._providers import chat, others, responses
from posthog_llm._providers.sse import Event

TEXT = {"type": "response.output_text.delta", "output_index": 1, "delta": "hi"}
CHAT = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}


def numbered(*events: dict[str, Any]) -> Iterator[Event]:
    """Yield events whose offset is their number."""
    yield from ((number, json.dumps(event).encode()) for number, event in enumerate(events))


def done(**item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def audio(**said: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"audio": said}}]}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_list_tools", "tools": [{"name": "search"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"type": "web_search_call", "status": "completed"},
        {"type": "message", "content": []},
        {},
    ],
    ids=lambda item: item.get("type", "none"),
)
def test_an_item_without_content_says_nothing(item: dict[str, Any]) -> None:
    assert responses.fold(numbered(done(**item), TEXT)).first == 1


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "image_generation_call", "result": "AAAA"},
    ],
    ids=lambda item: item["type"],
)
def test_an_item_with_content_says_something(item: dict[str, Any]) -> None:
    assert responses.fold(numbered(done(**item), TEXT)).first == 0


def test_sound_begins_with_sound_or_its_words() -> None:
    head = audio(id="audio_1", transcript="")
    assert chat.fold(numbered(head, audio(transcript="hi"))).first == 1
    assert chat.fold(numbered(head, audio(data="AAAA"))).first == 1


def test_an_empty_delta_says_nothing() -> None:
    kind = "transcript.text.delta"
    events = numbered({"type": kind, "delta": ""}, {"type": kind, "delta": "hi"})
    assert others.fold(events).first == 1


def test_counts_of_several_chunks_are_put_together() -> None:
    """None is known to send counts so; zeros at the end would undo what was said."""
    chunks = [{**CHAT, "usage": {"prompt_tokens": 20, "completion_tokens": 0}}]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 10}})
    found = chat.fold(numbered(*chunks)).body["usage"]
    assert found == {"prompt_tokens": 20, "completion_tokens": 10}
