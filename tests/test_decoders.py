"""Any stream of events: the caller gets what the bare SDK gives, and the event says the same."""

from __future__ import annotations

import gc
import json
from typing import Any

import anthropic
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posthog_llm import _faults as faults
from posthog_llm._providers import chat, messages, others, responses, sse

from .test_never_in_the_way import CALLS, HTTP, JUNK, Body, Wire, wire

__all__ = ["wire"]
FUZZED = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
KIND = {"content-type": "text/event-stream"}
HEAD: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({**HEAD, "choices": [choice]}).encode()


def block(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return json.dumps({"type": "content_block_delta", "index": 0, "delta": delta}).encode()


def text_of(name: str, items: list[Any]) -> str:
    if name == "chat":
        return "".join(item.choices[0].delta.content for item in items)
    return "".join(item.delta.text for item in items)


def said_by(event: Any) -> str:
    output = event.properties.get("$ai_output_choices") or [{}]
    content = output[0].get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def seen(wire: Wire, client: Any, name: str, is_async: bool) -> tuple[list[Any], Any]:
    """Return the items that a caller gets, and the exception that ends them."""
    items: list[Any] = []

    async def read() -> None:
        async for item in await CALLS[name](client, True):
            items.append(item)  # noqa: PERF401 - what came before an error counts

    try:
        if is_async:
            wire.loop.run_until_complete(read())
        else:
            items.extend(CALLS[name](client, True))  # what came before an error stays
    except Exception as error:
        return items, error
    return items, None


LINES = st.sampled_from(
    [
        *(b"event: ", b"event:", b"event: ping", b"event: x", b"event", b"id: 7", b"id:", b"id"),
        *(b"id: a\0b", b"retry: 5", b"retry: x", b"retry:", b": comment", b":", b"data:", b"data"),
        *(b"data: ", b"data: {", b"data: 5", b"data: []", b"data: null", b"foo: bar", b"foo", b" "),
        *(b"data: [DONE]", b'data: {"error": {"message": "no"}}', b'data: {"error": null}', b""),
        *(b"", b"data: \xff", b"data: \xef\xbb\xbf{}"),
    ]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])


@st.composite
def event_lines(draw: Any, name: str, text: str) -> list[bytes]:
    data = (chunk if name == "chat" else block)(text)
    named = [b"event: content_block_delta"] if name == "message" and draw(st.booleans()) else []
    if draw(st.integers(0, 5)) == 0:
        at = data.index(b" ")
        halves = [b"data: " + data[:at], b"data: " + data[at:]]
    else:
        halves = [draw(st.sampled_from([b"data: ", b"data: ", b"data:"])) + data]
    extra = draw(st.lists(LINES, max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    return [*extra, *named, *halves, b""]


@st.composite
def streams(draw: Any, name: str) -> list[bytes]:
    """Return a stream of events, in pieces."""
    lines: list[bytes] = []
    for number in range(draw(st.integers(0, 5))):
        lines += draw(event_lines(name, f"<{number}>"))
        if draw(st.integers(0, 3)) == 0:
            lines += draw(st.lists(LINES, max_size=3))
    end = draw(ENDS)
    body = b"".join(line + end for line in lines)
    body = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf"])) + body
    if draw(st.integers(0, 4)) == 0:
        body = body[: draw(st.integers(0, len(body)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def check(wire: Wire, name: str, pieces: list[bytes], is_async: bool) -> None:
    wire.answer = lambda: HTTP.Response(200, headers=KIND, stream=Body(pieces, False))
    bare = seen(wire, wire.bare_async if is_async else wire.bare, name, is_async)
    found = seen(wire, wire.ours_async if is_async else wire.ours, name, is_async)
    assert list(map(repr, found[0])) == list(map(repr, bare[0]))
    assert (type(found[1]), str(found[1])) == (type(bare[1]), str(bare[1]))
    failed, items, raised = found[1] is not None, found[0], type(found[1]).__name__
    items = [i for i in items if getattr(i, "choices", None) or getattr(i, "delta", None)]
    del found, bare
    gc.collect()
    (event,) = wire.events()
    assert not faults.counts
    assert said_by(event) == text_of(name, items)
    if failed:
        assert event.properties["posthog_llm_outcome"] == "error"
        if raised in ("JSONDecodeError", "UnicodeDecodeError"):
            assert event.properties["posthog_llm_error"]["type"] == raised


ONE = b"data: " + chunk("one") + b"\n\n"


@pytest.mark.parametrize(
    "between",
    [
        *(b"event: x\n\n", b"id: 7\n\n", b"retry: 5\n\n", b"data:\n\n", b"data\n\n", b": hi\n\n"),
        *(b"\n\n\n", b"id: 7\n" + ONE + b"\n", b"foo\n\n", b"event:\n\n", b"retry: x\n\n"),
        *(b'data: {"error": {"message": "no"}}\n\n', b"data: [DONE]\n\n", b"data: []\n\n"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_event_without_data_is_what_the_sdk_makes_of_it(
    wire: Wire, between: bytes, is_async: bool
) -> None:
    check(wire, "chat", [ONE, between, ONE], is_async)


@FUZZED
@given(pieces=streams("chat"), is_async=st.booleans())
def test_any_lines_of_a_chat(wire: Wire, pieces: list[bytes], is_async: bool) -> None:
    check(wire, "chat", pieces, is_async)


@pytest.mark.skipif(
    anthropic.__version__ < "2", reason="older ones read events of a few names only"
)
@FUZZED
@given(pieces=streams("message"), is_async=st.booleans())
def test_any_lines_of_a_message(wire: Wire, pieces: list[bytes], is_async: bool) -> None:
    check(wire, "message", pieces, is_async)


# -- folds -----------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *("choices", "delta", "index", "message", "content", "text", "tool_calls", "function"),
        *(
            "usage",
            "arguments",
            "name",
            "id",
            "type",
            "error",
            "role",
            "finish_reason",
            "audio",
            "item",
        ),
        *("item", "response", "output", "output_index", "content_index", "content_block"),
        *("citation", "completion", "stop_reason", "reasoning_details", "summary", "thinking"),
        "partial_json",
    ]
)
WORDS = st.sampled_from(
    [
        *("content_block_delta", "content_block_start", "message_start", "message_delta", "text"),
        *("text_delta", "input_json_delta", "citations_delta", "response.output_item.added"),
        *("response.completed", "response.output_text.delta", "transcript.text.delta", "error"),
        *("response.function_call_arguments.delta", "image.completed"),
        "response.reasoning_summary_text.delta",
    ]
)
SHAPES = st.recursive(
    st.one_of(JUNK, WORDS, st.integers(-1, 2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, min_size=1, max_size=5)
    ),
    max_leaves=12,
)
ADAPTERS = {"chat": chat, "message": messages, "response": responses, "other": others}


@settings(FUZZED, max_examples=150)
@given(
    name=st.sampled_from(list(ADAPTERS)),
    events=st.lists(st.dictionaries(KEYS, SHAPES, max_size=5), max_size=5),
)
@example("message", [{"type": "content_block_delta", "index": True, "delta": {"text": "x"}}])
def test_no_shape_breaks_a_fold(name: str, events: list[Any]) -> None:
    adapter: Any = ADAPTERS[name]
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    folded = adapter.fold(sse.events(body))
    read = "read_transcription" if name == "other" else "read_response"
    getattr(adapter, read)(folded.body, "openai")
