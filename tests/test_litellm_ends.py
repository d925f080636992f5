"""How calls through LiteLLM end: when their events are there, and with which outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, ScriptedProvider

from .driving import use_callbacks

litellm = pytest.importorskip("litellm", reason="LiteLLM pins SDKs: it has a nox session")
from posthog_llm.litellm import PostHogLogger  # noqa: E402 - needs litellm

pytestmark = pytest.mark.filterwarnings("ignore")
ASK = [{"role": "user", "content": "hi"}]
CHAT = {"model": "openai/gpt-4o", "messages": ASK}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(autouse=True)
def logger(sink: MemorySink) -> Iterator[PostHogLogger]:
    made = PostHogLogger(posthog_client=sink)
    use_callbacks(litellm, [made])
    yield made
    use_callbacks(litellm, [])


@pytest.fixture
def place(provider: ScriptedProvider) -> dict[str, Any]:
    return {"api_base": provider.base_url, "api_key": "k", "max_retries": 0}


# -- before LiteLLM calls back ---------------------------------------------------------


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("completion", CHAT),
    "chat, streamed": ("completion", {**CHAT, **USAGE}),
    "responses": ("responses", {"model": "openai/gpt-4o", "input": "hi"}),
    "responses, streamed": ("responses", {"model": "openai/gpt-4o", "input": "hi", "stream": True}),
    "embeddings": ("embedding", {"model": "openai/text-embedding-3-small", "input": ["hi"]}),
    "messages of another provider": (
        "responses",
        {"model": "anthropic/claude-sonnet-4-5", "input": "hi"},
    ),
}


async def acall(name: str, place: dict[str, Any], arguments: dict[str, Any], rest: float) -> None:
    if "anthropic" in arguments["model"]:
        place = {**place, "api_base": place["api_base"].removesuffix("/v1")}
    answer = await getattr(litellm, f"a{name}")(**place, **arguments)
    if arguments.get("stream"):
        async for _ in answer:
            pass
    await asyncio.sleep(rest)


@pytest.mark.parametrize("kind", list(CALLS))
def test_flush_after_a_loop_that_has_ended(
    kind: str, place: dict[str, Any], sink: MemorySink
) -> None:
    """As jobs of Celery and serverless functions do: one `asyncio.run` each, then `flush`."""
    name, arguments = CALLS[kind]
    asyncio.run(acall(name, place, arguments, rest=0.0))
    assert posthog_llm.flush(5)
    assert len(sink._events) == 1
    asyncio.run(acall(name, place, arguments, rest=0.2))  # LiteLLM calls back, for both
    early, late = (dict(event.properties) for event in sink.wait_for(2))
    assert early["$ai_total_cost_usd"] > 0
    assert (early["posthog_llm_outcome"], early["$ai_is_error"]) == ("ok", False)
    unlike = ("$ai_latency", "$ai_time_to_first_token", "$ai_trace_id", "$ai_span_id")
    for properties in (early, late):
        for key in (*unlike, "posthog_llm_response_id"):
            properties.pop(key, None)
    assert early == late


@pytest.mark.parametrize("stream", [False, True])
def test_flush_after_a_sync_call(stream: bool, place: dict[str, Any], sink: MemorySink) -> None:
    """LiteLLM calls back in a thread of its own, which `flush` must not overtake."""
    for count in range(1, 6):
        answer = litellm.completion(**CHAT, **place, **(USAGE if stream else {}))
        if stream:
            list(answer)
        assert posthog_llm.flush(5)
        assert len(sink._events) == count


def test_a_second_after_the_end(place: dict[str, Any], sink: MemorySink) -> None:
    asyncio.run(acall("completion", place, CHAT, rest=0.0))
    asked_at = time.monotonic()
    while not sink._events:
        assert time.monotonic() < asked_at + 10
        time.sleep(0.01)
    (event,) = sink._events
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert event.properties["$ai_total_cost_usd"] > 0
    asyncio.run(acall("completion", place, CHAT, rest=0.2))
    sink.wait_for(2)
