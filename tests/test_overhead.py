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
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
HEAD = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
CHUNK = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}


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


def answer(events: list[Any] | None) -> Any:
    """Return a handler that answers with a completion, or with a stream of events."""
    if events is None:
        body = json.dumps({**HEAD, "choices": [MESSAGE]}).encode()
        return lambda _: HTTP.Response(
            200, headers={"content-type": "application/json"}, content=body
        )
    sent = [b"data: %b\n\n" % json.dumps({**HEAD, **event}).encode() for event in events]
    head = {"content-type": "text/event-stream"}
    return lambda _: HTTP.Response(200, headers=head, content=iter([*sent, b"data: [DONE]\n\n"]))


def asking(drive: Driver, make: Any, events: list[Any] | None, **more: Any) -> Callable[[], Any]:
    client = make(http_client=http_client(drive, answer(events)), **more)
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
