"""Whole events beside those of `posthog.ai`: saved insights are made of its properties.

Where an event differs, and in which kinds of calls, is exactly what `DIFFERENT` says; each of
its properties has its reason in docs/from-posthog-ai.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import posthog
import posthog.ai.anthropic
import posthog.ai.openai
import pytest

import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider

pytestmark = pytest.mark.skipif(
    tuple(map(int, posthog.VERSION.split(".")[:2])) < (7, 91), reason="compared with 7.91"
)
SAY: Any = [{"role": "user", "content": "hi"}]
WHO: Any = {"posthog_distinct_id": "user-7", "posthog_trace_id": "t-1"}
TOOL: Any = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CLAUDE_TOOL: Any = {"name": "get_weather", "input_schema": TOOL["parameters"]}
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
DETAILED = {
    **USAGE,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
Call = Callable[[Any], Any]


def completion(*messages: Any, usage: Any = USAGE) -> Reply:
    choices = [
        {"index": i, "message": {"role": "assistant", **m}, "finish_reason": "stop"}
        for i, m in enumerate(messages)
    ]
    head = {"id": "c-1", "object": "chat.completion", "created": 0, "model": "gpt-5-mini"}
    return Reply.json({**head, "choices": choices, "usage": usage})


def response(*items: Any) -> Reply:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
    }
    head = {"id": "r-1", "object": "response", "created_at": 0, "model": "gpt-5-mini"}
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return Reply.json({**head, **rest, "status": "completed", "output": items, "usage": usage})


def message(*blocks: Any) -> Reply:
    usage = {
        "input_tokens": 9,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }
    head = {"id": "m-1", "type": "message", "role": "assistant", "model": "claude-haiku-5-5"}
    return Reply.json({**head, "content": blocks, "stop_reason": "end_turn", "usage": usage})


def chat(**more: Any) -> Call:
    return lambda c: c.chat.completions.create(model="gpt-5-mini", messages=SAY, **WHO, **more)


def respond(**more: Any) -> Call:
    given = {"model": "gpt-5-mini", "input": "hi", **more}
    return lambda c: c.responses.create(**given, **WHO)


def ask_claude(**more: Any) -> Call:
    given = {"model": "claude-haiku-5-5", "max_tokens": 99, "messages": SAY, **more}
    return lambda c: c.messages.create(**given, **WHO)


REFUSED = Reply.json({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}


class Kind(NamedTuple):
    """A call, by which client, and what is answered to which path; else the echo answers."""

    call: Call
    client: str = "OpenAI"
    reply: Reply | None = None
    path: str = "/chat/completions"


def embed(client: Any) -> Any:
    return client.embeddings.create(model="text-embedding-3-small", input="hi", **WHO)


WITH_TOOL = {"tools": [{"type": "function", "function": TOOL}]}
ITEMS = (
    {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm"}]},
    {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "web_search_call", "id": "w", "status": "completed"},
)
TOOL_USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
CITED = {"content": "Hi", "annotations": [{"type": "url_citation"}]}
TWO = completion({"content": "Hi"}, {"content": "Ho"})
REASONED = completion({"content": "Hi", "reasoning_content": "Hm."})
KINDS = {
    "chat": Kind(chat(temperature=0.5)),
    "chat, streamed": Kind(chat(stream=True)),
    "cached and reasoned": Kind(chat(), reply=completion({"content": "Hi"}, usage=DETAILED)),
    "tool call": Kind(chat(**WITH_TOOL)),
    "tool call, streamed": Kind(chat(stream=True, **WITH_TOOL)),
    "two choices": Kind(chat(n=2), reply=TWO),
    "refusal": Kind(chat(), reply=completion({"content": None, "refusal": "No."})),
    "reasoning text": Kind(chat(), reply=REASONED),
    "citations": Kind(chat(), reply=completion(CITED)),
    "nothing said": Kind(chat(), reply=completion({"content": ""})),
    "response": Kind(respond(instructions="Be kind.")),
    "response, streamed": Kind(respond(stream=True)),
    "response of items": Kind(respond(), reply=response(*ITEMS), path="/responses"),
    "embeddings": Kind(embed),
    "refused": Kind(chat(), reply=REFUSED),
    "unreached": Kind(chat(), "unreached"),
    "private": Kind(chat(posthog_privacy_mode=True)),
    "cancelled": Kind(chat(), "AsyncOpenAI", Reply((b"{}",), delay=5.0)),
    "message": Kind(ask_claude(system="Be kind."), "Anthropic"),
    "message, streamed": Kind(ask_claude(stream=True), "Anthropic"),
    "message of blocks": Kind(
        ask_claude(tools=[CLAUDE_TOOL]), "Anthropic", message(THOUGHT, TOOL_USE), "/messages"
    ),
    "message refused": Kind(ask_claude(), "Anthropic", REFUSED, "/messages"),
}
STREAMED = {"chat, streamed", "tool call, streamed"}
ABSENT = "absent"
FAILED = {"refused", "unreached", "message refused"}
DIFFERENT = {
    "$ai_cache_creation_input_tokens": {"message"},
    "$ai_cache_read_input_tokens": {*STREAMED, "response", "message"},
    "$ai_error": {"cancelled"},
    "$ai_input": {"private"},
    "$ai_is_error": {"cancelled"},
    "$ai_model_parameters": {"embeddings", "response", "response, streamed"},
    "$ai_output_choices": {
        *("two choices", "reasoning text", "citations", "message of blocks", "private"),
    },
    "$ai_reasoning_tokens": {*STREAMED, "response"},
    "$ai_tokens_source": {"embeddings", "cancelled", *FAILED},
    "$ai_usage": {"embeddings", "message, streamed"},
}
"""Properties, and the kinds of calls in which they differ."""
MORE = {
    *("$ai_audio_input_tokens", "$ai_cache_reporting_exclusive", "$ai_error_type"),
    *("$ai_service_tier", "$ai_stream", "$ai_total_tokens"),
}
"""Properties that are ours alone wherever an event has them."""
OWN = re.compile(r"posthog_llm_|\$ai_lib|\$ai_(span_id|latency|base_url|time_to_first_token)$")
"""Properties that are ours alone, tell the libraries apart, or are of no two calls the same."""
OF_POSTHOG = re.compile(r"\$(?!ai_)(?!process_person_profile)")
"""What the `posthog` client adds to every event."""


def use(client: Any, call: Call, provider: ScriptedProvider) -> None:
    """Make a call, and read what it streams; what it raises is of no interest."""

    async def cancel() -> None:
        task = asyncio.ensure_future(call(client))
        while not provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    if "Async" in type(client).__name__:
        asyncio.run(cancel())
        return
    with contextlib.suppress(Exception):
        answer = call(client)
        if type(answer).__name__ in ("Stream", "generator") or hasattr(answer, "__next__"):
            list(answer)


def recorded(library: str, kind: str) -> dict[str, Any]:
    """Return what one library tells of one kind of call."""
    call, name, reply, path = KINDS[kind]
    modules = {
        "posthog-llm": (posthog_llm.openai, posthog_llm.anthropic),
        "posthog.ai": (posthog.ai.openai, posthog.ai.anthropic),
    }[library]
    with ScriptedProvider() as provider, PostHogReceiver() as receiver:
        if reply is not None:
            provider.script(path, reply)
        destination = posthog.Posthog("phc_shapes", host=receiver.url)
        url = provider.url if name == "Anthropic" else provider.base_url
        if name == "unreached":
            name, url = "OpenAI", "http://127.0.0.1:9/v1"
        make = getattr(modules[name == "Anthropic"], name)
        client = make(base_url=url, api_key="k", max_retries=0, posthog_client=destination)
        use(client, call, provider)
        gc.collect()
        while not receiver.events:
            destination.flush()
            time.sleep(0.01)
        destination.shutdown()
        (event,) = receiver.events
        properties = event["properties"]
    properties["distinct_id"] = event["distinct_id"]
    properties["event"] = event["event"]
    return {k: v for k, v in properties.items() if not (OWN.match(k) or OF_POSTHOG.match(k))}


def said(value: Any) -> Any:
    """Leave out the fields of a usage object that say nothing."""
    if not isinstance(value, dict):
        return value
    return {k: said(v) for k, v in value.items() if v is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_differs_from_posthog_ai_where_it_is_said(kind: str) -> None:
    ours, theirs = recorded("posthog-llm", kind), recorded("posthog.ai", kind)
    shared = theirs.keys() | (ours.keys() - MORE)
    found = {n for n in shared if said(ours.get(n, ABSENT)) != said(theirs.get(n, ABSENT))}
    assert found == {name for name, kinds in DIFFERENT.items() if kind in kinds}


def test_each_difference_has_its_reason() -> None:
    page = (Path(__file__).parent.parent / "docs" / "from-posthog-ai.md").read_text()
    rows = re.findall(r"^\| `(\$ai_\w+)` \|", page, re.M)
    assert sorted(rows) == sorted(DIFFERENT)
    assert f"{len(KINDS)} kinds of calls" in page
