"""What the worker does takes time in proportion to what came, whatever came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posthog_llm._media import without_blobs
from posthog_llm._providers import chat, messages, others, responses, sse
from posthog_llm._providers.sse import Folded
from posthog_llm._weighing import rough_size_of, size_of, size_of_plain

from .growth import cpu_of, is_below

SIZES = 500, 4_000
PIECE = "a piece of text that says little, and that many follow " * 5


def assert_linear(work: Callable[[int], Callable[[], Any]]) -> None:
    """Eight times as much takes far less than 64 times as long, which is its square.

    It may take twice eight: the small size fits the processor's caches, the large one may not.
    """
    small, large = (work(size) for size in SIZES)
    assert is_below(32 * cpu_of(small) + 0.005, large)


def stream(events: list[Any], *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return b"".join(b"data: %b\n\n" % json.dumps(e, separators=separators).encode() for e in events)


def chunk(delta: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": delta}]}


def call(index: int) -> dict[str, Any]:
    function = {"name": "f", "arguments": PIECE}
    return chunk({"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]})


def block(delta: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def item_delta(kind: str, number: int, part: int = 0) -> dict[str, Any]:
    place = {"output_index": 0, "content_index": part, "sequence_number": number}
    return {"type": f"response.{kind}.delta", "delta": PIECE, **place}


ITEM = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}
FOLDS: dict[str, tuple[Any, Callable[[int], list[Any]]]] = {
    "chat text": (chat, lambda n: [chunk({"content": PIECE}) for _ in range(n)]),
    "chat text, never twice the same": (
        chat,
        lambda n: [{**chunk({"content": PIECE}), "nonce": i} for i in range(n)],
    ),
    "chat calls": (chat, lambda n: [call(index) for index in range(n)]),
    "chat calls in pieces": (chat, lambda n: [call(i % (n // 2)) for i in range(n)]),
    "chat arguments of one call": (chat, lambda n: [call(0) for _ in range(n)]),
    "chat lists": (chat, lambda n: [chunk({"images": [{"url": PIECE}]}) for _ in range(n)]),
    "chat choices": (chat, lambda n: [chunk({"content": PIECE}, i) for i in range(n)]),
    "chat reasoning": (chat, lambda n: [chunk({"reasoning_content": PIECE}) for _ in range(n)]),
    "messages text": (messages, lambda n: [block({"type": "text_delta", "text": PIECE})] * n),
    "messages thinking": (
        messages,
        lambda n: [block({"type": "thinking_delta", "thinking": PIECE})] * n,
    ),
    "messages citations": (
        messages,
        lambda n: [block({"type": "citations_delta", "citation": {"text": PIECE}})] * n,
    ),
    "messages input": (
        messages,
        lambda n: [block({"type": "input_json_delta", "partial_json": "[1,"})] * n,
    ),
    "messages blocks": (
        messages,
        lambda n: [block({"type": "text_delta", "text": PIECE}, i) for i in range(n)],
    ),
    "messages usage": (
        messages,
        lambda n: [{"type": "message_delta", "usage": {f"tokens_{i}": i}} for i in range(n)],
    ),
    "responses text": (
        responses,
        lambda n: [ITEM, *(item_delta("output_text", i) for i in range(n))],
    ),
    "responses parts": (
        responses,
        lambda n: [ITEM, *(item_delta("output_text", i, i) for i in range(n))],
    ),
    "responses arguments": (
        responses,
        lambda n: [ITEM, *(item_delta("function_call_arguments", i) for i in range(n))],
    ),
    "transcription": (
        others,
        lambda n: [{"type": "transcript.text.delta", "delta": PIECE, "n": i} for i in range(n)],
    ),
}


@pytest.mark.parametrize("spaced", [False, True], ids=["dense", "spaced"])
@pytest.mark.parametrize("name", FOLDS)
def test_folding_a_stream_is_linear(name: str, spaced: bool) -> None:
    adapter, make = FOLDS[name]

    def work(size: int) -> Callable[[], Folded]:
        body = stream(make(size), spaced=spaced)
        return lambda: adapter.fold(sse.events(body))

    assert_linear(work)


@pytest.mark.parametrize("spaced", [False, True], ids=["dense", "spaced"])
def test_chunks_that_say_nothing_but_text_need_no_parser(
    spaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    parse = sse.parse
    events = {
        chat: [chunk({"content": f"{n} words "}) for n in range(100)],
        messages: [block({"type": "text_delta", "text": f"{n} words "}) for n in range(100)],
    }
    said = "".join(f"{n} words " for n in range(100))
    for adapter, sent in events.items():
        monkeypatch.setattr(adapter, "parse", lambda data: (parsed.append(data), parse(data))[1])
        folded = adapter.fold(sse.events(stream(sent, spaced=spaced)))
        assert said in json.dumps(folded.body)
        assert len(parsed) == 1
        parsed.clear()


def test_parts_of_an_item_are_captured_apart_by_their_index() -> None:
    sent = [ITEM, item_delta("output_text", 1, 5), item_delta("output_text", 2, 7)]
    sent.append(item_delta("output_text", 3, 5))
    folded = responses.fold(sse.events(stream(sent)))
    assert folded.body["output"][0]["content"] == [
        {"type": "output_text", "text": 2 * PIECE},
        {"type": "output_text", "text": PIECE},
    ]


def test_search_for_pictures_is_linear() -> None:
    for piece in (b'"' + b"a" * 2100, b'"' * 40, b"a" * 40, b'"A1b2' * 8):
        assert_linear(lambda size, piece=piece: lambda: without_blobs(piece * size))


def test_size_is_captured_after_a_look_at_the_beginning() -> None:
    """The caller's thread does it: a thousand times the value is no more work."""
    huge: list[Any] = list(range(3_000_000))
    assert cpu_of(lambda: size_of({"a": huge})) < 50 * cpu_of(lambda: size_of({"a": huge[:3000]}))
    assert 8 * len(huge) < size_of(huge) < 50 * len(huge)
    wide = [[{"a": i} for i in range(1000)] for _ in range(200)]
    assert 0.7 < size_of(wide) / size_of_plain(wide) < 1.4


def test_the_content_of_steps_is_weighed_by_its_ends() -> None:
    """Each step of a run holds the whole conversation: what is weighed does not grow with it."""

    def state(count: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "hello " * 20} for _ in range(count)]}

    for count in (1, 20, 1000, 100_000):
        assert 0.6 < rough_size_of(state(count)) / size_of_plain(state(count)) < 1.7
    few, many = state(100), state(100_000)
    assert cpu_of(lambda: rough_size_of(many)) < 5 * cpu_of(lambda: rough_size_of(few))
    few["messages"][-1]["content"] = [{"type": "text", "text": "x" * 1_000_000}]
    assert rough_size_of(few) > 1_000_000
    assert rough_size_of({"state": few, "module": json}) < 20_000_000


class Counted(list[Any]):
    """What no look of ours may run."""

    def __iter__(self) -> Any:
        raise AssertionError

    __len__ = __sizeof__ = __iter__


def test_size_is_captured_without_the_callers_code() -> None:
    held = Counted(["x" * 10_000])
    assert 10_000 < size_of({"a": held}) < 11_000
    assert 10_000 < rough_size_of({"a": held}) < 11_000
