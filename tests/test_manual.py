"""Calls that no wrapper sees, feedback and scores, told by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm import (
    capture_embedding,
    capture_feedback,
    capture_generation,
    capture_metric,
    context,
    generation,
    span,
    trace,
)
from posthog_llm.testing import MemorySink

from .driving import failure_of, saying


@pytest.fixture
def here(sink: MemorySink) -> Iterator[MemorySink]:
    with context(posthog_client=sink):
        yield sink


def test_whole_generation(here: MemorySink) -> None:
    event_id = capture_generation(
        model="mixtral",
        provider="my-cluster",
        input="hi",
        output=["hello", {"role": "assistant", "content": "there"}],
        tools=[{"name": "f"}],
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=80,
        reasoning_tokens=20,
        cache_tokens_excluded=False,
        latency=1.5,
        time_to_first_token=0.25,
        http_status=200,
        base_url="https://user:secret@llm.example/v1?key=1",
        stop_reason="stop",
        parameters={"temperature": 0.1, "password": "x"},
        input_cost_usd=0.001,
        output_cost_usd=0.002,
        distinct_id="user-7",
        trace_id="t",
        session_id="s",
        span_name="answer",
        groups={"company": "a"},
        properties={"plan": "gold"},
    )
    (event,) = here.wait_for(1)
    assert (event.event, event.uuid, event.distinct_id) == ("$ai_generation", event_id, "user-7")
    assert event.groups == {"company": "a"}
    assert event.timestamp is not None
    assert 1 < time.time() - event.timestamp.timestamp() < 10
    found = dict(event.properties)
    assert found.pop("$ai_lib")
    assert found.pop("$ai_lib_version")
    assert found == {
        "$ai_trace_id": "t",
        "$ai_span_id": event_id,
        "$ai_session_id": "s",
        "$ai_span_name": "answer",
        "$ai_model": "mixtral",
        "$ai_provider": "my-cluster",
        "posthog_llm_requested_model": "mixtral",
        "$ai_model_parameters": {"temperature": 0.1},
        "$ai_base_url": "https://llm.example/v1",
        "$ai_http_status": 200,
        "$ai_stream": True,
        "$ai_latency": 1.5,
        "$ai_time_to_first_token": 0.25,
        "$ai_stop_reason": "stop",
        "$ai_input": [{"role": "user", "content": "hi"}],
        "$ai_output_choices": [*saying("hello"), *saying("there")],
        "$ai_tools": [{"name": "f"}],
        "$ai_input_tokens": 100,
        "$ai_output_tokens": 50,
        "$ai_cache_read_input_tokens": 80,
        "$ai_reasoning_tokens": 20,
        "$ai_cache_reporting_exclusive": False,
        "$ai_input_cost_usd": 0.001,
        "$ai_output_cost_usd": 0.002,
        "$ai_total_cost_usd": 0.003,
        "$ai_cost_passthrough": True,
        "plan": "gold",
        "posthog_llm_endpoint": "manual",
        "posthog_llm_outcome": "ok",
        "posthog_llm_retries": 0,
    }


def test_little_is_enough(here: MemorySink) -> None:
    capture_generation(model="m")
    (event,) = here.wait_for(1)
    found = event.properties
    assert found["$process_person_profile"] is False
    absent = {"$ai_provider", "$ai_input", "$ai_output_choices", "$ai_latency", "$ai_input_tokens"}
    assert not (absent | {"$ai_cache_reporting_exclusive", "$ai_total_cost_usd"}) & found.keys()


def test_embedding(here: MemorySink) -> None:
    capture_embedding(model="e", input=["a", "b"], input_tokens=2, output="ignored")
    (event,) = here.wait_for(1)
    assert event.event == "$ai_embedding"
    assert "$ai_output_choices" not in event.properties


def test_inside_a_trace(here: MemorySink) -> None:
    with trace("t", distinct_id="user-7") as t, span("s") as s:
        capture_generation(model="m")
    found = here.wait_for(3)[0]
    assert found.distinct_id == "user-7"
    assert found.properties["$ai_trace_id"] == t.trace_id
    assert found.properties["$ai_parent_id"] == s.id


def test_timed_block(here: MemorySink) -> None:
    with generation(model="m", provider="p", input="hi") as g:
        time.sleep(0.02)
        g.first_token()
        g.output, g.output_tokens = "hello", 3
    (event,) = here.wait_for(1)
    found = event.properties
    assert event.uuid == g.id
    assert 0.02 <= found["$ai_time_to_first_token"] <= found["$ai_latency"] < 5
    assert found["$ai_output_tokens"] == g.output_tokens == 3
    assert found["$ai_stream"] is True
    assert "$ai_input_tokens" not in found
    assert g.input_tokens is None


def test_timed_block_that_fails(here: MemorySink) -> None:
    async def main() -> None:
        async with generation(model="m"):
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        asyncio.run(main())
    found = here.wait_for(1)[0].properties
    assert found.get("$ai_is_error", False) is True
    assert failure_of(found) == {"type": "ConnectionError", "message": "gone"}


def test_errors(here: MemorySink) -> None:
    capture_generation(model="m", error="over capacity", http_status=529)
    capture_generation(model="m", http_status=500)
    first, second = (event.properties for event in here.wait_for(2))
    assert failure_of(first) == {"type": "Error", "status": 529, "message": "over capacity"}
    assert (first["$ai_http_status"], second["$ai_http_status"]) == (529, 500)
    assert second.get("$ai_is_error", False) is True


def test_privacy_and_capture(here: MemorySink) -> None:
    capture_generation(model="m", input="secret", output="secret", privacy_mode=True)
    with context(capture=False):
        assert capture_generation(model="m", input="secret")
    (event,) = here.wait_for(1)
    assert "secret" not in str(event.properties)


def test_feedback_and_metric(here: MemorySink) -> None:
    feedback = capture_feedback("t", "Just what I needed", distinct_id="user-7")
    metrics = [capture_metric("t", "score", value) for value in (0.9, "good", True)]
    found = here.wait_for(4)
    assert [e.uuid for e in found] == [feedback, *metrics]
    assert found[0].event == "$ai_feedback"
    assert found[0].distinct_id == "user-7"
    assert found[0].properties["$ai_trace_id"] == "t"
    assert found[0].properties["$ai_feedback_text"] == "Just what I needed"
    assert [e.properties["$ai_metric_value"] for e in found[1:]] == [0.9, "good", True]
    assert {e.properties["$ai_metric_name"] for e in found[1:]} == {"score"}
    assert not [n for e in found for n in e.properties if n.endswith(("cost_usd", "_tokens"))]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: capture_generation(), TypeError, "needs a model"),
        (lambda: capture_generation(model="m", tokens=3), TypeError, "'tokens'"),
        (lambda: capture_generation(model="m", input_tokens="3"), TypeError, "input_tokens"),
        (lambda: capture_generation(model="m", input_tokens=True), TypeError, "input_tokens"),
        (lambda: capture_generation(model="m", output_tokens=-1), ValueError, "output_tokens"),
        (lambda: capture_generation(model="m", latency="1"), TypeError, "latency.*seconds"),
        (lambda: capture_generation(model="m", latency=float("nan")), ValueError, "latency"),
        (
            lambda: capture_generation(model="m", total_cost_usd=-0.1),
            ValueError,
            "total_cost_usd.*USD",
        ),
        *(
            (lambda when=when: capture_generation(model="m", timestamp=when), ValueError, words)
            for when, words in {
                time.time() * 1e3: "timestamp.*seconds, not milliseconds",
                time.time() * 1e6: "timestamp.*seconds, not milliseconds",
                time.time() * 1e9: "timestamp.*seconds, not milliseconds",
                time.time() + 200_000: "timestamp.*in the future",
                12_345.6: "timestamp.*before the year 2000.*latency",  # time.perf_counter()
                -1: "timestamp.*-1",
            }.items()
        ),
        (lambda: generation(model="m", timestamp=1.7e12), ValueError, "timestamp.*milliseconds"),
        (lambda: capture_generation(model="m", latency=3e6), ValueError, "latency.*milliseconds"),
        (lambda: capture_generation(model="m", stream="yes"), TypeError, "stream"),
        (lambda: capture_generation(model="m", error=500), TypeError, "error"),
        (lambda: capture_generation(model="m", parameters=[1]), TypeError, "parameters"),
        (lambda: capture_generation(model="m", posthog_client=1), TypeError, "posthog_client"),
        (lambda: capture_embedding(model=""), TypeError, "needs a model"),
        (lambda: generation(), TypeError, "needs a model"),
        (lambda: setattr(generation(model="m"), "colour", 1), TypeError, "'colour'"),
        (lambda: capture_feedback("t", ""), ValueError, "text"),
        (lambda: capture_feedback("t", "x", score=1), TypeError, "'score'"),
        (lambda: capture_feedback(None, "x"), TypeError, "trace_id"),  # type: ignore[arg-type]
        (lambda: capture_metric("t", "m", [1]), TypeError, "value"),  # type: ignore[arg-type]
    ],
)
def test_misuse(here: MemorySink, call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
    here.wait_for(0)


def test_no_such_attribute() -> None:
    with pytest.raises(AttributeError, match="colour"):
        generation(model="m").colour  # noqa: B018


def test_names_are_public() -> None:
    for name in posthog_llm.__all__:
        assert getattr(posthog_llm, name)


HUGE = 10**400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("latency", HUGE), ("timestamp", HUGE), ("total_cost_usd", HUGE)),
        *(("distinct_id", 10**5000), ("http_status", HUGE), ("http_status", 99)),
        ("base_url", "http://[bad"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_values_that_cannot_be_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        capture_generation(model="m", **{name: value})


def test_feedback_and_metrics_need_a_trace() -> None:
    with pytest.raises(ValueError, match="trace_id must not be empty"):
        capture_feedback("", "good")
    with pytest.raises(ValueError, match="trace_id must not be empty"):
        capture_metric("", "score", 1)


def test_generation_is_one_call(here: MemorySink) -> None:
    once = generation(model="m")
    with pytest.raises(RuntimeError, match="inside of"):
        once.first_token()
    with once:
        once.first_token()
    with pytest.raises(RuntimeError, match="make another"), once:
        pass
    (event,) = here.wait_for(1)
    assert event.uuid == once.id
    assert 0 < event.properties["$ai_time_to_first_token"] <= event.properties["$ai_latency"]


def test_none_takes_back_what_was_set(here: MemorySink) -> None:
    with generation(model="m") as g:
        g.output_tokens, g.output = 500, "first try"
        g.output_tokens = g.output = None
        with pytest.raises(TypeError, match="needs a model"):
            g.model = ""
    (event,) = here.wait_for(1)
    assert event.properties["$ai_model"] == "m"
    assert not {"$ai_output_tokens", "$ai_output_choices"} & event.properties.keys()
