"""Who asked: read when the call starts, by precedence, also for streams that live longer."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import posthog
import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, ScriptedProvider

from .driving import AsyncDriver, Driver, SyncDriver, every_sdk

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@every_sdk
def test_precedence(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, posthog_distinct_id="client")

    def ask(**more: Any) -> None:
        drive.ask(client, **more)

    ask()
    with posthog.new_context():
        posthog.identify_context("posthog")
        posthog.tag("tenant", "acme")
        posthog.set_context_session("replay-1")
        ask()
        with posthog_llm.context(distinct_id="ours", session_id="s1", properties={"a": 1}):
            ask()
            ask(posthog_distinct_id="call", posthog_properties={"b": 2})
    ask()
    default, theirs, ours, call, after = sink.wait_for(5)
    assert [e.distinct_id for e in (default, theirs, ours, call, after)] == [
        "client",
        "posthog",
        "ours",
        "call",
        "client",
    ]
    assert theirs.properties["tenant"] == "acme"
    assert theirs.properties["$session_id"] == "replay-1"
    assert "$ai_session_id" not in theirs.properties
    assert ours.properties["$ai_session_id"] == "s1"
    assert (call.properties["a"], call.properties["b"]) == (1, 2)
    assert "tenant" not in after.properties


@every_sdk
def test_stream_keeps_the_context_it_was_opened_in(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    with posthog_llm.context(distinct_id="u1", trace_id="t1", groups={"company": "acme"}):
        stream = drive.ask(client, stream=True)
    with posthog_llm.context(distinct_id="someone else"):
        drive.items(stream)
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert event.properties["$ai_trace_id"] == "t1"
    assert event.groups == {"company": "acme"}


@every_sdk
def test_what_changes_after_the_call_does_not_show(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    properties = {"plan": "team"}
    with posthog.new_context():
        posthog.identify_context("before")
        drive.ask(client, posthog_properties=properties)
        posthog.identify_context("after")
        posthog.tag("late", True)
        properties["plan"] = "changed"
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "before"
    assert event.properties["plan"] == "team"
    assert "late" not in event.properties


def test_tasks_do_not_see_each_other(sink: MemorySink, provider: ScriptedProvider) -> None:
    drive = AsyncDriver(provider)
    client = drive.ours(posthog_client=sink)

    async def one(number: int) -> None:
        async with posthog_llm.context(distinct_id=f"u{number}"):
            await asyncio.sleep(0.001 * (number % 3))
            stream = await client.chat.completions.create(
                model=f"m{number}", messages=ASK["messages"], stream=True
            )
            async for _ in stream:
                pass

    async def all_of_them() -> None:
        await asyncio.gather(*(one(n) for n in range(40)))

    drive.loop.run_until_complete(all_of_them())
    drive.close()
    found = {e.distinct_id: e.properties["$ai_model"] for e in sink.wait_for(40)}
    assert found == {f"u{n}": f"m{n}" for n in range(40)}


def test_threads_are_counted_exactly(sink: MemorySink, provider: ScriptedProvider) -> None:
    client = SyncDriver(provider).ours(posthog_client=sink)

    def one(number: int) -> None:
        client.chat.completions.create(**ASK, posthog_distinct_id=f"u{number}")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(160)))
    assert sorted(e.distinct_id for e in sink.wait_for(160)) == sorted(f"u{n}" for n in range(160))


def test_context_left_from_another_context(sink: MemorySink) -> None:
    """A generator finalised elsewhere must not fail over a token of the wrong context."""

    async def generator() -> Any:
        with posthog_llm.context(distinct_id="u1"):
            yield 1

    async def program() -> None:
        opened = generator()
        await asyncio.create_task(opened.__anext__())
        await asyncio.create_task(opened.aclose())

    asyncio.run(program())


def test_unknown_name_in_a_context() -> None:
    with pytest.raises(TypeError, match="distinctid"):
        posthog_llm.context(distinctid="u1")


def test_misuse_of_a_context() -> None:
    with pytest.raises(TypeError, match="properties must be a mapping"):
        posthog_llm.context(properties="team")


@every_sdk
@pytest.mark.parametrize("identity", [7, "7"])
def test_numbers_are_fine_as_ids(drive: Driver, sink: MemorySink, identity: Any) -> None:
    client = drive.ours(posthog_client=sink)
    drive.ask(client, posthog_distinct_id=identity)
    assert sink.wait_for(1)[0].distinct_id == "7"


def test_arguments_reach_every_turn_of_a_manager_opened_later(
    sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = SyncDriver(provider).ours(posthog_client=sink)
    manager = client.chat.completions.stream(**ASK, posthog_distinct_id="u1")
    with posthog_llm.context(session_id="when entered"), manager as stream:
        stream.until_done()
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert event.properties["$ai_session_id"] == "when entered"


def test_empty_ids_are_none(drive: Driver, sink: MemorySink) -> None:
    """What `user_id or ""` gives makes nobody a person, and hides nobody around it."""
    client = drive.ours(posthog_client=sink)
    drive.ask(client, posthog_distinct_id="", posthog_session_id="")
    with posthog_llm.context(distinct_id="outer", session_id="chat"):
        drive.ask(client, posthog_distinct_id="", posthog_session_id="")
    nobody, outer = sink.wait_for(2)
    assert nobody.distinct_id == nobody.properties["$ai_trace_id"]
    assert nobody.properties["$process_person_profile"] is False
    assert "$ai_session_id" not in nobody.properties
    assert (outer.distinct_id, outer.properties["$ai_session_id"]) == ("outer", "chat")
