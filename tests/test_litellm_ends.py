"""How calls through LiteLLM end: when their events are there, and with which outcome."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

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
}


async def acall(name: str, place: dict[str, Any], arguments: dict[str, Any], rest: float) -> None:
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
    assert (early["posthog_llm_outcome"], early.get("$ai_is_error", False)) == ("ok", False)
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


# -- retries inside LiteLLM ------------------------------------------------------------


def refused(status: int = 500) -> Reply:
    return Reply.json({"error": {"message": "busy"}}, status=status)


def ask_deepseek(is_async: bool, place: dict[str, Any]) -> None:
    """Ask a provider that LiteLLM calls without an SDK, whose own retries would come first."""
    call = {"model": "deepseek/deepseek-chat", "messages": ASK, "num_retries": 2, **place}

    async def awaited() -> None:
        await litellm.acompletion(**call)
        await asyncio.sleep(0.1)

    if is_async:
        asyncio.run(awaited())
    else:
        litellm.completion(**call)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_each_retry_is_an_event(
    is_async: bool, place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", refused(), refused(429))
    ask_deepseek(is_async, place)
    assert len(provider.requests) == 3
    told = [event.properties for event in sink.wait_for(3)]
    assert [t["posthog_llm_outcome"] for t in told] == ["error", "error", "ok"]
    assert [t["$ai_http_status"] for t in told] == [500, 429, 200]
    assert [t.get("$ai_error_type") for t in told[:2]] == ["InternalServerError", "RateLimitError"]
    assert all("busy" in t["$ai_error"] for t in told[:2])
    assert told[2]["$ai_total_cost_usd"] > 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_retries_that_all_fail(
    is_async: bool, place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", refused(), refused(), refused())
    with pytest.raises(litellm.InternalServerError):
        ask_deepseek(is_async, place)
    told = [event.properties for event in sink.wait_for(3)]
    assert [t["$ai_http_status"] for t in told] == [500, 500, 500]


# -- streams that end early ------------------------------------------------------------


@pytest.mark.parametrize(("how", "outcome"), [("aclose", "closed_early"), ("break", "dropped")])
def test_a_stream_that_is_not_read_to_its_end(
    how: str, outcome: str, place: dict[str, Any], sink: MemorySink
) -> None:
    async def read_some() -> None:
        stream = await litellm.acompletion(stream=True, **CHAT, **place)
        async for _ in stream:
            break
        if how == "aclose":
            await stream.aclose()

    asyncio.run(read_some())
    if how == "break":
        gc.collect()
    assert_abandoned(sink.wait_for(1)[0].properties, outcome)


CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
SOME = {**CHUNK, "choices": [{"index": 0, "delta": {"content": "so"}, "finish_reason": None}]}
OVERLOADED = {"error": {"message": "overloaded", "type": "server_error", "code": 500}}
BROKEN = {
    "by an error": lambda: Reply.stream([SOME, SOME, OVERLOADED], done=False),
    "by its connection": lambda: Reply.stream([SOME] * 3, cut=True, done=False),
}


@pytest.mark.parametrize("how", list(BROKEN))
def test_an_async_stream_that_breaks_is_an_error(
    how: str, place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    """LiteLLM closes it first, and says what happened then."""
    provider.script("/chat/completions", BROKEN[how]())
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):
        asyncio.run(acall("completion", place, {**CHAT, **USAGE}, rest=0.0))
    assert posthog_llm.flush(5)
    told = sink.wait_for(1)[0].properties
    assert (told["posthog_llm_outcome"], told.get("$ai_is_error", False)) == ("error", True)
    assert told["posthog_llm_error"]["type"] == told["$ai_error_type"]


def test_a_task_that_is_cancelled_amid_a_stream(
    place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    slow = Reply.stream([SOME] * 50)
    slow.delay = 0.1
    provider.script("/chat/completions", slow)

    async def cancelled() -> None:
        stream = await litellm.acompletion(stream=True, **CHAT, **place)
        first = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                first.set()

        task = asyncio.ensure_future(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    gc.collect()
    assert_abandoned(sink.wait_for(1)[0].properties, "dropped")


def assert_abandoned(told: Any, outcome: str) -> None:
    assert (told["posthog_llm_outcome"], told.get("$ai_is_error", False)) == (outcome, False)
    invented = ("tokens", "cost_usd", "$ai_usage", "$ai_stop_reason", "$ai_cost_passthrough")
    assert not [name for name in told if name.endswith(invented)]


# -- what a caller may put into metadata -----------------------------------------------


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"in": value}
    return value


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


def cross_linked() -> Any:
    value: Any = ["x"]
    for _ in range(60):
        value = [value, value]
    return value


ODD = {"deep": lambda: nested(5000), "cyclic": cyclic, "cross-linked": cross_linked}


@pytest.mark.parametrize("odd", list(ODD))
def test_a_field_that_cannot_be_read_costs_that_field(
    odd: str, sink: MemorySink, logger: PostHogLogger
) -> None:
    value = ODD[odd]()
    record: dict[str, Any] = {"litellm_call_id": str(id(value)), "call_type": "completion"}
    record |= {"model": "m", "messages": ASK, "standard_logging_object": {"response": {}}}
    record["litellm_params"] = {"metadata": {"plan": "gold", "odd": value, "nested": nested(5)}}
    started_at = time.process_time()
    logger.log_success_event(record, None, None, None)
    assert time.process_time() - started_at < 1
    told = sink.wait_for(1)[0].properties
    assert told["plan"] == "gold"
    assert told["nested"] == nested(5)
    assert "odd" not in told


def test_an_answer_that_refers_to_itself(sink: MemorySink, logger: PostHogLogger) -> None:
    response = litellm.ModelResponse()
    response.usage = cyclic()
    record = {"call_type": "completion", "model": "m", "messages": ASK, "litellm_params": {}}
    logger.log_success_event(record, response, None, None)
    told = sink.wait_for(1)[0].properties
    assert (told["posthog_llm_outcome"], told["$ai_input"]) == ("ok", ASK)


def test_what_fails_after_the_answer_is_no_failure_of_the_model(
    place: dict[str, Any], sink: MemorySink, logger: PostHogLogger
) -> None:
    calls: list[Any] = []

    class Spy(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]
        async def async_post_call_success_deployment_hook(
            self, request_data: Any, response: Any, call_type: Any
        ) -> None:
            calls.append(request_data["litellm_logging_obj"])

    async def refused_by_a_guardrail() -> None:
        await acall("completion", place, CHAT, rest=0.0)
        await calls[0].async_failure_handler(ValueError("not this answer"), "")  # as the gateway

    use_callbacks(litellm, [logger, Spy()])
    asyncio.run(refused_by_a_guardrail())
    told = sink.wait_for(1)[0].properties
    assert (told["posthog_llm_outcome"], told.get("$ai_is_error", False)) == ("ok", False)
    assert told["$ai_input_tokens"] > 0
    assert told["$ai_total_cost_usd"] > 0
