"""How calls through LiteLLM end: when their events are there, and with which outcome."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
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
    recorded = [event.properties for event in sink.wait_for(3)]
    assert [t["posthog_llm_outcome"] for t in recorded] == ["error", "error", "ok"]
    assert [t["$ai_http_status"] for t in recorded] == [500, 429, 200]
    assert [t.get("$ai_error_type") for t in recorded[:2]] == [
        "InternalServerError",
        "RateLimitError",
    ]
    assert all("busy" in t["$ai_error"] for t in recorded[:2])
    assert recorded[2]["$ai_total_cost_usd"] > 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_retries_that_all_fail(
    is_async: bool, place: dict[str, Any], provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", refused(), refused(), refused())
    with pytest.raises(litellm.InternalServerError):
        ask_deepseek(is_async, place)
    recorded = [event.properties for event in sink.wait_for(3)]
    assert [t["$ai_http_status"] for t in recorded] == [500, 500, 500]


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
    recorded = sink.wait_for(1)[0].properties
    assert (recorded["posthog_llm_outcome"], recorded.get("$ai_is_error", False)) == ("error", True)
    assert recorded["posthog_llm_error"]["type"] == recorded["$ai_error_type"]


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


def assert_abandoned(recorded: Any, outcome: str) -> None:
    assert (recorded["posthog_llm_outcome"], recorded.get("$ai_is_error", False)) == (
        outcome,
        False,
    )
    invented = ("tokens", "cost_usd", "$ai_usage", "$ai_stop_reason", "$ai_cost_passthrough")
    assert not [name for name in recorded if name.endswith(invented)]


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
    recorded = sink.wait_for(1)[0].properties
    assert recorded["plan"] == "gold"
    assert recorded["nested"] == nested(5)
    assert "odd" not in recorded


def test_an_answer_that_refers_to_itself(sink: MemorySink, logger: PostHogLogger) -> None:
    response = litellm.ModelResponse()
    response.usage = cyclic()
    record = {"call_type": "completion", "model": "m", "messages": ASK, "litellm_params": {}}
    logger.log_success_event(record, response, None, None)
    recorded = sink.wait_for(1)[0].properties
    assert (recorded["posthog_llm_outcome"], recorded["$ai_input"]) == ("ok", ASK)


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
    recorded = sink.wait_for(1)[0].properties
    assert (recorded["posthog_llm_outcome"], recorded.get("$ai_is_error", False)) == ("ok", False)
    assert recorded["$ai_input_tokens"] > 0
    assert recorded["$ai_total_cost_usd"] > 0


# -- what LiteLLM makes of an answer that lacks something --------------------------------


def chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return {**head, "choices": [choice], **more}


ROLE, WORD, STOP = chunk({"role": "assistant"}), chunk({"content": "hi"}), chunk({}, "stop")
COUNTS = chunk({}, usage={"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6})
COUNTS["choices"] = []


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_the_first_token_is_the_first_that_says_something(
    sink: MemorySink, provider: ScriptedProvider, place: dict[str, Any], waits: bool
) -> None:
    provider.script(
        "/chat/completions",
        Reply.stream([ROLE, ROLE, ROLE, ROLE, WORD, STOP, COUNTS], delay=0.1),
    )
    ask(place, {**CHAT, **USAGE}, waits)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_time_to_first_token"] > 0.4


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_stream_that_breaks_off_is_an_error(
    sink: MemorySink, provider: ScriptedProvider, place: dict[str, Any], waits: bool
) -> None:
    provider.script("/chat/completions", Reply.stream([ROLE, WORD], done=False))
    ask(place, {**CHAT, **USAGE}, waits)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "error"
    assert event.properties["posthog_llm_error"]["type"] == "IncompleteStream"
    names = {"$ai_stop_reason", "$ai_output_tokens", "$ai_input_tokens", "$ai_total_cost_usd"}
    assert not names & event.properties.keys()


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_unknown_tokens_are_absent(
    sink: MemorySink, provider: ScriptedProvider, place: dict[str, Any], usage: Any
) -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "hi"}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    choices = [{**message, "finish_reason": "stop"}]
    provider.script("/chat/completions", Reply.json({**body, "choices": choices, "usage": usage}))
    ask(place, CHAT, False)
    (event,) = sink.wait_for(1)
    assert not [name for name in event.properties if name.endswith("_tokens")]
    assert "$ai_total_cost_usd" not in event.properties


def test_a_response_that_says_it_failed_is_an_error(
    sink: MemorySink, provider: ScriptedProvider, place: dict[str, Any]
) -> None:
    failed = {"id": "resp_1", "object": "response", "created_at": 1, "status": "failed"}
    failed |= {"error": {"code": "server_error", "message": "boom"}, "model": "gpt-4o"}
    more = {"output": [], "usage": None, "parallel_tool_calls": True, "tool_choice": "auto"}
    provider.script("/responses", Reply.json({**failed, **more, "tools": []}))
    litellm.responses(model="openai/gpt-4o", input="hi", **place)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "error"
    assert event.properties["$ai_error"] == "boom"
    assert not [name for name in event.properties if name.endswith("_tokens")]


MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
BEGUN = {
    "type": "message_start",
    "message": {**MESSAGE, "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}},
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
SAID = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
ENDED["usage"] = {"output_tokens": 7}


def named(*events: dict[str, Any], delay: float = 0.0) -> Reply:
    """Return Anthropic's events, each with its name."""
    pairs = [(event["type"].encode(), json.dumps(event).encode()) for event in events]
    sent = [b"event: %b\ndata: %b\n\n" % pair for pair in pairs]
    return Reply(sent, headers={"content-type": "text/event-stream"}, delay=delay)


@pytest.mark.parametrize("ends", ["with an error", "amid", "well"])
def test_messages_as_bytes(sink: MemorySink, provider: ScriptedProvider, ends: str) -> None:
    last = {"with an error": (OVERLOADED,), "amid": (), "well": (ENDED, {"type": "message_stop"})}
    provider.script("/messages", named(BEGUN, BLOCK, SAID, *last[ends], delay=0.1))

    async def run() -> None:
        stream = await litellm.anthropic.messages.acreate(
            model="anthropic/claude-sonnet-4-5",
            messages=ASK,
            max_tokens=10,
            stream=True,
            api_base=provider.base_url.removesuffix("/v1"),
            api_key="k",
        )
        with contextlib.suppress(Exception):  # LiteLLM's own, where it raises one
            async for _ in stream:
                pass
        async with asyncio.timeout(30):  # what LiteLLM has begun in this loop ends with it
            while not posthog_llm.stats().captured:
                await asyncio.sleep(0.02)

    asyncio.run(run())
    assert posthog_llm.flush(20)
    (event,) = sink.wait_for(1)
    found = event.properties
    if ends == "well":
        assert (found["posthog_llm_outcome"], found["$ai_output_tokens"]) == ("ok", 7)
        assert found["$ai_time_to_first_token"] > 0.25
        return
    assert found["posthog_llm_outcome"] == "error"
    kind = "overloaded_error" if ends == "with an error" else "IncompleteStream"
    assert kind in str(found["posthog_llm_error"]) or kind in found["$ai_error"]
    assert "$ai_output_tokens" not in found


def ask(place: dict[str, Any], arguments: dict[str, Any], waits: bool) -> None:
    """Ask, and read a stream to its end; whatever LiteLLM raises is its caller's affair."""
    with contextlib.suppress(Exception):
        if waits:
            asyncio.run(acall("completion", place, arguments, 0.3))
            return
        answer = litellm.completion(**place, **arguments)
        if arguments.get("stream"):
            list(answer)
