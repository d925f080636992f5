"""Turns of the Claude Agent SDK: each is one trace, with its model calls and tools.

The CLI is a fake, which the SDK's own transport runs; all else is the SDK.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink

from .trees import named, picture, shown

pytest.importorskip("claude_agent_sdk", reason="it has a nox session of its own")

import claude_agent_sdk as sdk

from posthog_llm._frameworks import claude_agents as watched
from posthog_llm.claude_agents import ClaudeAgentOptions, ClaudeSDKClient, query

FAKE = Path(__file__).with_name("fake_claude.py")
MODEL = "claude-sonnet-4-5"
Turn = list[dict[str, Any]]
Play = Callable[..., Any]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    assert not watched.steps, "a tool is never forgotten"


@pytest.fixture
def cli(tmp_path: Path, sink: MemorySink) -> Iterator[Play]:
    """Return a function that makes options with a CLI that plays turns."""

    def options(*turns: Turn, **more: Any) -> Any:
        script = tmp_path / "claude"
        script.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
        script.chmod(0o755)
        (tmp_path / "turns.json").write_text(json.dumps(turns))
        return ClaudeAgentOptions(cli_path=str(script), **more)

    with posthog_llm.context(posthog_client=sink):
        yield options


# -- what the CLI says -------------------------------------------------------------------


def counts(given: int, written: int = 0, read: int = 0, out: int = 1) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": written},
        "output_tokens": out,
    }


INIT = {"type": "system", "subtype": "init", "model": MODEL}


def answer(message_id: str, block: Any, usage: Any, parent: str | None = None) -> dict[str, Any]:
    """Return one message of an answer: the CLI sends one for each block."""
    said = {"id": message_id, "model": MODEL, "role": "assistant", "stop_reason": None}
    return {
        "type": "assistant",
        "message": {**said, "content": [block], "usage": usage},
        "parent_tool_use_id": parent,
    }


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(name: str, tool_id: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_id, "name": name, "input": given}


def told(tool_id: str, words: str, parent: str | None = None, failed: bool = False) -> Any:
    block = {"type": "tool_result", "tool_use_id": tool_id, "content": words, "is_error": failed}
    message = {"role": "user", "content": [block]}
    return {"type": "user", "message": message, "parent_tool_use_id": parent}


def result(words: str | None, usage: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 1,
        "duration_ms": 1,
        "duration_api_ms": 1,
        "total_cost_usd": 0.5,
        "usage": usage,
        "result": words,
        **more,
    }


def plain(words: str, message_id: str = "m-1") -> Turn:
    return [
        INIT,
        answer(message_id, text(words), counts(10)),
        result(words, counts(10, out=7)),
    ]


WITH_A_TOOL: Turn = [
    INIT,
    answer("m-1", {"type": "thinking", "thinking": "Rain?", "signature": "x"}, counts(10, 50)),
    answer("m-1", use("WebFetch", "t-1", {"url": "rain.example"}), counts(10, 50)),
    told("t-1", "sunny"),
    answer("m-2", text("No rain."), counts(3, 5, 50)),
    result("No rain.", counts(13, 55, 50, out=90)),
]

# -- ways to run it ----------------------------------------------------------------------


async def asked(options: Any, prompt: str = "Rain?", **posthog: Any) -> list[Any]:
    return [message async for message in query(prompt=prompt, options=options, **posthog)]


async def asked_plain(options: Any, prompt: str = "Rain?") -> list[Any]:
    """Ask with the SDK's own function."""
    return [message async for message in sdk.query(prompt=prompt, options=options)]


async def chatted(options: Any, *prompts: str, **posthog: Any) -> list[Any]:
    found = []
    async with ClaudeSDKClient(options, **posthog) as client:
        for prompt in prompts:
            await client.query(prompt)
            found += [message async for message in client.receive_response()]
    return found


def generations(sink: MemorySink) -> list[dict[str, Any]]:
    assert posthog_llm.flush(10)
    return [dict(e.properties) for e in sink.events if e.event == "$ai_generation"]


# -- turns --------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asked, lambda options: chatted(options, "Rain?")])
def test_a_turn_with_a_tool(cli: Play, sink: MemorySink, run: Any) -> None:
    messages = asyncio.run(run(cli(WITH_A_TOOL)))
    assert [type(m).__name__ for m in messages] == [
        *("SystemMessage", "AssistantMessage", "AssistantMessage", "UserMessage"),
        *("AssistantMessage", "ResultMessage"),
    ]
    assert shown(sink) == picture("Claude Agent SDK")
    assert {e.properties["$ai_session_id"] for e in sink.events} == {"s-1"}
    assert {e.properties["$ai_framework"] for e in sink.events} == {"claude-agent-sdk"}
    turn = named(sink.events, "Claude agent")
    assert turn["$ai_input_state"] == [{"role": "user", "content": "Rain?"}]
    assert turn["$ai_output_state"] == "No rain."
    assert "$ai_total_cost_usd" not in turn
    tool = named(sink.events, "WebFetch")
    assert (tool["$ai_input_state"], tool["$ai_output_state"]) == ({"url": "rain.example"}, "sunny")
    first, second = generations(sink)
    assert first["$ai_provider"] == "anthropic"
    assert first["$ai_input"] == [{"role": "user", "content": "Rain?"}]
    assert [block["type"] for block in first["$ai_output_choices"][0]["content"]] == [
        *("thinking", "function"),
    ]
    assert "sunny" in repr(second["$ai_input"])
    assert first["$ai_input_tokens"] == 10
    assert first["$ai_cache_creation_input_tokens"] == 50
    assert first["$ai_cache_creation_1h_input_tokens"] == 50
    assert second["$ai_cache_read_input_tokens"] == 50
    assert second["$ai_cache_reporting_exclusive"] is True
    assert 0 <= second["$ai_latency"] <= turn["$ai_latency"]
