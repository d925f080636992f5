"""What a call costs the caller's thread, in calls of Python functions: no clock, no noise."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from posthog_llm.testing import MemorySink

from .driving import QUESTION, Driver, SyncDriver
from .test_streaming import HTTP, http_client

MOST_A_CALL = 160
MOST_A_CHUNK = 4
MOST_A_PIECE = 8
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
HEAD = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
CHUNK = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}
Cut = Callable[[list[bytes]], list[bytes]]


def counted(function: Callable[[], Any]) -> int:
    """Return how many Python functions a call runs, or resumes, on this thread."""
    count = 0

    def note(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def least(function: Callable[[], Any]) -> int:
    """Return the fewest of several calls: caches are filled by then, and no collection comes in."""
    return min(counted(function) for _ in range(6))


def answer(events: list[Any] | None, cut: Cut = list) -> Any:
    """Return a handler that answers with a completion, or with a stream of events."""
    if events is None:
        body = json.dumps({**HEAD, "choices": [MESSAGE]}).encode()
        return lambda _: HTTP.Response(
            200, headers={"content-type": "application/json"}, content=body
        )
    sent = [b"data: %b\n\n" % json.dumps({**HEAD, **event}).encode() for event in events]
    head = {"content-type": "text/event-stream"}
    pieces = cut([*sent, b"data: [DONE]\n\n"])
    return lambda _: HTTP.Response(200, headers=head, content=iter(pieces))


def asking(
    drive: Driver, make: Any, events: list[Any] | None, cut: Cut = list, **more: Any
) -> Callable[[], Any]:
    client = make(http_client=http_client(drive, answer(events, cut)), **more)
    if events is None:
        return lambda: client.chat.completions.create(**QUESTION)
    return lambda: list(client.chat.completions.create(**QUESTION, stream=True))


@pytest.fixture
def sync(drive: Driver) -> Driver:
    if not isinstance(drive, SyncDriver):
        pytest.skip("an event loop's own calls differ from run to run")
    return drive


def test_a_plain_call_runs_few_functions_of_ours(sync: Driver, sink: MemorySink) -> None:
    bare = least(asking(sync, sync.bare, None))
    ours = least(asking(sync, sync.ours, None, posthog_client=sink))
    assert ours - bare <= MOST_A_CALL, (bare, ours)


def test_a_chunk_runs_few_functions_of_ours(sync: Driver, sink: MemorySink) -> None:
    def per_chunk(make: Any, **more: Any) -> float:
        short, long = (least(asking(sync, make, [CHUNK] * n, **more)) for n in (100, 300))
        return (long - short) / 200

    bare, ours = per_chunk(sync.bare), per_chunk(sync.ours, posthog_client=sink)
    assert ours - bare <= MOST_A_CHUNK, (bare, ours)


def by_four(sent: list[bytes]) -> list[bytes]:
    return [b"".join(sent[i : i + 4]) for i in range(0, len(sent), 4)]


def halved(sent: list[bytes]) -> list[bytes]:
    return [half for event in sent for half in (event[:40], event[40:])]


@pytest.mark.parametrize(("cut", "pieces"), [(by_four, 50), (halved, 400)])
def test_a_piece_of_a_stream_runs_few_functions_of_ours_whatever_is_in_it(
    sync: Driver, sink: MemorySink, cut: Cut, pieces: int
) -> None:
    def added(make: Any, **more: Any) -> int:
        counts = [CHUNK | {"usage": None}] * 100, [CHUNK | {"usage": None}] * 300
        short, long = (least(asking(sync, make, events, cut, **more)) for events in counts)
        return long - short

    bare, ours = added(sync.bare), added(sync.ours, posthog_client=sink)
    assert ours - bare <= MOST_A_PIECE * pieces, (bare, ours)
