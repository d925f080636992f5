"""Sampling keeps a trace or leaves it out: as one, in every task, thread and service."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import posthog_llm
from posthog_llm import (
    configure,
    context,
    continue_trace,
    propagate_context,
    span,
    trace,
    trace_headers,
)
from posthog_llm._observe.call_queue import call_queue
from posthog_llm._roots import number_of
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import QUESTION, SyncDriver, use_callbacks


@pytest.fixture(autouse=True)
def all_again() -> Iterator[None]:
    yield
    configure(sample_rate=1.0, keep_errors=False)


def pieces(sink: MemorySink) -> Counter[Any]:
    """Count the events of each trace."""
    return Counter(event.properties["$ai_trace_id"] for event in sink.events)


def within_bounds(kept: int, drawn: int, rate: float) -> bool:
    """Whether a share is one that chance gives, but for one time in 10 million or so."""
    return abs(kept - drawn * rate) <= 5.5 * math.sqrt(drawn * rate * (1 - rate))


@pytest.mark.once  # LiteLLM has no part in it
@pytest.mark.parametrize(("rate", "count"), [(0.01, 4_000), (0.3, 1_000), (0.9, 1_000)])
def test_thousands_of_traces_are_whole_or_absent(sink: MemorySink, rate: float, count: int) -> None:
    """Half of them in a session, whose traces are kept or left out together."""
    configure(sample_rate=rate)
    chance, sessions = random.Random(7), defaultdict[str, set[str]](set)
    with context(posthog_client=sink):
        for number in range(count):
            session = f"session-{chance.randrange(count // 4)}" if number % 2 else None
            with trace("t", session_id=session) as t, span("s"):
                posthog_llm.capture_generation(model="m", session_id="of the call alone")
                with context(session_id="of some of it"), span("inner"):
                    pass
            sessions[session or t.trace_id].add(t.trace_id)
    kept = pieces(sink)
    assert set(kept.values()) == {4}
    whole = [traces for traces in sessions.values() if traces <= kept.keys()]
    assert sum(map(len, whole)) == len(kept)
    assert within_bounds(len(whole), len(sessions), rate)


@pytest.mark.once  # LiteLLM has no part in it
@pytest.mark.parametrize("where", ["client", "call", "context"])
def test_a_session_named_inside_splits_no_trace(
    provider: ScriptedProvider, sink: MemorySink, where: str
) -> None:
    driver = SyncDriver(provider)
    configure(sample_rate=0.5)
    client = driver.ours(posthog_client=sink)
    for number in range(60):
        named: Any = {"posthog_session_id": f"chat-{number}"}
        with trace("t"):
            if where == "client":
                driver.ask(client.with_options(**named))
            elif where == "call":
                driver.ask(client, **named)
            else:
                with context(session_id=f"chat-{number}"):
                    driver.ask(client)
    found = pieces(sink)
    assert set(found.values()) == {2}
    assert within_bounds(len(found), 60, 0.5)


@pytest.mark.once  # LiteLLM has no part in it
def test_threads_streams_and_batches_of_one_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    driver = SyncDriver(provider)
    configure(sample_rate=0.5)
    client = driver.ours(posthog_client=sink, posthog_session_id="chat")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(30):
            with trace("t"):
                asks = [pool.submit(propagate_context(driver.ask), client) for _ in range(3)]
                driver.items(driver.ask(client, stream=True))
                [ask.result() for ask in asks]
    assert set(pieces(sink).values()) == {5}


def test_a_background_response_is_kept_with_its_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    configure(sample_rate=0.5)
    client = SyncDriver(provider).ours(posthog_client=sink)
    for number in range(40):
        body = {"id": f"resp_{number}", "object": "response", "background": True, "output": []}
        provider.script("/responses", Reply.json({**body, "status": "queued"}))
        provider.script(f"/responses/{body['id']}", Reply.json({**body, "status": "completed"}))
        with trace("t"):
            client.responses.create(model="m", input="hi", background=True)
            client.responses.retrieve(body["id"])
    found = pieces(sink)
    assert set(found.values()) == {2}
    assert within_bounds(len(found), 40, 0.5)


# -- outside of any trace --------------------------------------------------------------------


@pytest.mark.once  # LiteLLM has no part in it
@pytest.mark.parametrize("where", ["session_id", "trace", "header"])
def test_what_a_request_tells_openrouter_decides(
    provider: ScriptedProvider, sink: MemorySink, where: str
) -> None:
    """It is read in the worker: all names must be known before a call is left out."""
    driver = SyncDriver(provider)
    configure(sample_rate=0.5)
    client = driver.ours(posthog_client=sink, posthog_openrouter=True)
    for number in range(40):
        name = f"name-{number}"
        more: dict[str, Any] = {
            "session_id": {"extra_body": {"session_id": name}},
            "trace": {"extra_body": {"trace": {"trace_id": name}}},
            "header": {"extra_headers": {"x-session-id": name}},
        }[where]
        for turn in range(3):
            driver.ask(client, **more, posthog_properties={"name": name, "turn": turn})
    properties = Counter(event.properties["name"] for event in sink.events)
    assert set(properties.values()) == {3}
    assert set(properties) == {f"name-{n}" for n in range(40) if number_of(f"name-{n}") < 0.5}


def test_what_a_request_tells_openrouter_splits_no_trace(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    driver = SyncDriver(provider)
    configure(sample_rate=0.5)
    client = driver.ours(posthog_client=sink, posthog_openrouter=True)
    for number in range(40):
        with trace("t"):
            driver.ask(client, extra_body={"session_id": f"chat-{number}"})
    assert set(pieces(sink).values()) == {2}


def test_a_call_that_names_another_trace_is_decided_by_that(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    driver = SyncDriver(provider)
    configure(sample_rate=0.5)
    client = driver.ours(posthog_client=sink)
    with trace("around"):
        for number in range(40):
            driver.ask(client, posthog_trace_id=f"t{number}")
    properties = {name for name in pieces(sink) if name.startswith("t")}
    assert properties == {f"t{n}" for n in range(40) if number_of(f"t{n}") < 0.5}


# -- between services ------------------------------------------------------------------------


def test_services_agree(sink: MemorySink) -> None:
    """Also where one of them alone knows the session, and where their rates differ."""
    kept: list[set[str]] = []
    sent = []
    with context(posthog_client=sink):
        configure(sample_rate=0.5)
        for number in range(400):
            with trace("t", trace_id=f"t{number}"), context(session_id=f"chat-{number}"):
                sent.append(trace_headers())
        kept.append(set(pieces(sink)))
        for rate in (0.5, 0.2, 0.8):
            sink._events.clear()
            configure(sample_rate=rate)
            for one in sent:
                with continue_trace(one), span("there"):
                    assert (
                        trace_headers()["x-posthog-llm-sampling"] == one["x-posthog-llm-sampling"]
                    )
            kept.append(set(pieces(sink)))
    here, same, fewer, more = kept
    assert here == same
    assert fewer < here < more
    assert within_bounds(len(here), 400, 0.5)


@pytest.mark.parametrize(
    "odd", ["1.0", "-0.1", "0.5e1", "nan", "0.\u0665", "0.", "0.1234567891", " "]
)
def test_a_number_that_is_none_is_absent(odd: str) -> None:
    with continue_trace({"x-posthog-llm-trace-id": "t", "x-posthog-llm-sampling": odd}):
        assert trace_headers()["x-posthog-llm-sampling"] == f"{number_of('t'):.9f}"


def test_numbers_are_spread_evenly() -> None:
    drawn = sorted(number_of(str(n)) for n in range(20_000))
    assert 0 <= drawn[0] <= drawn[-1] < 1
    assert max(abs(number - at / 20_000) for at, number in enumerate(drawn)) < 0.015


# -- LiteLLM ---------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [True, False])
def test_what_a_request_tells_litellm(
    provider: ScriptedProvider, sink: MemorySink, around: bool
) -> None:
    """Its session splits no trace, whose steps go where LiteLLM's calls go; alone, it decides."""
    litellm = pytest.importorskip("litellm", reason="LiteLLM has an environment of its own")
    from posthog_llm.litellm import PostHogLogger

    configure(sample_rate=0.5)
    use_callbacks(litellm, [PostHogLogger(posthog_client=sink)])
    named: Any = {"api_base": provider.base_url, "api_key": "k", **QUESTION, "model": "openai/m"}
    for number in range(20):
        named["metadata"] = {"session_id": f"chat-{number}"}
        if not around:
            litellm.completion(**named)
            litellm.completion(**named)
        else:
            with trace("t"):
                litellm.completion(**named)
    until = time.monotonic() + 20
    while any(getattr(call, "is_open", False) for call in call_queue.unended.now()):
        assert time.monotonic() < until, "LiteLLM calls back in threads of its own"
        time.sleep(0.01)
    key = "$ai_trace_id" if around else "$ai_session_id"
    found = Counter(event.properties[key] for event in sink.events)
    assert set(found.values()) == {2}
    assert 0 < len(found) < 20
    if not around:
        assert set(found) == {f"chat-{n}" for n in range(20) if number_of(f"chat-{n}") < 0.5}


# -- what is said of a trace, and a rate that changes ----------------------------------------


@pytest.mark.parametrize("session", [True, False])
def test_feedback_after_the_block_is_kept_with_its_trace(sink: MemorySink, session: bool) -> None:
    configure(sample_rate=0.5)
    with context(posthog_client=sink):
        for number in range(200):
            with trace("t", session_id=f"chat-{number}" if session else None) as t:
                pass
            posthog_llm.capture_feedback(t.trace_id, "Just what I needed")
            posthog_llm.capture_metric(t.trace_id, "helpfulness", 1)
    found = pieces(sink)
    assert set(found.values()) == {3}
    assert within_bounds(len(found), 200, 0.5)
    assert {event.properties["posthog_llm_sample_rate"] for event in sink.events} == {0.5}


def test_feedback_on_a_trace_that_nobody_here_knows(sink: MemorySink) -> None:
    """Its session decides, as it did elsewhere; without one it is kept."""
    configure(sample_rate=0.5)
    with context(posthog_client=sink):
        for number in range(40):
            named = {"session_id": f"chat-{number}"}
            posthog_llm.capture_feedback(f"named {number}", "Good", **named)  # type: ignore[arg-type]
            posthog_llm.capture_feedback(f"unknown {number}", "Good")
        with context(capture=False):
            posthog_llm.capture_feedback("unwanted", "Good")
    kept = {f"named {n}" for n in range(40) if number_of(f"chat-{n}") < 0.5}
    assert set(pieces(sink)) == kept | {f"unknown {n}" for n in range(40)}


@pytest.mark.once  # LiteLLM has no part in it
def test_a_bounded_number_of_draws_is_remembered(sink: MemorySink) -> None:
    configure(sample_rate=0)
    with context(posthog_client=sink):
        for number in range(10_100):
            with trace("t", trace_id=f"of many {number}"):
                pass
        for number in (0, 99, 100, 10_099):
            posthog_llm.capture_feedback(f"of many {number}", "Good")
    assert set(pieces(sink)) == {"of many 0", "of many 99"}


@pytest.mark.parametrize(("first", "then", "kept"), [(1, 0, 3), (0, 1, 0)])
def test_a_rate_that_changes_inside_a_trace(
    sink: MemorySink, first: float, then: float, kept: int
) -> None:
    """The trace is whole nevertheless; the next one has the new rate."""
    configure(sample_rate=first)
    with context(posthog_client=sink):
        with trace("t", trace_id="T"):
            with span("before"):
                pass
            configure(sample_rate=then)
            with span("after"):
                pass
        with trace("next", trace_id="N"):
            pass
    assert pieces(sink) == Counter({name: n for name, n in (("T", kept), ("N", then)) if n})
