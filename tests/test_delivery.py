"""From the record to PostHog: nothing lost without being counted, nothing blocked."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posthog import Posthog

import posthog_llm
from posthog_llm import _sampling as sampling
from posthog_llm import _settings as settings
from posthog_llm import openai as ours
from posthog_llm._delivery import trimming
from posthog_llm._delivery.worker import worker
from posthog_llm._event import CONTENT, Event
from posthog_llm._observe.call_queue import call_queue
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider, reset

ASK: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hi"}]}
HAS_AI_LANE = hasattr(Posthog, "capture_ai")
HAS_V1 = "capture_mode" in inspect.signature(Posthog.__init__).parameters


@pytest.fixture
def client(provider: ScriptedProvider) -> Any:
    return ours.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0)


def project(receiver: PostHogReceiver, key: str = "phc_test", **options: Any) -> Posthog:
    return Posthog(key, host=receiver.url, **{"timeout": 0.5, "max_retries": 0, **options})


def ask(client: Any, count: int, destination: Any, **arguments: Any) -> list[str]:
    """Make calls; returns the uuids of their events."""
    uuids = []
    for number in range(count):
        answer = client.chat.completions.create(
            **{**ASK, **arguments}, posthog_client=destination, posthog_distinct_id=f"u{number}"
        )
        uuids.append(posthog_llm.event_id(answer))
    return uuids


def uuids_of(receiver: PostHogReceiver) -> list[str]:
    return [event["uuid"] for event in receiver.events]


# -- back-pressure and outages -------------------------------------------------------------


def test_burst_past_the_clients_queue_is_delivered_whole(
    client: Any, receiver: PostHogReceiver
) -> None:
    receiver.fault, receiver.delay = "slow", 0.05
    destination = project(receiver, max_queue_size=50, flush_at=10, timeout=5)
    uuids = ask(client, 200, destination)
    assert posthog_llm.flush(30)
    assert Counter(uuids_of(receiver)) == Counter(uuids)
    stats = posthog_llm.stats()
    assert (stats.captured, stats.delivered, stats.dropped) == (200, 200, {})


def test_users_own_flush_waits_for_room(client: Any, receiver: PostHogReceiver) -> None:
    receiver.fault, receiver.delay = "slow", 0.02
    destination = project(receiver, max_queue_size=20, flush_at=5, timeout=5)
    uuids = ask(client, 100, destination)
    destination.flush()
    assert Counter(uuids_of(receiver)) == Counter(uuids)


Break = Callable[[PostHogReceiver], Any]
OUTAGES: dict[str, Break] = {
    "refuse": lambda r: r.stop(),
    "reset": lambda r: setattr(r, "fault", "reset"),
    "hang": lambda r: setattr(r, "fault", "hang"),
    "500": lambda r: setattr(r, "status", 500),
    "503": lambda r: setattr(r, "status", 503),
    "429": lambda r: (setattr(r, "status", 429), setattr(r, "headers", {"Retry-After": "1"})),
}


def heal(receiver: PostHogReceiver) -> None:
    if receiver._server is None:
        receiver.start()
    receiver.fault, receiver.status, receiver.headers = None, 200, {}


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
@pytest.mark.parametrize("outage", list(OUTAGES))
def test_everything_arrives_once_posthog_is_back(
    client: Any, receiver: PostHogReceiver, outage: str, sync_mode: bool
) -> None:
    destination = project(receiver, sync_mode=sync_mode, flush_interval=0.1)
    first = ask(client, 5, destination)
    assert posthog_llm.flush(10)
    OUTAGES[outage](receiver)
    during = ask(client, 25, destination)
    assert not posthog_llm.flush(1.5)
    assert posthog_llm.stats().oldest_age is not None
    heal(receiver)
    assert posthog_llm.flush(20)
    assert Counter(uuids_of(receiver)) == Counter(first + during)
    stats = posthog_llm.stats()
    assert (stats.captured, stats.delivered, stats.dropped) == (30, 30, {})
    assert (stats.queue_bytes, stats.oldest_age) == (0, None)


def test_answer_that_never_ends_costs_repeats_of_one_uuid(
    client: Any, receiver: PostHogReceiver
) -> None:
    """Whether PostHog took such a batch cannot be known; sent again it has the same uuids."""
    receiver.fault = "half_open"
    uuids = ask(client, 3, project(receiver, flush_interval=0.1))
    receiver.wait_for(3)
    heal(receiver)
    assert posthog_llm.flush(20)
    assert set(uuids_of(receiver)) == set(uuids)
    assert posthog_llm.stats().delivered == 3


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
def test_refusal_for_good_is_counted_and_captured_once(
    client: Any, receiver: PostHogReceiver, sync_mode: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[tuple[str, str]] = []
    posthog_llm.configure(on_drop=lambda uuid, reason: lost.append((uuid, reason)))
    receiver.status = 401
    with caplog.at_level(logging.WARNING, "posthog_llm"):
        uuids = ask(client, 3, project(receiver, sync_mode=sync_mode, flush_interval=0.1))
        assert posthog_llm.flush(10)
        time.sleep(1.2)  # the line comes with the next look, once a second
    assert sorted(lost) == sorted((uuid, "refused_401") for uuid in uuids)
    assert posthog_llm.stats().dropped == {"refused_401": 3}
    lines = [r.getMessage() for r in caplog.records if r.name == "posthog_llm"]
    assert len(lines) == 1
    assert "events were lost (refused_401: " in lines[0]


@pytest.mark.faulty
def test_on_drop_that_raises_is_ours_to_bear(client: Any, receiver: PostHogReceiver) -> None:
    def broken(uuid: str, reason: str) -> None:
        raise RuntimeError

    posthog_llm.configure(on_drop=broken)
    receiver.status = 400
    ask(client, 2, project(receiver, flush_interval=0.1))
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().dropped == {"refused_400": 2}


def test_what_the_users_before_send_drops_is_counted(
    client: Any, receiver: PostHogReceiver
) -> None:
    ask(client, 2, project(receiver, before_send=lambda event: None))
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().dropped == {"declined": 2}


@pytest.mark.skipif(not HAS_AI_LANE, reason="this posthog client does not tell the new uuid")
def test_uuid_that_before_send_changes_is_followed(client: Any, receiver: PostHogReceiver) -> None:
    def renamed(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "uuid": "0" * 8 + event["uuid"][8:]}

    uuids = ask(client, 3, project(receiver, before_send=renamed))
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().delivered == 3
    assert uuids_of(receiver) == ["0" * 8 + uuid[8:] for uuid in uuids]


@pytest.mark.skipif(not HAS_AI_LANE, reason="this posthog client does not tell the new uuid")
def test_no_receipt_comes_too_early(receiver: PostHogReceiver) -> None:
    """The client may have sent an event before its `capture` says under which uuid."""
    there: list[str] = []

    class Late(Posthog):
        def capture(self, *args: Any, **kwargs: Any) -> Any:
            uuid = super().capture(*args, **kwargs)
            there.append(receiver.wait_for(len(there) + 1)[-1]["uuid"])
            return uuid

    def renamed(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "uuid": "0" * 8 + event["uuid"][8:]}

    destination = Late("phc", host=receiver.url, flush_interval=0.01, before_send=renamed)
    found = [posthog_llm.capture_generation(model="m", posthog_client=destination) for _ in "abc"]
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().delivered == 3
    assert there == ["0" * 8 + uuid[8:] for uuid in found]


def test_a_before_send_that_blocks_delays_no_other(receiver: PostHogReceiver) -> None:
    blocked, goes_on = threading.Event(), threading.Event()

    def blocking(event: dict[str, Any]) -> dict[str, Any]:
        blocked.set()
        assert goes_on.wait(60)
        return event

    class Other:
        def __init__(self) -> None:
            self.uuids: queue.SimpleQueue[str] = queue.SimpleQueue()

        def capture(self, uuid: str, **_: Any) -> None:
            self.uuids.put(uuid)

    slow = project(receiver, "phc_slow", before_send=blocking, flush_interval=0.1)
    fast, other = project(receiver, "phc_fast", flush_interval=0.1), Other()
    try:
        posthog_llm.capture_generation(model="m", posthog_client=slow)
        assert blocked.wait(20)
        found = posthog_llm.capture_generation(model="m", posthog_client=other)
        assert other.uuids.get(timeout=20) == found
        posthog_llm.capture_generation(model="m", posthog_client=fast)
        receiver.wait_for(1)
        assert not posthog_llm.flush(0.1)
    finally:
        goes_on.set()
    assert posthog_llm.flush(20)
    assert posthog_llm.stats().delivered == len(receiver.events) + 1 == 3


def test_a_before_send_may_flush(receiver: PostHogReceiver) -> None:
    """It cannot wait for the event that it has in hand."""
    answers: list[Any] = []

    def flushing(event: dict[str, Any]) -> dict[str, Any]:
        answers.extend((posthog_llm.flush(60), destination.flush()))
        return event

    destination = project(receiver, before_send=flushing, flush_interval=0.1)
    posthog_llm.capture_generation(model="m", posthog_client=destination)
    receiver.wait_for(1)
    assert posthog_llm.flush(20)
    assert answers == [False, None]


# -- flush and shutdown --------------------------------------------------------------------


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
@pytest.mark.undelivered
def test_flush_returns_in_time_when_posthog_hangs(
    client: Any, receiver: PostHogReceiver, sync_mode: bool
) -> None:
    receiver.fault = "hang"
    ask(client, 2, project(receiver, sync_mode=sync_mode, timeout=30))
    start = time.monotonic()
    assert not posthog_llm.flush(0.3)
    assert not posthog_llm.shutdown(0.3)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("by", ["redactor", "filter"])
def test_shutdown_returns_in_time_when_the_programs_own_code_hangs(
    client: Any, sink: MemorySink, by: str
) -> None:
    """Events that are unread then are not lost: the next delivery takes them."""
    free = threading.Event()

    def hang(value: Any) -> Any:
        free.wait(60)
        return value

    posthog_llm.configure(**{"redact" if by == "redactor" else "before_capture": hang})
    try:
        ask(client, 3, sink)
        start = time.monotonic()
        assert not posthog_llm.shutdown(0.5)
        took = time.monotonic() - start
    finally:
        free.set()
        posthog_llm.configure(redact=None, before_capture=None)
    assert took < 5
    assert posthog_llm.flush(10)
    assert len(sink.events) == 3


def test_calls_after_shutdown_are_captured(client: Any, receiver: PostHogReceiver) -> None:
    destination = project(receiver)
    uuids = ask(client, 1, destination)
    assert posthog_llm.shutdown(10)
    assert not any(thread.name == "posthog-llm" for thread in threading.enumerate())
    uuids += ask(client, 1, destination)
    assert posthog_llm.flush(10)
    assert uuids_of(receiver) == uuids


def test_calls_after_the_clients_own_shutdown_are_captured(
    client: Any, receiver: PostHogReceiver
) -> None:
    destination = project(receiver)
    uuids = ask(client, 1, destination)
    destination.shutdown()
    uuids += ask(client, 1, destination)
    assert posthog_llm.flush(10)
    assert uuids_of(receiver) == uuids


@pytest.mark.parametrize("method", ["flush", "join", "shutdown"])
def test_users_own_habits_deliver(client: Any, receiver: PostHogReceiver, method: str) -> None:
    destination = project(receiver)
    uuids = ask(client, 3, destination)
    getattr(destination, method)()
    assert uuids_of(receiver) == uuids


def test_flush_has_nothing_to_do() -> None:
    assert posthog_llm.flush(0.5)
    assert posthog_llm.stats() == posthog_llm.Stats()
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        posthog_llm.flush(-1)


# -- destinations --------------------------------------------------------------------------


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
def test_dead_destination_delays_no_other(
    client: Any, receiver: PostHogReceiver, sync_mode: bool
) -> None:
    with PostHogReceiver() as dead:
        dead.fault = "hang"
        hanging = project(dead, sync_mode=sync_mode, timeout=30)
        ask(client, 40, hanging)
        uuids = ask(client, 10, living := project(receiver, sync_mode=sync_mode))
        living.flush()
        assert uuids_of(receiver) == uuids
        reset(0)


def test_blocking_object_delays_no_other(client: Any, sink: MemorySink) -> None:
    class Blocking:
        release = threading.Event()

        def capture(self, **arguments: Any) -> None:
            self.release.wait(30)

    ask(client, 5, Blocking())
    ask(client, 1, sink)
    worker.deliver_for(sink, 10)
    assert len(sink._events) == 1
    Blocking.release.set()
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().delivered == 6


@pytest.mark.once  # the senders are ours alone
def test_hundreds_of_tenants_share_a_few_threads(client: Any, receiver: PostHogReceiver) -> None:
    before, most = threading.active_count(), 0
    others = set(threading.enumerate())
    for number in range(300):
        tenant = posthog_llm.Project(f"phc_{number}", host=receiver.url)
        client.chat.completions.create(**ASK, posthog_client=tenant)
        ours = [t for t in threading.enumerate() if t.name == "posthog-llm-send"]
        most = max(most, len(set(ours) - others))
    assert posthog_llm.flush(60)
    assert {event["api_key"] for event in receiver.events} == {f"phc_{n}" for n in range(300)}
    assert len(receiver.events) == 300
    assert 1 <= most <= 32
    assert threading.active_count() - before < 200  # the receiver's own handlers included


def test_destination_of_call_context_and_client(
    provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    def tenant(name: str) -> posthog_llm.Project:
        return posthog_llm.Project(name, host=receiver.url)

    client = ours.OpenAI(base_url=provider.base_url, api_key="k", posthog_client=tenant("client"))
    client.chat.completions.create(**ASK)
    with posthog_llm.context(posthog_client=tenant("context")):
        client.chat.completions.create(**ASK)
        client.chat.completions.create(**ASK, posthog_client=tenant("call"))
    assert posthog_llm.flush(10)
    assert Counter(e["api_key"] for e in receiver.events) == Counter(["client", "context", "call"])


# -- size ----------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes", [2, 12])
@pytest.mark.parametrize("lane", ["ai", "404", "413"])
def test_large_prompt_gives_one_event_with_exact_tokens(
    provider: ScriptedProvider, receiver: PostHogReceiver, megabytes: int, lane: str
) -> None:
    receiver.has_ai_lane = lane != "404"
    if lane == "413":
        receiver.largest_event = 960 << 10
    client = ours.OpenAI(base_url=provider.base_url, api_key="k")
    part = "word " * 20_000
    messages = [
        {"role": "system", "content": "Be brief."},
        *({"role": "user", "content": part} for _ in range(megabytes * 10)),
        {"role": "user", "content": "Last words"},
    ]
    destination = project(receiver, timeout=10)
    answer = client.chat.completions.create(
        model="m", messages=messages, posthog_client=destination
    )
    small = ask(client, 1, destination)
    assert posthog_llm.flush(60)
    events = {event["uuid"]: event["properties"] for event in receiver.events}
    assert len(receiver.events) == len(events) == 2
    found = events[posthog_llm.event_id(answer)]
    assert found["$ai_input_tokens"] == answer.usage.prompt_tokens
    assert found["$ai_output_tokens"] == answer.usage.completion_tokens
    first, *_, last = found["$ai_input"]
    assert (first["role"], last["content"]) == ("system", "Last words")
    assert first["content"] == "Be brief."
    whole = HAS_AI_LANE and lane == "ai" and megabytes == 2
    size = len(json.dumps(found))
    assert size > 1 << 20 if whole else size < 8 << 20
    sent = sum(len(message["content"]) for message in messages)
    kept = sum(len(message["content"]) for message in found["$ai_input"])
    assert kept == sent if whole else kept + found["posthog_llm_content_cut_bytes"] >= sent * 0.99
    assert events[small[0]]["$ai_input"] == ASK["messages"]
    assert posthog_llm.stats().trimmed == (not whole)


def test_event_is_made_smaller_until_posthog_takes_it(
    client: Any, receiver: PostHogReceiver
) -> None:
    receiver.largest_event = 20_000
    text = "word " * 20_000
    (large,) = ask(client, 1, destination := project(receiver, flush_interval=0.1), messages=[
        {"role": "user", "content": text}
    ])  # fmt: skip
    small = ask(client, 3, destination)
    assert posthog_llm.flush(30)
    assert Counter(uuids_of(receiver)) == Counter([large, *small])
    assert posthog_llm.stats().trimmed == 1


def test_event_that_no_size_suits_is_counted(client: Any, receiver: PostHogReceiver) -> None:
    receiver.largest_event = 10
    ask(client, 1, project(receiver, flush_interval=0.1))
    assert posthog_llm.flush(30)
    assert posthog_llm.stats().dropped == {"refused_413": 1}


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
def test_posthog_that_finds_everything_too_large_is_left_in_peace(
    client: Any, receiver: PostHogReceiver, sync_mode: bool
) -> None:
    receiver.largest_event = 10
    ask(client, 15, project(receiver, sync_mode=sync_mode, flush_at=100, flush_interval=0.1))
    start = time.monotonic()
    assert posthog_llm.flush(60)
    assert posthog_llm.stats().dropped == {"refused_413": 15}
    assert len(receiver.paths) <= (45 if sync_mode else 8)  # a burst may come in several batches
    assert time.monotonic() - start > 0.4  # half a second between two tries


def test_events_are_sent_in_smaller_batches_before_they_lose_content(
    client: Any, receiver: PostHogReceiver
) -> None:
    """A proxy may bound what comes through at less than the official client puts together."""
    receiver.largest_batch = 60_000
    uuids = ask(client, 100, project(receiver, flush_at=100, flush_interval=0.1))
    assert posthog_llm.flush(30)
    assert Counter(uuids_of(receiver)) == Counter(uuids)
    assert (posthog_llm.stats().trimmed, posthog_llm.stats().dropped) == (0, {})


def test_batch_comes_down_together(client: Any, receiver: PostHogReceiver) -> None:
    receiver.largest_event = 20_000
    messages = [{"role": "user", "content": "word " * 15_000}]
    destination = project(receiver, flush_at=100, flush_interval=0.1)
    uuids = ask(client, 30, destination, messages=messages)
    assert posthog_llm.flush(30)
    assert Counter(uuids_of(receiver)) == Counter(uuids)
    assert posthog_llm.stats().trimmed == 30
    assert len(receiver.paths) < 30  # a burst may come in several batches


PAGE = Reply([b"<html>Please log in</html>"], headers={"content-type": "text/html; charset=utf-8"})


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
@pytest.mark.parametrize(
    "answer",
    [PAGE, Reply(status=302, headers={"location": "/login"})],
    ids=["page", "redirect"],
)
def test_what_a_login_page_answered_waits_for_posthog(
    client: Any,
    receiver: PostHogReceiver,
    answer: Reply,
    sync_mode: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ScriptedProvider() as portal:
        portal.script("/batch/", *[answer] * 20)
        portal.script("/login", *[Reply.json({"status": "Ok"})] * 20)
        destination = Posthog(
            "phc_test", host=portal.url, sync_mode=sync_mode, max_retries=0, flush_interval=0.1
        )
        with caplog.at_level(logging.WARNING, "posthog_llm"):
            uuids = ask(client, 3, destination)
            assert not posthog_llm.flush(1.5)
        assert posthog_llm.stats().delivered == 0
        (line,) = [r.getMessage() for r in caplog.records if r.name == "posthog_llm"]
        what = "a web page" if answer is PAGE else "a redirect"
        assert f"{portal.url} answers with {what}, not as a PostHog" in line
        there = {"location": f"{receiver.url}/batch/"}
        portal._scripts.clear()
        portal.script("/batch/", *[Reply(status=308, headers=there)] * 20)
        assert posthog_llm.flush(20)
    assert Counter(uuids_of(receiver)) == Counter(uuids)
    assert (posthog_llm.stats().delivered, posthog_llm.stats().dropped) == (3, {})


@pytest.mark.skipif(not HAS_V1, reason="this posthog client has the older wire format alone")
def test_page_that_answers_the_newer_wire_format_loses_nothing(client: Any) -> None:
    with ScriptedProvider() as portal:
        portal.script("/i/v1/analytics/events", *[PAGE] * 20)
        destination = Posthog(
            "phc_test", host=portal.url, capture_mode="v1", max_retries=0, flush_interval=0.1
        )
        ask(client, 3, destination)
        assert not posthog_llm.flush(1.5)
        assert (posthog_llm.stats().delivered, posthog_llm.stats().dropped) == (0, {})
        reset()


@pytest.mark.skipif(not HAS_AI_LANE, reason="this posthog client has no AI lane")
def test_full_ai_capture_of_the_client_is_honoured(client: Any, receiver: PostHogReceiver) -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 4000
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]
    ask(client, 1, project(receiver, enable_full_ai_capture=True), messages=messages)
    ask(client, 1, project(receiver), messages=messages)
    assert posthog_llm.flush(10)
    assert sorted(receiver.paths) == ["/batch/", "/i/v0/ai/batch/"]
    shown = {
        event["properties"]["$ai_input"][0]["content"][0]["image_url"]["url"]
        for event in receiver.events
    }
    assert shown == {picture, "[image/png, 72000 bytes]"}


TEXTS = st.text(max_size=300) | st.integers(0, 60_000).map(lambda n: "é" * n)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": TEXTS}),
    max_size=300,
)


@given(
    content=MESSAGES | TEXTS,
    own=st.dictionaries(st.text(max_size=9), TEXTS | st.lists(st.integers(), max_size=900)),
    limit=st.integers(20_000, 200_000),
)
def test_any_event_fits_after_trimming(content: Any, own: dict[str, Any], limit: int) -> None:
    properties = {**own, "$ai_input": content, "$ai_input_tokens": 7}
    event = Event("$ai_generation", "u", "d", None, properties, None)  # type: ignore[arg-type]
    before = json.dumps(properties)
    fitted = trimming.fitted(event, limit)
    assert fitted is not None
    assert len(json.dumps(fitted.properties)) <= limit
    assert fitted.properties["$ai_input_tokens"] == 7
    assert json.dumps(properties) == before
    if fitted is event:
        return
    assert fitted.properties["posthog_llm_content_cut_bytes"] > 0
    kept = fitted.properties.get("$ai_input")
    if isinstance(content, list) and content and kept:
        assert (kept[0]["role"], kept[-1]["role"]) == (content[0]["role"], content[-1]["role"])


# -- the bound -----------------------------------------------------------------------------


def test_oldest_content_goes_first_and_numbers_stay(client: Any, receiver: PostHogReceiver) -> None:
    posthog_llm.configure(queue_bytes=2 << 20)
    receiver.status = 503
    prompt = [{"role": "user", "content": "x" * 100_000}]
    destination = project(receiver, flush_interval=0.1)
    uuids = ask(client, 60, destination, messages=prompt)
    posthog_llm.flush(0.5)
    assert posthog_llm.stats().queue_bytes <= 2 << 20
    heal(receiver)
    assert posthog_llm.flush(30)
    events = {event["uuid"]: event["properties"] for event in receiver.events}
    assert Counter(uuids_of(receiver)) == Counter(uuids)
    assert all(properties["$ai_input_tokens"] for properties in events.values())
    assert "$ai_input" not in events[uuids[0]]
    assert events[uuids[0]]["posthog_llm_content_cut_bytes"] > 100_000
    assert events[uuids[-1]]["$ai_input"] == prompt
    stats = posthog_llm.stats()
    assert stats.delivered == 60
    assert 30 < stats.trimmed < 60


@pytest.mark.once  # what goes first is ours to choose
def test_whole_events_go_last_and_are_counted(client: Any, receiver: PostHogReceiver) -> None:
    posthog_llm.configure(queue_bytes=1 << 20)
    receiver.status = 503
    uuids = ask(client, 600, project(receiver, flush_interval=0.1))
    posthog_llm.flush(0.5)
    heal(receiver)
    assert posthog_llm.flush(30)
    stats = posthog_llm.stats()
    assert stats.dropped["queue_full"] > 50
    assert stats.delivered + stats.dropped["queue_full"] == stats.captured == 600
    assert uuids[-1] in uuids_of(receiver)


def test_calls_that_the_worker_has_not_read_are_bounded(
    client: Any, receiver: PostHogReceiver
) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def block(event: dict[str, Any]) -> dict[str, Any]:
        busy.set()
        go_on.wait(30)
        return event

    posthog_llm.configure(queue_bytes=2 << 20, before_capture=block)
    destination = project(receiver)
    ask(client, 1, destination)
    assert busy.wait(10)
    prompt = [{"role": "user", "content": "x" * 50_000}]
    uuids = ask(client, 60, destination, messages=prompt)
    assert call_queue.bytes <= 2 << 20
    go_on.set()
    assert posthog_llm.flush(30)
    events = {event["uuid"]: event["properties"] for event in receiver.events}
    assert len(events) == 61
    assert 30 < posthog_llm.stats().trimmed < 60
    assert "$ai_input" not in events[uuids[0]]
    assert events[uuids[0]]["$ai_input_tokens"]
    assert events[uuids[0]]["posthog_llm_content_cut_bytes"] > 50_000
    assert events[uuids[-1]]["$ai_input"] == prompt


# -- sampling and filters ------------------------------------------------------------------


def test_sampling_keeps_a_session_whole(client: Any, sink: MemorySink) -> None:
    posthog_llm.configure(sample_rate=0.5)
    for session in range(40):
        for _ in range(3):
            client.chat.completions.create(
                **ASK, posthog_client=sink, posthog_session_id=f"chat-{session}"
            )
    counts = Counter(event.properties["$ai_session_id"] for event in sink.events)
    assert set(counts.values()) == {3}
    assert 8 <= len(counts) <= 32
    assert {event.properties["posthog_llm_sample_rate"] for event in sink.events} == {0.5}
    first = set(counts)
    posthog_llm.configure(sample_rate=0.8)
    for session in first:
        client.chat.completions.create(**ASK, posthog_client=sink, posthog_session_id=session)
    assert len(sink.events) == 3 * len(first) + len(first)  # a higher rate keeps what a lower did


def test_sampling_by_trace_then_by_chance(client: Any, sink: MemorySink) -> None:
    posthog_llm.configure(sample_rate=0.5)
    for trace in range(40):
        with posthog_llm.context(trace_id=f"t{trace}"):
            for _ in range(2):
                client.chat.completions.create(**ASK, posthog_client=sink)
    assert set(Counter(e.properties["$ai_trace_id"] for e in sink.events).values()) == {2}
    posthog_llm.configure(sample_rate=0)
    before = posthog_llm.stats().captured
    answer = client.chat.completions.create(**ASK, posthog_client=sink)
    assert posthog_llm.event_id(answer) is None
    assert posthog_llm.flush(5)
    assert posthog_llm.stats().captured == before


def test_errors_can_be_kept_always(client: Any, sink: MemorySink, provider: Any) -> None:
    posthog_llm.configure(sample_rate=0, keep_errors=True)
    client.chat.completions.create(**ASK, posthog_client=sink)
    provider.script("/chat/completions", Reply.json({"error": {"message": "no"}}, 500))
    with pytest.raises(Exception, match="no"):
        client.chat.completions.create(**ASK, posthog_client=sink)
    (event,) = sink.events
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_sample_rate"] == 1.0


def test_background_response_is_sampled_as_one(
    client: Any, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """By its own id, which the call that starts it cannot know."""
    posthog_llm.configure(sample_rate=0.5)
    for number in range(30):
        body = {"id": f"resp_s{number}", "object": "response", "background": True, "output": []}
        provider.script("/responses", Reply.json({**body, "status": "queued"}))
        done = Reply.json({**body, "status": "completed"})
        provider.script(f"/responses/{body['id']}", done)
        client.responses.create(model="m", input="hi", background=True, posthog_client=sink)
        client.responses.retrieve(body["id"], posthog_client=sink)
    found = {event.properties["posthog_llm_response_id"] for event in sink.events}
    assert found == {f"resp_s{n}" for n in range(30) if sampling.is_kept(0.5, f"resp_s{n}")}
    assert 0 < len(found) < 30


def test_before_capture_has_the_last_word(client: Any, sink: MemorySink) -> None:
    def only_paying(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["properties"].get("plan") == "free":
            return None
        return {**event, "properties": {**event["properties"], "region": "eu"}}

    posthog_llm.configure(before_capture=only_paying)
    for plan in ("free", "team"):
        client.chat.completions.create(
            **ASK, posthog_client=sink, posthog_properties={"plan": plan}
        )
    (event,) = sink.events
    assert (event.properties["plan"], event.properties["region"]) == ("team", "eu")
    assert posthog_llm.stats().dropped == {"before_capture": 1}


@pytest.mark.parametrize("nobody", [None, ""])
def test_before_capture_may_take_a_name_away(client: Any, sink: MemorySink, nobody: Any) -> None:
    posthog_llm.configure(before_capture=lambda event: {**event, "distinct_id": nobody})
    client.chat.completions.create(**ASK, posthog_client=sink, posthog_distinct_id="joe")
    (event,) = sink.events
    assert event.distinct_id == event.properties["$ai_trace_id"]
    assert event.properties["$process_person_profile"] is False


def test_before_capture_may_name_somebody(client: Any, sink: MemorySink) -> None:
    posthog_llm.configure(before_capture=lambda event: {**event, "distinct_id": 42})
    client.chat.completions.create(**ASK, posthog_client=sink, posthog_distinct_id="joe")
    (event,) = sink.events
    assert event.distinct_id == "42"
    assert "$process_person_profile" not in event.properties


@pytest.mark.faulty
@pytest.mark.parametrize("answer", [RuntimeError(), "event", {"event": "x"}])
def test_filter_that_fails_lets_nothing_through(client: Any, sink: MemorySink, answer: Any) -> None:
    def broken(event: dict[str, Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    posthog_llm.configure(before_capture=broken)
    client.chat.completions.create(**ASK, posthog_client=sink)
    assert sink.events == []
    assert posthog_llm.stats().dropped == {"before_capture_failed": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_rate": 1.5}, "sample_rate must be from 0 to 1"),
        ({"sample_rate": "1"}, "sample_rate must be a number, not str"),
        ({"queue_bytes": 10}, "queue_bytes must be an int of at least 1048576"),
        ({"on_drop": 3}, "on_drop must be callable or None, not int"),
        ({"before_capture": "x"}, "before_capture must be callable or None"),
        ({"keep_errors": 1}, "keep_errors must be True or False, not int"),
        ({"spool": 3}, "spool must be a path, a Spool or None, not int"),
    ],
)
def test_misuse_of_configure_raises_at_once(arguments: dict[str, Any], message: str) -> None:
    before = settings.settings()
    with pytest.raises((TypeError, ValueError), match=message):
        posthog_llm.configure(**arguments)
    assert settings.settings() == before


# -- threads and tasks ---------------------------------------------------------------------


def test_threads_are_captured_exactly(client: Any, receiver: PostHogReceiver) -> None:
    destination = project(receiver, timeout=5)

    def work(number: int) -> None:
        with posthog_llm.context(distinct_id=f"user-{number}"):
            for call in range(15):
                client.chat.completions.create(
                    **ASK, posthog_client=destination, posthog_properties={"call": call}
                )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert posthog_llm.flush(60)
    seen = Counter((e["distinct_id"], e["properties"]["call"]) for e in receiver.events)
    assert seen == {(f"user-{n}", call): 1 for n in range(16) for call in range(15)}


def test_tasks_are_captured_exactly(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    async def main() -> None:
        client = ours.AsyncOpenAI(base_url=provider.base_url, api_key="k")
        destination = project(receiver, timeout=5)

        async def work(number: int) -> None:
            with posthog_llm.context(distinct_id=f"user-{number}"):
                for _ in range(5):
                    await client.chat.completions.create(**ASK, posthog_client=destination)

        await asyncio.gather(*(work(number) for number in range(40)))
        await client.close()

    asyncio.run(main())
    assert posthog_llm.flush(30)
    assert Counter(e["distinct_id"] for e in receiver.events) == {f"user-{n}": 5 for n in range(40)}


def test_content_is_all_that_may_be_given_up() -> None:
    assert "$ai_input" in CONTENT
    assert not any("token" in name or "cost" in name or "model" in name for name in CONTENT)
    assert os.environ.get("POSTHOG_LLM_SPOOL") is None
