"""A response of which only the ends are kept: its numbers are those of a small one."""

from __future__ import annotations

from typing import Any

import pytest

from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver

PICTURE = {"id": "ig_1", "type": "image_generation_call", "status": "completed"}
TEXT = {"id": "m_1", "type": "message", "role": "assistant", "status": "incomplete"}
DRAWN = {
    "input_tokens": 60,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 60},
    "output_tokens": 6208,
    "output_tokens_details": {"image_tokens": 6208, "text_tokens": 0},
    "total_tokens": 6268,
}
USAGE = {
    "input_tokens": 2000,
    "input_tokens_details": {"cached_tokens": 400},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 2100,
}
TOOLS: list[Any] = [
    {"type": "image_generation", "model": "gpt-image-1.5"},
    {"type": "function", "name": "f", "parameters": {"required": ["status"], "usage": {}}},
]
VARIES = {
    *("$ai_latency", "$ai_time_to_first_token", "$ai_trace_id", "$ai_span_id", "$ai_parent_id"),
    *("$ai_output_choices", "posthog_llm_content_cut_bytes"),
}


def response(size: int, ended: str) -> dict[str, Any]:
    """A response in the order of OpenAI's own fields: the output is in their middle."""
    item: Any = {**PICTURE, "result": "A" * size, "output_format": "png"}
    if ended == "incomplete":
        said = {"type": "output_text", "text": '"],"usage":{}}' * (size // 14), "annotations": []}
        item = {**TEXT, "content": [said]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": ended,
        "incomplete_details": {"reason": "max_output_tokens"} if ended == "incomplete" else None,
        "model": "gpt-5-2025-08-07",
        "output": [item],
        "parallel_tool_calls": True,
        "service_tier": "priority",
        "tool_choice": "auto",
        "tool_usage": {"image_gen": DRAWN, "web_search": {"num_requests": 2}},
        "tools": TOOLS,
        "usage": USAGE,
        "metadata": {},
    }


def events(drive: Driver, provider: ScriptedProvider, size: int, ended: str) -> list[Any]:
    last = response(size, ended)
    begun = {**last, "status": "in_progress", "output": [], "usage": None, "service_tier": "auto"}
    del begun["tool_usage"]
    stream = [
        {"type": "response.created", "response": begun, "sequence_number": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": last["output"][0]},
        {"type": f"response.{ended}", "response": last, "sequence_number": 2},
    ]
    provider.script("/responses", Reply.stream(stream, done=False))
    sink = MemorySink()
    client = drive.ours(posthog_client=sink)
    drive.collect(lambda: client.responses.create(model="gpt-5", input="draw", stream=True))
    return [
        {name: value for name, value in event.properties.items() if name not in VARIES}
        for event in sink.wait_for(2)
    ]


@pytest.mark.parametrize("size", [3 << 20, 5 << 20])
@pytest.mark.parametrize("ended", ["completed", "incomplete"])
def test_a_large_last_event_tells_what_a_small_one_does(
    drive: Driver, provider: ScriptedProvider, ended: str, size: int
) -> None:
    small = events(drive, provider, 700, ended)
    assert events(drive, provider, size, ended) == small
    first, drawn = small
    assert first["$ai_stop_reason"] == (
        "completed" if ended == "completed" else "max_output_tokens"
    )
    assert (first["$ai_service_tier"], first["$ai_web_search_count"]) == ("priority", 2)
    assert (drawn["$ai_model"], drawn["$ai_image_output_tokens"]) == ("gpt-image-1.5", 6208)
