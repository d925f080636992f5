"""Turns of the Claude Agent SDK: each is one trace, with its model calls and tools.

The CLI is a fake, which the SDK's own transport runs; all else is the SDK.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import posthog
import pytest
import trio

import posthog_llm
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .trees import named, picture, shown, trees

pytest.importorskip("claude_agent_sdk", reason="it has a nox session of its own")

import claude_agent_sdk as sdk

from posthog_llm import claude_agents
from posthog_llm._frameworks import claude_agents as watched
from posthog_llm.claude_agents import ClaudeAgentOptions, ClaudeSDKClient, query
from posthog_llm.openai import AsyncOpenAI

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


INIT = {"type": "system", "subtype": "init", "model": MODEL, "claude_code_version": "2.9.9"}


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
    found = sorted(sink.events, key=lambda event: event.timestamp)
    return [dict(e.properties) for e in found if e.event == "$ai_generation"]


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


def test_several_turns_of_one_client(cli: Play, sink: MemorySink) -> None:
    async def chat() -> None:
        options = cli(plain("One.", "m-1"), plain("Two.", "m-2"), WITH_A_TOOL)
        async with ClaudeSDKClient(options, posthog_properties={"plan": "free"}) as client:
            for user in ("ann", "ben"):
                await client.query(f"I am {user}", posthog_distinct_id=user)
                assert [type(m) async for m in client.receive_response()]
            with posthog_llm.context(distinct_id="eve"):
                await client.query("I am eve")
            assert [type(m) async for m in client.receive_response()]

    asyncio.run(chat())
    assert shown(sink) == [
        *("trace Claude agent (agent)", f"  generation {MODEL}") * 2,
        *picture("Claude Agent SDK"),
    ]
    assert {e.properties["plan"] for e in sink.events} == {"free"}
    for event in sink.events:
        others = {"ann", "ben", "eve"} - {str(event.distinct_id)}
        assert len(others) == 2
        assert not any(f"I am {other}" in repr(event.properties) for other in others)


def test_several_clients_in_one_loop(cli: Play, sink: MemorySink) -> None:
    async def both() -> None:
        options = cli(WITH_A_TOOL)
        await asyncio.gather(*(asked(options, user, posthog_distinct_id=user) for user in "abc"))

    asyncio.run(both())
    assert posthog_llm.flush(10)
    for user in "abc":
        turn = [event for event in sink.events if event.distinct_id == user]
        assert trees(turn) == picture("Claude Agent SDK")
        assert all(user in repr(e.properties) for e in turn if e.event == "$ai_trace")
    assert len(sink.events) == 12


def test_a_turn_in_trio(cli: Play, sink: MemorySink) -> None:
    trio.run(asked, cli(WITH_A_TOOL))
    assert shown(sink) == picture("Claude Agent SDK")


def test_a_streamed_prompt(cli: Play, sink: MemorySink) -> None:
    async def prompts() -> Any:
        yield {"message": {"role": "user", "content": "Rain?"}, "type": "user"}

    async def run() -> None:
        async for _ in query(prompt=prompts(), options=cli(WITH_A_TOOL)):
            pass

    asyncio.run(run())
    assert shown(sink) == picture("Claude Agent SDK")
    assert generations(sink)[0]["$ai_input"] == [{"role": "user", "content": "Rain?"}]


def test_a_turn_inside_our_trace(cli: Play, sink: MemorySink) -> None:
    async def run() -> None:
        with posthog_llm.trace("request", distinct_id="ann", session_id="chat-1"):
            await asked(cli(WITH_A_TOOL))

    asyncio.run(run())
    inner = ["  " + line for line in picture("Claude Agent SDK")]
    assert shown(sink) == ["trace request", "  span" + inner[0].removeprefix("  trace"), *inner[1:]]
    assert {e.distinct_id for e in sink.events} == {"ann"}
    assert {e.properties["$ai_session_id"] for e in sink.events} == {"chat-1"}


def test_arguments_of_a_turn(cli: Play, sink: MemorySink) -> None:
    given: Any = {
        "posthog_distinct_id": "ann",
        "posthog_trace_id": "t-7",
        "posthog_session_id": "chat-1",
        "posthog_span_name": "weather",
        "posthog_groups": {"company": "acme"},
        "posthog_provider_override": "bedrock",
    }
    asyncio.run(asked(cli(WITH_A_TOOL), **given))
    assert shown(sink)[0] == "trace weather (agent)"
    for event in sink.events:
        said = event.properties
        assert event.distinct_id == "ann"
        assert (said["$ai_trace_id"], said["$ai_session_id"]) == ("t-7", "chat-1")
        assert event.groups == {"company": "acme"}
    assert {said["$ai_provider"] for said in generations(sink)} == {"bedrock"}
    with pytest.raises(TypeError, match="posthog_distinct_id"):
        asyncio.run(asked(cli(), posthog_distinct_id=["ann"]))
    with pytest.raises(TypeError, match="posthog_nonsense"):
        asyncio.run(asked(cli(), posthog_nonsense=1))


def test_a_model_of_another_provider(cli: Play, sink: MemorySink) -> None:
    asyncio.run(asked(cli(WITH_A_TOOL, env={"CLAUDE_CODE_USE_BEDROCK": "1"})))
    assert {said["$ai_provider"] for said in generations(sink)} == {"bedrock"}


# -- token counts -------------------------------------------------------------------------


def events(message_id: str, *messages: Any, usage: Any, out: int) -> Turn:
    """Return an answer as the CLI tells it if partial messages are asked for."""
    start = {"id": message_id, "model": MODEL, "content": [], "usage": usage}
    delta = {"type": "text_delta", "text": "x"}
    inner = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": text("")},
        {"type": "content_block_delta", "index": 0, "delta": delta},
    ]
    end = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": out},
        },
        {"type": "message_stop"},
    ]
    return [
        *({"type": "stream_event", "event": event} for event in inner),
        *messages,
        *({"type": "stream_event", "event": event} for event in end),
    ]


def test_partial_messages_tell_the_output(cli: Play, sink: MemorySink) -> None:
    first, second = counts(10, 50), counts(3, 5, 50)
    turn = [
        INIT,
        *events("m-1", *WITH_A_TOOL[1:4], usage=first, out=60),
        *events("m-2", WITH_A_TOOL[4], usage=second, out=30),
        WITH_A_TOOL[5],
    ]
    asyncio.run(asked(cli(turn, include_partial_messages=True)))
    assert shown(sink) == picture("Claude Agent SDK")
    found = generations(sink)
    assert [said["$ai_output_tokens"] for said in found] == [60, 30]
    assert [said["$ai_stop_reason"] for said in found] == ["end_turn"] * 2
    for said in found:
        assert 0 < said["$ai_time_to_first_token"] <= said["$ai_latency"]
        assert said["$ai_stream"] is True


def two_answers(total: Any, first_out: int = 1, second_out: int = 1) -> Turn:
    return [
        INIT,
        answer("m-1", use("Read", "t-1", {}), counts(10, out=first_out)),
        told("t-1", "x"),
        answer("m-2", text("y"), counts(3, out=second_out)),
        result("y", total),
    ]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (plain("One."), [7]),  # a single one: the result tells it
        (two_answers(counts(13, out=90)), [None, None]),
        (two_answers(counts(13, out=90), 40, 50), [40, 50]),  # they add up
        (two_answers(counts(99, out=90), 40, 50), [None, None]),  # of more than these answers
        (two_answers(None), [None, None]),
    ],
)
def test_output_tokens_are_true_or_absent(
    cli: Play, sink: MemorySink, turn: Turn, expected: list[int | None]
) -> None:
    asyncio.run(asked(cli(turn)))
    assert [said.get("$ai_output_tokens") for said in generations(sink)] == expected


def test_tools_at_the_provider_add_to_the_input(cli: Play, sink: MemorySink) -> None:
    turn = two_answers(counts(99, out=90))
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    turn[3]["message"]["content"].append(search)
    asyncio.run(asked(cli(turn)))
    assert [said.get("$ai_input_tokens") for said in generations(sink)] == [10, None]


def test_a_known_answer_leaves_the_other_one(cli: Play, sink: MemorySink) -> None:
    turn = two_answers(counts(13, out=90), 40)
    turn[1]["message"]["stop_reason"] = "tool_use"
    asyncio.run(asked(cli(turn)))
    assert [said["$ai_output_tokens"] for said in generations(sink)] == [40, 50]


# -- subagents, tools ---------------------------------------------------------------------


def test_a_subagent_is_inside_of_its_tool(cli: Play, sink: MemorySink) -> None:
    prompt = {"role": "user", "content": "Read it"}
    turn = [
        INIT,
        answer("m-1", use("Task", "t-1", {"prompt": "Read it"}), counts(10)),
        {"type": "user", "message": prompt, "parent_tool_use_id": "t-1"},
        answer("m-2", use("Read", "t-2", {"path": "a"}), counts(5), "t-1"),
        told("t-2", "no such file", "t-1", failed=True),
        answer("m-3", text("It is not there."), counts(6), "t-1"),
        told("t-1", "It is not there."),
        answer("m-4", text("No."), counts(20)),
        result("No.", counts(30, out=50)),
    ]
    asyncio.run(asked(cli(turn)))
    assert shown(sink) == [
        "trace Claude agent (agent)",
        f"  generation {MODEL}",
        "  span Task (tool)",
        f"    generation {MODEL}",
        "    span Read (tool) !",
        f"    generation {MODEL}",
        f"  generation {MODEL}",
    ]
    assert named(sink.events, "Read")["$ai_error"] == "no such file"
    assert generations(sink)[0]["$ai_input"] == [{"role": "user", "content": "Rain?"}]
    assert [said["$ai_input"] for said in generations(sink)][1] == [prompt]


def test_tools_that_never_end(cli: Play, sink: MemorySink) -> None:
    turn = [
        INIT,
        *(answer("m-1", use("Bash", f"t-{n}", {}), counts(10)) for n in range(300)),
        result("Done.", counts(10, out=50)),
    ]
    asyncio.run(asked(cli(turn)))
    found = [e.properties for e in sink.events if e.event == "$ai_span"]
    assert shown(sink).count("  span Bash (tool)") == 300
    assert {said["posthog_llm_outcome"] for said in found} == {"dropped"}


def request(method: str, tool_id: str | None = None, **params: Any) -> dict[str, Any]:
    """Return what the CLI asks a server in this process."""
    meta = {"_meta": {"claudecode/toolUseId": tool_id}} if tool_id else {}
    message = {"jsonrpc": "2.0", "id": method, "method": method, "params": {**params, **meta}}
    asked_for = {"subtype": "mcp_message", "server_name": "ours", "message": message}
    return {"do": "request", "request": asked_for}


def test_a_model_call_in_a_tool_of_this_process(
    cli: Play, sink: MemorySink, provider: ScriptedProvider
) -> None:
    model = AsyncOpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)

    @sdk.tool("summarize", "Summarize", {"text": str})
    async def summarize(args: Any) -> Any:
        with posthog_llm.span("prepare"):
            pass
        chat = await model.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": args["text"]}]
        )
        return {"content": [text(chat.choices[0].message.content or "")]}

    about = {"name": "claude", "version": "1"}
    turn = [
        INIT,
        answer("m-1", use("mcp__ours__summarize", "t-1", {"text": "a"}), counts(10)),
        request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=about),
        request("tools/call", "t-1", name="summarize", arguments={"text": "a"}),
        told("t-1", "a"),
        answer("m-2", text("a"), counts(12)),
        result("a", counts(22, out=50)),
    ]
    server = sdk.create_sdk_mcp_server("ours", tools=[summarize])
    asyncio.run(asked(cli(turn, mcp_servers={"ours": server})))
    assert shown(sink) == [
        "trace Claude agent (agent)",
        f"  generation {MODEL}",
        "  span mcp__ours__summarize (tool)",
        "    span prepare",
        "    generation gpt-5-mini",
        f"  generation {MODEL}",
    ]


# -- turns that fail, or are left -----------------------------------------------------------


def raised(run: Any) -> tuple[type, str]:
    with pytest.raises(Exception) as info:
        asyncio.run(run)
    return info.type, str(info.value)


def test_the_cli_dies_in_the_middle(cli: Play, sink: MemorySink) -> None:
    turn = [*WITH_A_TOOL[:3], {"do": "exit", "code": 7}]
    theirs = raised(asked_plain(cli(turn)))
    assert raised(asked(cli(turn))) == theirs
    assert shown(sink) == [
        "trace Claude agent (agent) !",
        f"  generation {MODEL} !",
        "  span WebFetch (tool)",
    ]
    assert "7" in named(sink.events, "Claude agent")["$ai_error"]


def test_a_result_that_is_an_error(cli: Play, sink: MemorySink) -> None:
    failed = result(None, counts(10), subtype="error_max_turns", is_error=True, errors=["too many"])
    turn = [*plain("One.")[:2], failed, {"do": "exit", "code": 1}]
    theirs = raised(asked_plain(cli(turn)))
    assert raised(asked(cli(turn))) == theirs
    assert shown(sink) == ["trace Claude agent (agent) !", f"  generation {MODEL}"]
    turned = named(sink.events, "Claude agent")
    assert (turned["$ai_error"], turned["$ai_error_type"]) == ("too many", "error_max_turns")


def test_a_model_call_that_fails(cli: Play, sink: MemorySink) -> None:
    message = answer("m-1", text("API Error: 529 Overloaded"), counts(0, out=0))
    message["message"]["model"] = "<synthetic>"
    turn = [INIT, {**message, "error": "overloaded"}, result("API Error", {}, is_error=True)]
    asyncio.run(asked(cli(turn)))
    assert shown(sink) == ["trace Claude agent (agent) !", f"  generation {MODEL} !"]
    (failed,) = generations(sink)
    assert failed["$ai_error_type"] == "overloaded"
    assert "$ai_input_tokens" not in failed


HANGING: Turn = [*WITH_A_TOOL[:3], {"do": "wait"}]


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_turn_that_is_left(cli: Play, sink: MemorySink, is_closed: bool) -> None:
    async def run() -> None:
        found: Any = query(prompt="Rain?", options=cli(HANGING))
        async for message in found:
            if isinstance(message, sdk.AssistantMessage):
                break
        if is_closed:
            await asyncio.create_task(found.aclose())
        del found
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # the SDK ends the CLI
            await asyncio.wait(others)

    asyncio.run(run())
    assert shown(sink)[0] == "trace Claude agent (agent)"
    assert named(sink.events, "Claude agent")["posthog_llm_outcome"] == "closed_early"


def test_a_turn_that_is_cancelled(cli: Play, sink: MemorySink) -> None:
    async def run() -> None:
        task = asyncio.create_task(asked(cli(HANGING)))
        while not watched.steps:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert shown(sink)[0] == "trace Claude agent (agent)"


def test_an_interrupt(cli: Play, sink: MemorySink) -> None:
    stopped = result(None, counts(10, 50), subtype="error_during_execution", is_error=True)

    async def run() -> None:
        async with ClaudeSDKClient(cli([*HANGING, stopped], plain("Two.", "m-9"))) as client:
            await client.query("Rain?")
            found = client.receive_response()
            while not watched.steps:  # until the tool runs
                await anext(found)
            await client.interrupt()
            assert isinstance([m async for m in found][-1], sdk.ResultMessage)
            await client.query("Again")
            assert [type(m) async for m in client.receive_response()]

    asyncio.run(run())
    lines = shown(sink)
    assert lines.count("trace Claude agent (agent)") == 2
    outcomes = [e.properties.get("posthog_llm_outcome") for e in sink.events]
    assert outcomes.count("cancelled") == 2  # the tool and the turn


# -- never in the way -------------------------------------------------------------------------


def test_nothing_of_the_callers_changes(cli: Play, tmp_path: Path) -> None:
    def heard(run: Any) -> list[Any]:
        asyncio.run(run)
        lines = (tmp_path / "heard.jsonl").read_text().splitlines()
        return [
            {**said, "request_id": ""} if isinstance(said, dict) else said
            for said in map(json.loads, lines)
        ]

    before = heard(asked_plain(cli(WITH_A_TOOL, max_turns=3)))
    options = cli(WITH_A_TOOL, max_turns=3)
    given = repr(options)
    assert heard(asked(options, posthog_distinct_id="ann")) == before
    assert repr(options) == given


class OwnTransport(sdk.Transport):
    """A transport of the application's own, which plays a turn in this process."""

    def __init__(self, turn: Turn) -> None:
        self.turn, self.written = turn, asyncio.Queue[Any]()

    async def connect(self) -> None:
        pass

    async def write(self, data: str) -> None:
        await self.written.put(json.loads(data))

    async def read_messages(self) -> Any:
        while (said := await self.written.get())["type"] == "control_request":
            answer = {"subtype": "success", "request_id": said["request_id"], "response": {}}
            yield {"type": "control_response", "response": answer}
        for message in self.turn:
            yield {"session_id": "s-1", **message}

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    async def end_input(self) -> None:
        pass


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_transport_of_the_applications_own(cli: Play, sink: MemorySink, is_ours: bool) -> None:
    async def run() -> None:
        transport = OwnTransport(WITH_A_TOOL)
        before = dict(vars(transport))
        ask = query if is_ours else sdk.query
        assert len([m async for m in ask(prompt="Rain?", transport=transport)]) == 6
        assert vars(transport) == before
        client = (ClaudeSDKClient if is_ours else sdk.ClaudeSDKClient)(
            None, OwnTransport(plain("x"))
        )
        async with client:
            await client.query("Rain?")
            assert len([m async for m in client.receive_response()]) == 3

    if not is_ours:
        posthog_llm.instrument(sink)
    asyncio.run(run())
    assert shown(sink) == [
        *picture("Claude Agent SDK"),
        *("trace Claude agent (agent)", f"  generation {MODEL}"),
    ]


def test_the_whole_process(cli: Play, sink: MemorySink) -> None:
    asyncio.run(asked_plain(cli(WITH_A_TOOL)))
    assert shown(sink) == []
    posthog_llm.instrument(sink)
    asyncio.run(asked_plain(cli(WITH_A_TOOL)))
    assert shown(sink) == picture("Claude Agent SDK")
    asyncio.run(asked(cli(WITH_A_TOOL)))  # once, with both
    assert shown(sink) == picture("Claude Agent SDK") * 2
    posthog_llm.uninstrument()
    asyncio.run(asked_plain(cli(WITH_A_TOOL)))
    assert shown(sink) == picture("Claude Agent SDK") * 2


def test_turns_that_posthogs_own_wrapper_captures_are_its_alone(
    cli: Play, sink: MemorySink, receiver: PostHogReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    from posthog.ai import claude_agent_sdk as theirs

    async def run() -> None:
        options = cli(WITH_A_TOOL)
        async for _ in theirs.query(prompt="Rain?", options=options, posthog_client=client):
            pass
        async with theirs.PostHogClaudeSDKClient(options, posthog_client=client) as chat:
            await chat.query("Rain?")
            async for _ in chat.receive_response():
                pass

    posthog_llm.instrument(sink)
    client = posthog.Posthog("phc_key", host=receiver.url)
    asyncio.run(run())
    client.shutdown()
    assert [event["event"] for event in receiver.events].count("$ai_trace") == 2
    assert shown(sink) == []
    assert caplog.text.count("posthog.ai.claude_agent_sdk captures") == 1


def test_a_process_that_ends_in_a_turn(cli: Play, receiver: PostHogReceiver) -> None:
    options = cli(HANGING)
    program = f"""
import asyncio, posthog
from claude_agent_sdk import ClaudeAgentOptions, AssistantMessage
from posthog_llm.claude_agents import query
client = posthog.Posthog("phc_key", host={receiver.url!r})
found = query(
    prompt="Rain?", options=ClaudeAgentOptions(cli_path={options.cli_path!r}), posthog_client=client
)
async def some():
    while not isinstance(await anext(found), AssistantMessage):
        pass
loop = asyncio.new_event_loop()
loop.run_until_complete(some())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
    kinds = [event["event"] for event in receiver.events]
    assert sorted(kinds)[0] == "$ai_generation"
    assert "$ai_trace" in kinds


def test_uninstrument_leaves_the_sdk_as_it_was() -> None:
    program = """
import claude_agent_sdk, posthog_llm
from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport as cls
before = dict(vars(cls)), dict(vars(claude_agent_sdk.ClaudeSDKClient))
posthog_llm.instrument()
assert vars(cls)["read_messages"] is not before[0]["read_messages"]
posthog_llm.uninstrument()
assert (dict(vars(cls)), dict(vars(claude_agent_sdk.ClaudeSDKClient))) == before
import posthog_llm.claude_agents as ours
assert issubclass(ours.ClaudeSDKClient, claude_agent_sdk.ClaudeSDKClient)
assert ours.AssistantMessage is claude_agent_sdk.AssistantMessage
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_stub_has_all_names_of_the_sdk() -> None:
    stub = Path(claude_agents.__file__).with_suffix(".pyi").read_text()
    own = {"ClaudeSDKClient", "query", "__version__"}
    assert set(re.findall(r" (\w+) as \1\b", stub)) == set(sdk.__all__) - own
    assert isinstance(ClaudeSDKClient(), sdk.ClaudeSDKClient)
    assert claude_agents.AssistantMessage is sdk.AssistantMessage
    assert inspect.isasyncgenfunction(query)


def test_without_the_sdk() -> None:
    program = "import sys; sys.modules['claude_agent_sdk'] = None; import posthog_llm.claude_agents"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert b"pip install 'posthog-llm[claude-agents]'" in ended.stderr


def test_privacy(cli: Play, sink: MemorySink) -> None:
    asyncio.run(asked(cli(WITH_A_TOOL), posthog_privacy_mode=True))
    assert shown(sink) == picture("Claude Agent SDK")
    for secret in ("Rain?", "sunny", "rain.example", "No rain."):
        assert secret not in repr([e.properties for e in sink.events])


def test_turns_that_are_not_captured(cli: Play, sink: MemorySink) -> None:
    asyncio.run(asked(cli(WITH_A_TOOL), posthog_capture=False))
    assert shown(sink) == []


def test_sampling_keeps_or_drops_whole_turns(cli: Play, sink: MemorySink) -> None:
    posthog_llm.configure(sample_rate=0.0, keep_errors=False)
    try:
        asyncio.run(asked(cli(WITH_A_TOOL)))
        assert shown(sink) == []
    finally:
        posthog_llm.configure(sample_rate=1.0)
