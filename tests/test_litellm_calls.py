"""Each call through LiteLLM is one event: caches, slow callbacks, callers' ids, many at once."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm import Price
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import use_callbacks

litellm = pytest.importorskip("litellm", reason="LiteLLM pins SDKs: it has a nox session")
from posthog_llm.litellm import PostHogLogger  # noqa: E402 - needs litellm

pytestmark = pytest.mark.filterwarnings("ignore")
ASK = [{"role": "user", "content": "hi"}]
CHAT = {"model": "openai/gpt-4o", "messages": ASK}


@pytest.fixture(autouse=True)
def logger(sink: MemorySink) -> Iterator[PostHogLogger]:
    made = PostHogLogger(posthog_client=sink)
    use_callbacks(litellm, [made])
    yield made
    use_callbacks(litellm, [])
    litellm.cache = None


@pytest.fixture
def place(provider: ScriptedProvider) -> dict[str, Any]:
    return {"api_base": provider.base_url, "api_key": "k", "max_retries": 0}


def job(name: str, **arguments: Any) -> None:
    """Make one call in an event loop that ends with it."""

    async def call() -> None:
        answer = await getattr(litellm, name)(**arguments)
        if arguments.get("stream"):
            async for _ in answer:
                pass

    asyncio.run(call())


# -- caches ----------------------------------------------------------------------------


CACHED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("acompletion", CHAT),
    "chat, streamed": ("acompletion", {**CHAT, "stream": True}),
    "embeddings": ("aembedding", {"model": "openai/text-embedding-3-small", "input": ["hi"]}),
}


@pytest.mark.parametrize("kind", list(CACHED))
def test_cache_hits_of_jobs(
    kind: str, place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    """LiteLLM calls back in a task, which ends with the job's event loop."""
    name, arguments = CACHED[kind]
    litellm.cache = litellm.Cache(type="local")
    warm = {**arguments, **place, "caching": True}
    asyncio.run(_and_rest(name, warm))
    for number in range(3):
        job(name, **warm, metadata={"user_id": f"user-{number}"})
        assert posthog_llm.flush(5)
        assert len(sink._events) == number + 2
    assert len(provider.requests) == 1
    for event, number in zip(sink.wait_for(4)[1:], range(3), strict=True):
        found = event.properties
        assert event.distinct_id == f"user-{number}"
        assert found["posthog_llm_cache_hit"] is True
        assert (found["posthog_llm_outcome"], found["$ai_total_cost_usd"]) == ("ok", 0)
        assert not [name for name in found if name.endswith("_tokens") or name == "$ai_usage"]
        assert ("$ai_output_choices" in found) == (name != "aembedding")


async def _and_rest(name: str, arguments: dict[str, Any]) -> None:
    answer = await getattr(litellm, name)(**arguments)
    if arguments.get("stream"):
        async for _ in answer:
            pass
    await asyncio.sleep(0.2)  # it is put into the cache afterwards


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_calls_that_share_an_id(is_async: bool, place: dict[str, Any], sink: MemorySink) -> None:
    litellm.cache = litellm.Cache(type="local")
    arguments = {**CHAT, **place, "caching": True, "litellm_call_id": "the-request"}
    asyncio.run(_and_rest("acompletion", arguments))
    for _ in range(3):
        if is_async:
            asyncio.run(_and_rest("acompletion", arguments))
        else:
            litellm.completion(**arguments)
    assert posthog_llm.flush(5)
    hits = [event.properties.get("posthog_llm_cache_hit") for event in sink.wait_for(4)]
    assert hits == [None, True, True, True]


def test_failures_that_share_an_id(sink: MemorySink) -> None:
    for _ in range(2):
        with pytest.raises(litellm.BadRequestError):
            litellm.completion(model="nobody/knows", messages=ASK, litellm_call_id="the-request")
    assert posthog_llm.flush(5)
    assert {event.properties["posthog_llm_outcome"] for event in sink.wait_for(2)} == {"error"}


# -- callbacks of others ---------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_callback_that_hangs(stream: bool, place: dict[str, Any], sink: MemorySink) -> None:
    """Callbacks come one after the other, in a thread: ours may come late, or never."""
    is_over = threading.Event()

    class Hangs(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]
        def logging_hook(self, kwargs: Any, result: Any, call_type: Any) -> Any:
            is_over.wait(30)  # before the first callback, whose order is no order
            return kwargs, result

    litellm.callbacks = [Hangs(), *litellm.callbacks]
    try:
        answer = litellm.completion(**CHAT, **place, stream=stream)
        if stream:
            list(answer)
        assert posthog_llm.flush(5)
        (event,) = sink._events
    finally:
        is_over.set()
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert event.properties["$ai_output_choices"]
    time.sleep(0.2)
    sink.wait_for(1)


class Watches(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]
    pass


class Fails(Watches):
    def log_success_event(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("not ours")

    async def async_log_success_event(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("not ours")


class Masks(Watches):
    def logging_hook(self, kwargs: Any, result: Any, call_type: Any) -> Any:
        return {**kwargs, "messages": []}, result

    async def async_logging_hook(self, kwargs: Any, result: Any, call_type: Any) -> Any:
        return {**kwargs, "messages": []}, result


@pytest.mark.parametrize("name", ["completion", "acompletion"])
def test_the_order_of_callbacks_is_no_matter(
    name: str, place: dict[str, Any], sink: MemorySink, logger: PostHogLogger
) -> None:
    orders = list(itertools.permutations([logger, Watches(), Fails(), Masks()]))
    for order in orders:
        use_callbacks(litellm, list(order))
        if name == "completion":
            litellm.completion(**CHAT, **place)
        else:
            asyncio.run(_and_rest(name, {**CHAT, **place}))
    assert posthog_llm.flush(10)
    unlike = ("$ai_latency", "$ai_trace_id", "$ai_span_id", "posthog_llm_response_id")
    found = [dict(event.properties) for event in sink.wait_for(len(orders))]
    for properties in found:
        for key in unlike:
            properties.pop(key, None)
    assert all(properties == found[0] for properties in found)
    assert found[0]["$ai_input"] == ASK


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", ["logging_only", "pre_call"])
def test_a_guardrail_that_masks_what_is_logged(
    mode: str, is_async: bool, place: dict[str, Any], sink: MemorySink, logger: PostHogLogger
) -> None:
    """It does so in copies of its own, after we may have captured the call."""
    from litellm.integrations.custom_guardrail import CustomGuardrail

    guard = CustomGuardrail(guardrail_name="pii", event_hook=mode, default_on=True)
    use_callbacks(litellm, [logger, guard])
    if is_async:
        job("acompletion", **CHAT, **place)
    else:
        litellm.completion(**CHAT, **place)
    assert posthog_llm.flush(5)
    found = sink.wait_for(1)[0].properties
    assert (found.get("$ai_input") == ASK) == (mode != "logging_only")
    assert bool(found.get("$ai_output_choices")) == (mode != "logging_only")
    assert found["$ai_input_tokens"] > 0


def test_callbacks_that_are_taken_away_amid_a_call(
    place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    """An answer that we saw is an answer, whoever is told of it."""

    class Leaves(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]
        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            use_callbacks(litellm, [])

    litellm.callbacks = [*litellm.callbacks, Leaves()]
    litellm.completion(**CHAT, **place)
    assert posthog_llm.flush(5)
    found = sink.wait_for(1)[0].properties
    assert (found["posthog_llm_outcome"], found["$ai_input_tokens"] > 0) == ("ok", True)


# -- metadata --------------------------------------------------------------------------


def test_ids_of_other_types(place: dict[str, Any], sink: MemorySink) -> None:
    one = uuid.UUID(int=7)
    ids = {"user_id": one, "trace_id": uuid.UUID(int=8), "session_id": 9, "parent_id": one}
    litellm.completion(**CHAT, **place, metadata=ids)
    assert posthog_llm.flush(5)
    (event,) = sink.wait_for(1)
    found = event.properties
    assert (event.distinct_id, found["$ai_parent_id"]) == (str(one), str(one))
    assert (found["$ai_trace_id"], found["$ai_session_id"]) == (str(uuid.UUID(int=8)), "9")


@pytest.mark.parametrize("odd", [True, 1.5, "", 10**5000, ["a"]], ids=lambda odd: str(type(odd)))
def test_what_is_no_id(odd: Any, place: dict[str, Any], sink: MemorySink) -> None:
    ids = dict.fromkeys(("user_id", "trace_id", "session_id", "parent_id"), odd)
    litellm.completion(**CHAT, **place, metadata=ids, user=odd if odd is True else None)
    assert posthog_llm.flush(5)
    (event,) = sink.wait_for(1)
    found = event.properties
    assert event.distinct_id == found["$ai_trace_id"]  # anonymous
    assert found["$process_person_profile"] is False
    assert not {"$ai_session_id", "$ai_parent_id"} & found.keys()


def test_fields_with_nulls(place: dict[str, Any], sink: MemorySink) -> None:
    fields = {"prefs": {"theme": None, "lang": "de"}, "tags_of_mine": ["a", None]}
    litellm.completion(**CHAT, **place, metadata={**fields})
    assert posthog_llm.flush(5)
    found = sink.wait_for(1)[0].properties
    assert {name: found[name] for name in fields} == fields


# -- prices ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt-5-mini", "openai/gpt-5-mini"])
def test_a_price_is_found_under_the_name_with_its_prefix_too(
    name: str, place: dict[str, Any], sink: MemorySink, provider: ScriptedProvider
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "y"}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini"}
    provider.script("/chat/completions", Reply.json({**body, "choices": [choice], "usage": usage}))
    posthog_llm.configure(prices={name: Price(input=1, output=10)})
    try:
        litellm.completion(model="openai/gpt-5-mini", messages=ASK, **place)
        (event,) = sink.wait_for(1)
    finally:
        posthog_llm.configure(prices=None)
    assert event.properties["$ai_total_cost_usd"] == pytest.approx(0.006)


def test_reasoning_of_gemini_is_charged_once(
    place: dict[str, Any], sink: MemorySink, provider: ScriptedProvider
) -> None:
    """LiteLLM's count of the output includes it, and LiteLLM's cost is replaced."""
    part = {"content": {"role": "model", "parts": [{"text": "y"}]}, "finishReason": "STOP"}
    counts = {"promptTokenCount": 100, "candidatesTokenCount": 50, "thoughtsTokenCount": 300}
    path = "/models/gemini-2.5-pro:generateContent"
    answer = {"candidates": [{**part, "index": 0}], "modelVersion": "gemini-2.5-pro"}
    provider.script(
        path, Reply.json({**answer, "usageMetadata": {**counts, "totalTokenCount": 450}})
    )
    posthog_llm.configure(prices={"gemini-2.5-pro": Price(input=1, output=10)})
    place = {**place, "api_base": provider.url}
    try:
        litellm.completion(model="gemini/gemini-2.5-pro", messages=ASK, **place)
        (event,) = sink.wait_for(1)
    finally:
        posthog_llm.configure(prices=None)
    assert event.properties["$ai_total_cost_usd"] == pytest.approx(0.0036)
    assert event.properties["posthog_llm_reasoning_tokens"] == 300
