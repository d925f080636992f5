"""Prices of the caller's own: `configure(prices=...)`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import posthog
import pytest

import posthog_llm
from posthog_llm import Price, capture_generation, configure, context
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import DRIVERS, Driver

ANSWER: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}
    ],
}
COSTS = ("$ai_total_cost_usd", "$ai_input_cost_usd", "$ai_output_cost_usd", "$ai_request_cost_usd")


@pytest.fixture(autouse=True)
def without_prices() -> Iterator[None]:
    yield
    configure(prices=None)


def found(sink: MemorySink, **given: Any) -> list[Any]:
    """Capture a generation by hand and return its costs."""
    capture_generation(posthog_client=sink, **{"model": "m", **given})
    properties = sink.events[-1].properties
    return [properties.get(name) for name in COSTS]


@pytest.mark.parametrize(
    ("price", "counts", "costs"),
    [
        (Price(input=2, output=8), {}, [1200, 800]),
        (Price(input=2, output=8, cache_read=0.5), {"cache_read_tokens": 400}, [600, 800]),
        (Price(input=2, output=8), {"cache_read_tokens": 400}, [1200, 800]),
        (
            Price(input=2, output=8, cache_read=0.5, cache_write=3),
            {"cache_read_tokens": 400, "cache_write_tokens": 100, "cache_tokens_excluded": True},
            [1200 + 200 + 300, 800],
        ),
        (
            Price(input=2, output=8, cache_write=3, cache_write_1h=4),
            {
                "cache_write_5m_tokens": 100,
                "cache_write_1h_tokens": 50,
                "cache_tokens_excluded": False,
            },
            [450 * 2 + 300 + 200, 800],
        ),
        (
            Price(input=2, output=8, audio_input=10, audio_output=20, image_input=5),
            {"audio_input_tokens": 100, "audio_output_tokens": 40, "image_input_tokens": 10},
            [490 * 2 + 1000 + 50, 60 * 8 + 800],
        ),
        (
            Price(input=2, output=8),
            {"model": "gemini-2.5-pro", "reasoning_tokens": 10, "total_tokens": 710},
            [1200, 880],
        ),
        (
            Price(input=2, output=8),
            {"model": "gemini-2.5-pro", "reasoning_tokens": 10},
            [1200, 800],
        ),
        (Price(input=2, output=8), {"reasoning_tokens": 10}, [1200, 800]),
        (Price(input=0), {}, [0, 0]),
    ],
)
def test_a_price_makes_the_cost(
    sink: MemorySink, price: Price, counts: dict[str, Any], costs: list[float]
) -> None:
    configure(prices={"m": price, "gemini-2.5-pro": price})
    total, into, out, other = found(sink, **{"input_tokens": 600, "output_tokens": 100, **counts})
    assert [into, out] == pytest.approx([cost / 1e6 for cost in costs])
    assert total == pytest.approx(sum(costs) / 1e6)
    assert other is None


def test_a_cost_captured_by_hand_and_unknown_counts_and_models(sink: MemorySink) -> None:
    configure(prices={"m": Price(input=2, output=8)})
    assert found(sink, total_cost_usd=0.5, input_tokens=1, output_tokens=1)[0] == 0.5
    nothing = [None] * 4
    assert found(sink) == nothing
    # Of an answer that broke off the input is known, and its list price is not the caller's.
    assert found(sink, input_tokens=5) == [1e-05, 1e-05, 0, None]
    assert found(sink, model="other", input_tokens=5, output_tokens=5) == nothing


CACHED_SOUND = {
    "prompt_tokens_details": {
        "audio_tokens": 700,
        "text_tokens": 300,
        "cached_tokens": 800,
        "cached_tokens_details": {"audio_tokens": 600, "text_tokens": 200},
    }
}
UNTOLD = {"prompt_tokens_details": {"audio_tokens": 700, "text_tokens": 300, "cached_tokens": 800}}
CACHED_PICTURES = {
    "prompt_tokens_details": {
        "image_tokens": 700,
        "text_tokens": 300,
        "cached_tokens": 800,
        "cached_tokens_details": {"cached_image_tokens": 600, "cached_text_tokens": 200},
    }
}


@pytest.mark.parametrize(
    ("details", "dollars"),
    [
        (CACHED_SOUND, 100 * 4 + 100 * 32 + 800 * 0.4),
        (CACHED_PICTURES, 100 * 4 + 100 * 8 + 800 * 0.4),
        (UNTOLD, 200 * 32 + 800 * 0.4),
    ],
    ids=["sound", "pictures", "of which kind is not told"],
)
def test_what_was_cached_is_charged_once(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, details: Any, dollars: float
) -> None:
    price = Price(input=4, output=0, cache_read=0.4, audio_input=32, image_input=8)
    configure(prices={"m": price})
    usage = {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001, **details}
    provider.script("/chat/completions", Reply.json({**ANSWER, "usage": usage}))
    drive.ask(drive.ours(posthog_client=sink))
    properties = sink.wait_for(1)[0].properties
    assert properties["$ai_input_cost_usd"] == pytest.approx(dollars / 1e6)


def test_counts_of_the_caller_are_charged(sink: MemorySink) -> None:
    configure(prices={"m": Price(input=2, output=8)})
    costs = found(sink, input_tokens=600, output_tokens=100, properties={"$ai_output_tokens": 200})
    assert costs == pytest.approx([0.0028, 0.0012, 0.0016, None])
    assert sink.events[0].properties["$ai_tokens_source"] == "passthrough"


@pytest.mark.parametrize("given", ["by the call", "by posthog's context"])
def test_a_cost_of_the_callers_stands_alone(drive: Driver, sink: MemorySink, given: str) -> None:
    configure(prices={"m": Price(input=1, output=1)})
    own = {"$ai_total_cost_usd": 0.9}
    client = drive.ours(posthog_client=sink)
    if given == "by the call":
        drive.ask(client, posthog_properties=own)
    else:
        with posthog.new_context():
            posthog.tag("$ai_total_cost_usd", 0.9)
            drive.ask(client)
    properties = sink.wait_for(1)[0].properties
    assert [properties.get(name) for name in COSTS] == [0.9, None, None, None]
    assert properties["$ai_cost_passthrough"] is True


@pytest.mark.parametrize("streamed", [False, True])
def test_a_price_wins_over_what_a_gateway_reports(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, streamed: bool
) -> None:
    """The requested name is looked up first; a price of one call wins over all."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500, "cost": 9.0}
    base = {"id": "c", "created": 1, "model": "served", "usage": usage}
    said = {"role": "assistant", "content": "Hello."}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    plain = {**base, "object": "chat.completion", "choices": [{**choice, "message": said}]}
    chunk = {**base, "object": "chat.completion.chunk", "choices": [{**choice, "delta": said}]}
    reply = Reply.stream([chunk]) if streamed else Reply.json(plain)
    provider.script("/chat/completions", reply)
    configure(prices={"m": Price(input=1, output=2, request=0.5), "served": Price(input=7)})
    client = drive.ours(posthog_client=sink)
    answer = drive.ask(client, stream=streamed)
    if streamed:
        drive.items(answer)
    properties = sink.wait_for(1)[0].properties
    assert [properties.get(name) for name in COSTS] == pytest.approx([0.502, 0.001, 0.001, 0.5])
    assert properties["$ai_cost_passthrough"] is True
    own = {"$ai_input_token_price": 1e-6, "$ai_output_token_price": 2e-6}
    drive.ask(client, posthog_properties=own)
    assert not set(COSTS[:3]) & sink.wait_for(2)[1].properties.keys()


@pytest.mark.parametrize("reported", [{}, {"cost": 0.005125}])
@pytest.mark.parametrize("given", ["prices", "prices of one call"])
def test_reasoning_inside_the_output_is_charged_once(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, reported: Any, given: str
) -> None:
    """PostHog adds the reasoning of these models to the output, unless it gets no count of it."""
    usage = {"prompt_tokens": 100, "completion_tokens": 500, "total_tokens": 600, **reported}
    usage["completion_tokens_details"] = {"reasoning_tokens": 400}
    provider.script("/chat/completions", Reply.json({**ANSWER, "usage": usage}))
    model = "google/gemini-2.5-pro"
    more: dict[str, Any] = {}
    if given == "prices":
        configure(prices={model: Price(input=1.25, output=10)})
    else:
        prices = {"$ai_input_token_price": 1.25e-6, "$ai_output_token_price": 10e-6}
        more = {"posthog_properties": prices}
    client = drive.ours(posthog_client=sink, posthog_provider_override="openrouter")
    drive.ask(client, model=model, **more)
    properties = sink.wait_for(1)[0].properties
    assert properties["$ai_output_tokens"] == 500
    assert "$ai_reasoning_tokens" not in properties
    assert properties["posthog_llm_reasoning_tokens"] == 400
    if given == "prices":
        costs = [properties.get(name) for name in COSTS]
        assert costs == pytest.approx([0.005125, 0.000125, 0.005, None])


def test_file_searches_cost_the_same_beside_a_reported_cost(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """The cost of a gateway includes them; a price that replaces it must, too."""
    configure(prices={"m": Price(input=1, output=2)})
    usage = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500, "cost": 9.0}
    output = [{"type": "file_search_call", "id": "fs_1", "status": "completed"}]
    body = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    provider.script("/responses", Reply.json({**body, "output": output, "usage": usage}))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.responses.create(model="m", input="hi"))
    properties = sink.wait_for(1)[0].properties
    assert [properties.get(name) for name in COSTS] == pytest.approx([0.0045, 0.001, 0.001, 0.0025])


ADVISED = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "iterations": [
        {"type": "message", "input_tokens": 1000, "output_tokens": 100},
        {"type": "advisor_message", "model": "adviser", "input_tokens": 2000, "output_tokens": 400},
    ],
}


@pytest.mark.parametrize("prices", ["none", "configured", "of the call"])
@pytest.mark.parametrize("kind", ["Anthropic sync", "Anthropic async"])
def test_a_helper_behind_a_gateway_is_charged_once(
    kind: str, sink: MemorySink, provider: ScriptedProvider, prices: str
) -> None:
    """The cost of the gateway includes the helper; a price that replaces it does not."""
    body = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    reply = Reply.json({**body, "stop_reason": "end_turn", "usage": ADVISED})
    reply.headers.update({"x-litellm-call-id": "1", "x-litellm-response-cost": "0.0245"})
    provider.script("/messages", reply)
    configure(prices={"adviser": Price(input=5, output=25)})
    own: dict[str, Any] = {}
    if prices == "configured":
        configure(prices={"m": Price(input=3, output=15), "adviser": Price(input=5, output=25)})
    elif prices == "of the call":
        own = {"$ai_input_token_price": 3e-6, "$ai_output_token_price": 15e-6}
    driver = DRIVERS[kind](provider)
    driver.ask(driver.ours(posthog_client=sink), posthog_properties=own)
    events = sink.wait_for(1 if prices == "none" else 2)
    driver.close()
    costs = [event.properties.get("$ai_total_cost_usd") for event in events]
    charged = {"none": [0.0245], "configured": [0.0045, 0.02], "of the call": [None, 0.02]}
    assert costs == pytest.approx(charged[prices])


def test_speech_and_transcription(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    configure(
        prices={"tts": Price(input=0, characters=15), "whisper": Price(input=0, audio_minute=0.006)}
    )
    provider.script("/audio/speech", Reply([b"sound"], headers={"content-type": "audio/mpeg"}))
    heard = {"text": "hi", "usage": {"type": "duration", "seconds": 90}}
    provider.script("/audio/transcriptions", Reply.json(heard))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.audio.speech.create(model="tts", voice="alloy", input="x" * 1000))
    drive.call(lambda: client.audio.transcriptions.create(model="whisper", file=("a.mp3", b"a")))
    costs = {
        e.properties["$ai_model"]: e.properties["$ai_total_cost_usd"] for e in sink.wait_for(2)
    }
    assert costs == pytest.approx({"tts": 0.015, "whisper": 0.009})


def test_what_failed_or_was_cached_was_not_spoken(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    headers = {"content-type": "audio/mpeg", "helicone-cache": "HIT"}
    provider.script(
        "/audio/speech",
        Reply([b"sound"], headers={"content-type": "audio/mpeg"}),
        Reply([b"sound"], headers=headers),
        Reply.json({"error": {"message": "no"}}, 400),
    )
    client = drive.ours(posthog_client=sink)
    for _ in range(2):
        drive.call(lambda: client.audio.speech.create(model="tts", voice="alloy", input="x" * 9))
    with pytest.raises(drive.vendor.sdk.BadRequestError):
        drive.call(lambda: client.audio.speech.create(model="tts", voice="alloy", input="x" * 9))
    found = [event.properties.get("posthog_llm_characters") for event in sink.wait_for(3)]
    assert found == [9, None, None]


@pytest.mark.parametrize(
    ("price", "cost"), [(Price(input=1, output=2, request=1), None), (Price(input=0, request=1), 1)]
)
def test_unknown_tokens_are_not_free(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, price: Price, cost: Any
) -> None:
    configure(prices={"m": price})
    provider.script("/chat/completions", Reply.json({**ANSWER, "usage": None}))
    drive.ask(drive.ours(posthog_client=sink))
    assert sink.wait_for(1)[0].properties.get("$ai_total_cost_usd") == cost


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": -1}, "input must be a finite number of USD, not -1"),
        ({"input": math.nan}, "input must be a finite number"),
        ({"input": 1, "output": "2"}, "output must be a number, not str"),
        ({"input": None}, "input must be a number, not NoneType"),
        ({"input": True}, "input must be a number, not bool"),
    ],
)
def test_misuse_of_price(given: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Price(**given)


@pytest.mark.parametrize("prices", [[("m", Price(input=1))], {"m": 1.0}, {1: Price(input=1)}])
def test_misuse_of_prices(prices: Any) -> None:
    with pytest.raises(TypeError, match="prices"):
        configure(prices=prices)


def test_later_changes_to_the_mapping_do_not_count(sink: MemorySink) -> None:
    prices = {"m": Price(input=1)}
    configure(prices=prices)
    prices.clear()
    with context(posthog_client=sink):
        posthog_llm.capture_generation(model="m", input_tokens=1_000_000, output_tokens=0)
    assert sink.wait_for(1)[0].properties["$ai_total_cost_usd"] == 1
