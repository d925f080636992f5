"""LiteLLM's callback, against the real package, with a scripted provider below it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import posthog_llm
from posthog_llm import context
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider
from posthog_llm.testing._sink import CapturedEvent

from .driving import saying, use_callbacks

litellm = pytest.importorskip("litellm", reason="LiteLLM pins SDKs: it has a nox session")
from posthog_llm.litellm import PostHogLogger  # noqa: E402 - needs litellm
from posthog_llm.openai import OpenAI  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
ASK = [{"role": "user", "content": "hi"}]


class Lite:
    """Calls LiteLLM's functions, sync or async, and reads streams to their end."""

    def __init__(self, provider: ScriptedProvider, sink: MemorySink, prefix: str) -> None:
        self.provider, self.sink, self.prefix = provider, sink, prefix

    def use(self, *callbacks: Any) -> None:
        use_callbacks(litellm, list(callbacks))

    def call(self, name: str, *args: Any, on: Any = litellm, **kwargs: Any) -> Any:
        function = getattr(on, self.prefix + name)
        if on is litellm:
            place = {"api_base": self.provider.base_url, "api_key": "sk-secret-123456"}
            kwargs = {**place, "max_retries": 0, **kwargs}
        return asyncio.run(self._awaited(lambda: function(*args, **kwargs)))

    async def _awaited(self, make: Callable[[], Any]) -> Any:
        made = make()
        made = await made if inspect.isawaitable(made) else made
        if hasattr(made, "__aiter__") and self.prefix:
            made = [item async for item in made]
        elif "Stream" in type(made).__name__:
            made = list(made)
        await asyncio.sleep(0.05)  # LiteLLM calls back in tasks of its own
        return made

    def chat(self, **kwargs: Any) -> Any:
        return self.call("completion", "openai/gpt-4o", ASK, **kwargs)

    def told(self, count: int = 1) -> list[CapturedEvent]:
        """Return the events, which must become `count` within seconds, and stay so many."""
        until = time.monotonic() + 10
        while len(self.sink.events) < count and time.monotonic() < until:
            time.sleep(0.01)
        return self.sink.wait_for(count)

    def properties(self) -> Any:
        return self.told()[0].properties


@pytest.fixture(params=["", "a"], ids=["sync", "async"])
def lite(
    request: pytest.FixtureRequest, provider: ScriptedProvider, sink: MemorySink
) -> Iterator[Lite]:
    made = Lite(provider, sink, request.param)
    made.use(PostHogLogger(posthog_client=sink))
    yield made
    made.use()
    litellm.cache = None


def custom(properties: Any) -> set[str]:
    """Return the names that are neither PostHog's nor ours."""
    return {name for name in properties if not name.startswith(("$", "posthog_llm_"))}


def completion(**fields: Any) -> Reply:
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return Reply.json({**body, "choices": [choice], **fields})


# -- one event a call ------------------------------------------------------------------


def test_whole_event(lite: Lite) -> None:
    details = {"cached_tokens": 40}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    usage["prompt_tokens_details"] = details  # type: ignore[assignment]
    usage["completion_tokens_details"] = {"reasoning_tokens": 30}  # type: ignore[assignment]
    lite.provider.script("/chat/completions", completion(usage=usage, service_tier="default"))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    metadata = {
        "user_id": "user-7",
        "trace_id": "trace-1",
        "session_id": "session-1",
        "parent_run_id": "parent-1",
        "generation_name": "answer",
        "trace_name": "chat",
        "groups": {"company": "acme"},
        "plan": "gold",
    }
    lite.chat(temperature=0.5, tools=tools, user="end-user", metadata=metadata)
    (event,) = lite.told()
    assert event.event == "$ai_generation"
    assert event.distinct_id == "user-7"
    assert event.groups == {"company": "acme"}
    assert event.timestamp is not None
    assert abs(event.timestamp.timestamp() - time.time()) < 30
    told = dict(event.properties)
    assert 0 < told.pop("$ai_latency") < 10
    assert told.pop("$ai_span_id") == event.uuid
    assert told.pop("$ai_usage")["prompt_tokens_details"] == details
    assert told.pop("$ai_lib") == "posthog-llm"
    assert told.pop("$ai_lib_version")
    expected_cost = (60 * 2.5 + 40 * 1.25) / 1e6
    assert told.pop("$ai_input_cost_usd") == pytest.approx(expected_cost)
    assert told.pop("$ai_output_cost_usd") == pytest.approx(50 * 10 / 1e6)
    assert told.pop("$ai_total_cost_usd") == pytest.approx(expected_cost + 50 * 10 / 1e6)
    assert told == {
        "$ai_trace_id": "trace-1",
        "$ai_session_id": "session-1",
        "$ai_parent_id": "parent-1",
        "$ai_span_name": "answer",
        "$ai_trace_name": "chat",
        "$ai_user": "end-user",
        "$ai_provider": "openai",
        "$ai_model": "gpt-4o",
        "$ai_model_parameters": {"temperature": 0.5, "user": "end-user"},
        "$ai_base_url": lite.provider.base_url,
        "$ai_http_status": 200,
        "$ai_stream": False,
        "$ai_stop_reason": "stop",
        "$ai_service_tier": "default",
        "$ai_input": ASK,
        "$ai_output_choices": saying("hello"),
        "$ai_tools": tools,
        "$ai_input_tokens": 100,
        "$ai_output_tokens": 50,
        "$ai_total_tokens": 150,
        "$ai_cache_read_input_tokens": 40,
        "$ai_reasoning_tokens": 30,
        "$ai_cache_reporting_exclusive": False,
        "$ai_tokens_source": "sdk",
        "$ai_cost_passthrough": True,
        "plan": "gold",
        "posthog_llm_requested_model": "gpt-4o",
        "posthog_llm_served_model": "gpt-4o",
        "posthog_llm_endpoint": "chat",
        "posthog_llm_outcome": "ok",
        **{k: told[k] for k in ("posthog_llm_request_id", "posthog_llm_response_id") if k in told},
    }


CALLS: dict[str, tuple[str, dict[str, Any], str, str, Any]] = {
    "text_completion": (
        "openai/gpt-3.5-turbo-instruct",
        {"prompt": "hi"},
        "$ai_generation",
        "completion",
        [{"role": "user", "content": "hi"}],
    ),
    "responses": (
        "openai/gpt-4o",
        {"input": "hi", "instructions": "be brief"},
        "$ai_generation",
        "response",
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    ),
    "embedding": (
        "openai/text-embedding-3-small",
        {"input": ["a", "b"]},
        "$ai_embedding",
        "embedding",
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    ),
    "image_generation": (
        "openai/gpt-image-1",
        {"prompt": "a cat"},
        "$ai_generation",
        "image",
        [{"role": "user", "content": "a cat"}],
    ),
    "speech": (
        "openai/tts-1",
        {"input": "hi", "voice": "alloy"},
        "$ai_generation",
        "speech",
        [{"role": "user", "content": "hi"}],
    ),
    "transcription": (
        "openai/whisper-1",
        {"file": ("a.wav", b"RIFF"), "language": "en"},
        "$ai_generation",
        "transcription",
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"filename": "a.wav", "file_data": "[binary, 4 bytes]"},
                    }
                ],
            }
        ],
    ),
    "rerank": (
        "cohere/rerank-v3.5",
        {"query": "which?", "documents": ["a", "b"]},
        "$ai_generation",
        "rerank",
        [
            {"role": "user", "content": "which?"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
        ],
    ),
}


WITH_TOKENS = {"text_completion", "responses", "embedding", "image_generation"}
GENERATED = {"text_completion", "responses", "image_generation", "transcription"}


@pytest.mark.parametrize("name", list(CALLS))
def test_every_kind_of_call(lite: Lite, name: str) -> None:
    model, arguments, event_name, endpoint, asked = CALLS[name]
    if name == "rerank":
        results = [{"index": 1, "relevance_score": 0.9}]
        lite.provider.script("/rerank", Reply.json({"id": "r", "results": results}))
        arguments = {**arguments, "api_base": f"{lite.provider.base_url}/rerank"}
    lite.call(name, model=model, **arguments)
    (event,) = lite.told()
    told = event.properties
    assert event.event == event_name
    assert told["$ai_model"] == model.split("/")[1]
    assert told["$ai_provider"] == model.split("/")[0]
    assert told["posthog_llm_endpoint"] == endpoint
    assert told["$ai_input"] == asked
    assert ("$ai_output_choices" in told) == (name != "embedding")
    assert told["$process_person_profile"] is False
    assert event.distinct_id == told["$ai_trace_id"]
    assert "posthog_llm_retries" not in told
    assert ("$ai_output_tokens" in told) == (name in GENERATED)
    if name in WITH_TOKENS:
        assert told["$ai_input_tokens"] > 0
        assert told["$ai_total_cost_usd"] > 0


@pytest.mark.parametrize("name", ["completion", "responses"])
def test_streamed_and_plain_agree(lite: Lite, name: str) -> None:
    asked = {"messages": ASK} if name == "completion" else {"input": "hi"}
    options = {"stream_options": {"include_usage": True}} if name == "completion" else {}
    lite.call(name, model="openai/gpt-4o", **asked)
    lite.told()
    lite.call(name, model="openai/gpt-4o", stream=True, **asked, **options)
    plain, streamed = (dict(event.properties) for event in lite.told(2))
    assert 0 < streamed.pop("$ai_time_to_first_token") <= streamed["$ai_latency"]
    assert (plain.pop("$ai_stream"), streamed.pop("$ai_stream")) == (False, True)
    unlike = ("$ai_latency", "$ai_trace_id", "$ai_span_id", "$ai_usage", "$ai_model_parameters")
    unlike += ("posthog_llm_response_id", "posthog_llm_request_id")
    for one in (plain, streamed):
        for key in unlike:
            one.pop(key, None)
    assert plain == streamed


def test_claude_tokens_are_inclusive(lite: Lite) -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
    }
    body = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    said = {"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}
    lite.provider.script("/messages", Reply.json({**body, **said, "usage": usage}))
    lite.call("completion", "anthropic/claude-sonnet-4-5", ASK, api_base=lite.provider.url)
    told = lite.properties()
    assert told["$ai_provider"] == "anthropic"
    assert told["$ai_input_tokens"] == 140
    assert told["$ai_cache_read_input_tokens"] == 100
    assert told["$ai_cache_creation_input_tokens"] == 30
    assert told["$ai_cache_creation_1h_input_tokens"] == 10
    assert told["$ai_cache_reporting_exclusive"] is False
    expected = (10 * 3 + 100 * 0.3 + 20 * 3.75 + 10 * 6 + 5 * 15) / 1e6
    assert told["$ai_total_cost_usd"] == pytest.approx(expected)


def test_what_litellm_counts_itself_is_marked(lite: Lite) -> None:
    lite.chat(stream=True)
    told = lite.properties()
    counted = "$ai_input_tokens" in told
    assert told.get("posthog_llm_tokens_estimated", False) is counted
    assert told.get("$ai_input_tokens") != 0


def test_reasoning_that_litellm_counts_itself_is_unknown(lite: Lite) -> None:
    """It asks a tokenizer how long the shown reasoning is, and calls the rest text."""
    delta = {"reasoning_content": "because it is so", "content": "yes"}
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 90, "total_tokens": 99},
        },
    ]
    same = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    lite.provider.script("/chat/completions", Reply.stream([{**same, **one} for one in chunks]))
    lite.chat(stream=True, stream_options={"include_usage": True})
    told = lite.properties()
    assert (told["$ai_input_tokens"], told["$ai_output_tokens"]) == (9, 90)
    assert not {"$ai_reasoning_tokens", "$ai_text_output_tokens"} & told.keys()


def test_what_was_asked_is_not_changed_later(lite: Lite) -> None:
    messages = list(ASK)
    lite.call("completion", "openai/gpt-4o", messages)
    messages.append({"role": "assistant", "content": "later"})
    assert lite.properties()["$ai_input"] == ASK


# -- failures --------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_failure(lite: Lite, stream: bool) -> None:
    error = {"error": {"message": "no, sk-secret-123456", "code": "bad"}}
    lite.provider.script("/chat/completions", Reply.json(error, status=400))
    with pytest.raises(litellm.BadRequestError):
        lite.chat(stream=stream, metadata={"plan": "gold"})
    told = lite.properties()
    assert told.get("$ai_is_error", False) is True
    assert told["$ai_error_type"] == "BadRequestError"
    assert told["$ai_http_status"] == 400
    assert "no, [redacted]" in told["$ai_error"]
    assert "BadRequestError" in told["posthog_llm_error_stack"]
    assert "sk-secret" not in json.dumps(told, default=str)
    assert told["$ai_stream"] is stream
    assert custom(told) == {"plan"}
    assert told["$ai_output_choices"] == []
    assert not {"$ai_input_tokens", "$ai_total_cost_usd"} & told.keys()


def test_stream_that_breaks(lite: Lite) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    choice = {"index": 0, "delta": {"content": "so far"}, "finish_reason": None}
    broken = Reply.stream([{**chunk, "choices": [choice]}], done=False)
    broken.cut = True
    lite.provider.script("/chat/completions", broken)
    with pytest.raises(Exception, match=r"."):
        lite.chat(stream=True)
    told = lite.properties()
    assert told.get("$ai_is_error", False) is True
    assert told["posthog_llm_outcome"] == "error"


def test_a_call_that_nobody_serves(lite: Lite) -> None:
    with pytest.raises(Exception, match="Connection error"):
        lite.chat(api_base="http://127.0.0.1:9/v1")
    told = lite.properties()
    assert told.get("$ai_is_error", False) is True
    assert told["$ai_error_type"] in ("InternalServerError", "APIConnectionError")


# -- retries, fallbacks, caches --------------------------------------------------------


def router(provider: ScriptedProvider, **settings: Any) -> Any:
    place = {"api_base": provider.base_url, "api_key": "sk-secret-123456", "max_retries": 0}
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{model}", **place}}
        for name, model in (("mine", "gpt-4o"), ("spare", "gpt-4o-mini"))
    ]
    return litellm.Router(model_list=models, retry_after=0, **settings)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_retries_and_fallbacks(lite: Lite, stream: bool) -> None:
    refused = Reply.json({"error": {"message": "busy"}}, status=500)
    lite.provider.script("/chat/completions", refused, refused)
    one = router(lite.provider, num_retries=1, fallbacks=[{"mine": ["spare"]}])
    fields = {"user_id": "u", "plan": "gold"}
    how = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    lite.call("completion", "mine", ASK, on=one, metadata=fields, **how)
    events = sorted(lite.told(3), key=lambda event: event.timestamp or 0)
    told = [event.properties for event in events]
    assert [t.get("$ai_is_error", False) for t in told] == [True, True, False]
    assert [t["$ai_model"] for t in told] == ["gpt-4o", "gpt-4o", "gpt-4o-mini"]
    assert [t.get("posthog_llm_retry_number") for t in told][:2] == [None, 1]
    assert told[2]["posthog_llm_fallback_number"] == 1
    assert [t["$ai_stream"] for t in told] == [stream] * 3
    for counted in ("$ai_input_tokens", "$ai_output_tokens", "$ai_total_cost_usd"):
        assert [t.get(counted, 0) > 0 for t in told] == [False, False, True], counted
    assert len({t["$ai_trace_id"] for t in told}) == 1
    assert len({e.uuid for e in events}) == 3
    assert {e.distinct_id for e in events} == {"u"}
    for t in told:
        assert t["plan"] == "gold"
        assert custom(t) == {"plan"}


def test_cache_hit_is_free(lite: Lite) -> None:
    litellm.cache = litellm.Cache()
    for count in (1, 2):
        lite.chat(caching=True)
        lite.told(count)
    first, second = (event.properties for event in lite.told(2))
    assert len(lite.provider.requests) == 1
    assert first["$ai_total_cost_usd"] > 0
    assert "posthog_llm_cache_hit" not in first
    assert second["posthog_llm_cache_hit"] is True
    cost = first["$ai_total_cost_usd"]
    # The newest LiteLLM says 0 of every hit, which is no cost that anybody saved.
    assert second.get("posthog_llm_saved_cost_usd", cost) == pytest.approx(cost)
    assert (second["$ai_total_cost_usd"], second["$ai_cost_passthrough"]) == (0, True)
    assert not [name for name in second if name.endswith("_tokens") or name == "$ai_usage"]
    assert second["$ai_output_choices"] == first["$ai_output_choices"]


def test_each_hook_may_come_often(lite: Lite) -> None:
    logger = litellm.callbacks[0]
    seen: list[Any] = []
    lite.use(logger, type("Spy", (litellm.integrations.custom_logger.CustomLogger,), spy(seen))())
    lite.chat()
    lite.told()
    until = time.monotonic() + 5
    while not seen and time.monotonic() < until:
        time.sleep(0.01)
    for kwargs, response in seen:
        logger.log_success_event(kwargs, response, None, None)
        asyncio.run(logger.async_log_success_event(kwargs, response, None, None))
        asyncio.run(logger.async_log_failure_event(kwargs, None, None, None))
    assert seen
    lite.told(1)


def test_a_request_that_is_announced_twice(lite: Lite) -> None:
    logger = litellm.callbacks[0]

    class Again(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]
        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            logger.log_pre_api_call(model, messages, kwargs)

    lite.use(logger, Again())
    lite.chat()
    assert "$ai_is_error" not in lite.properties()
    gc.collect()
    lite.told(1)


def test_hooks_with_records_of_their_own(sink: MemorySink) -> None:
    logger = PostHogLogger(posthog_client=sink)

    def record() -> dict[str, Any]:
        payload = {"response": {"choices": []}, "status": "success"}
        call = {"litellm_call_id": "the-call", "call_type": "acompletion", "model": "m"}
        return {**call, "messages": ASK, "litellm_params": {}, "standard_logging_object": payload}

    logger.log_success_event(record(), None, None, None)
    asyncio.run(logger.async_log_success_event(record(), None, None, None))
    logger.log_failure_event(record(), None, None, None)
    sink.wait_for(1)


BRIDGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "responses over chat": ("responses", "deepseek/deepseek-chat", {"input": "hi"}),
    "responses over messages": ("responses", "anthropic/claude-sonnet-4-5", {"input": "hi"}),
    "chat over responses": ("completion", "openai/responses/gpt-4o", {"messages": ASK}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bridge", list(BRIDGES))
def test_one_kind_of_call_made_of_another(lite: Lite, bridge: str, stream: bool) -> None:
    name, model, asked = BRIDGES[bridge]
    place = lite.provider.url if "anthropic" in model else lite.provider.base_url
    lite.call(name, model=model, stream=stream, api_base=place, **asked)
    told = lite.properties()
    assert "$ai_is_error" not in told
    assert told["$ai_provider"] == model.split("/")[0]
    time.sleep(0.3)
    gc.collect()
    lite.told(1)


def spy(seen: list[Any]) -> dict[str, Any]:
    def log(self: Any, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        seen.append((kwargs, response_obj))

    async def alog(
        self: Any, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> Any:
        seen.append((kwargs, response_obj))

    return {"log_success_event": log, "async_log_success_event": alog}


# -- endings that LiteLLM does not tell of ---------------------------------------------


@pytest.fixture
def alite(sink: MemorySink, provider: ScriptedProvider) -> Iterator[Lite]:
    made = Lite(provider, sink, "a")
    made.use(PostHogLogger(posthog_client=sink))
    yield made
    made.use()


def test_cancelled(alite: Lite) -> None:
    slow = completion()
    slow.delay = 30
    alite.provider.script("/chat/completions", slow)

    async def cancelled() -> None:
        place = {"api_base": alite.provider.base_url, "api_key": "k"}
        task = asyncio.ensure_future(litellm.acompletion("openai/gpt-4o", ASK, **place))
        while not alite.provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    gc.collect()
    told = alite.properties()
    assert told["posthog_llm_outcome"] == "cancelled"
    assert "$ai_is_error" not in told
    assert "$ai_input_tokens" not in told


@pytest.mark.parametrize("read", [0, 1])
def test_stream_that_is_let_go(alite: Lite, read: int) -> None:
    async def abandon() -> None:
        place = {"api_base": alite.provider.base_url, "api_key": "k"}
        stream = await litellm.acompletion("openai/gpt-4o", ASK, stream=True, **place)
        for _ in range(read):
            await stream.__anext__()

    asyncio.run(abandon())
    gc.collect()
    told = alite.properties()
    assert told["posthog_llm_outcome"] == "dropped"
    assert "$ai_is_error" not in told
    assert "$ai_input_tokens" not in told


def test_many_at_once_in_two_loops(alite: Lite) -> None:
    place = {"api_base": alite.provider.base_url, "api_key": "k"}

    async def many(start: int) -> None:
        calls = (
            litellm.acompletion("openai/gpt-4o", ASK, metadata={"user_id": f"u{n}"}, **place)
            for n in range(start, start + 150)
        )
        await asyncio.gather(*calls)

    asyncio.run(many(0))
    asyncio.run(many(150))
    gc.collect()
    assert {event.distinct_id for event in alite.told(300)} == {f"u{n}" for n in range(300)}


# -- privacy ---------------------------------------------------------------------------


def assert_private(told: Any) -> None:
    assert not {"$ai_input", "$ai_output_choices", "$ai_tools"} & told.keys()
    assert "hi" not in [m.get("content") for m in told.get("$ai_input", [])]
    assert told["$ai_input_tokens"] > 0


def test_redaction_by_setting(lite: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "turn_off_message_logging", True)
    lite.chat()
    assert_private(lite.properties())


def test_redaction_by_request(lite: Lite) -> None:
    lite.chat(metadata={"headers": {"x-litellm-enable-message-redaction": "true"}})
    assert_private(lite.properties())


@pytest.mark.parametrize(
    "options", [{"turn_off_message_logging": True}, {"posthog_privacy_mode": True}]
)
def test_redaction_by_logger(lite: Lite, options: Any) -> None:
    lite.use(PostHogLogger(posthog_client=lite.sink, **options))
    lite.chat()
    assert_private(lite.properties())


def test_redaction_of_one_call(lite: Lite) -> None:
    lite.chat(turn_off_message_logging=True)
    assert_private(lite.properties())


def test_redactor(lite: Lite) -> None:
    lite.use(PostHogLogger(posthog_client=lite.sink, posthog_redact=lambda text: "***"))
    lite.chat()
    assert lite.properties()["$ai_input"] == [{"role": "user", "content": "***"}]


PLAIN = "plainsecretvalue1"
"""A credential without a known look."""


def bearing(lite: Lite, place: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments of a call that has the credential in some place."""
    if place == "headers of the module":
        monkeypatch.setattr(litellm, "headers", {"x-api-key": PLAIN})
    if place == "client":
        kind = openai.AsyncOpenAI if lite.prefix else openai.OpenAI
        return {"client": kind(api_key=PLAIN, base_url=lite.provider.base_url, max_retries=0)}
    if place == "azure_ad_token":
        azure = {"model": "azure/gpt-4o", "api_base": lite.provider.url, "api_version": "1"}
        return {**azure, "api_key": None, "azure_ad_token": PLAIN}
    return {
        "api_key": {"api_key": PLAIN},
        "extra_headers": {"extra_headers": {"Authorization": f"Bearer {PLAIN}"}},
        "headers": {"headers": {"x-api-key": PLAIN}},
    }.get(place, {})


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "place",
    ["api_key", "extra_headers", "headers", "headers of the module", "client", "azure_ad_token"],
)
def test_credentials_never_leave(
    lite: Lite, place: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = bearing(lite, place, monkeypatch)
    error = Reply.json({"error": {"message": f"no: {PLAIN}", "code": PLAIN}}, 400)
    for path in ("/chat/completions", "/openai/deployments/gpt-4o/chat/completions"):
        lite.provider.script(path, error if fails else completion())
    asked = [{"role": "user", "content": f"is {PLAIN} safe?"}]
    model = given.pop("model", "openai/gpt-4o")
    with pytest.raises(litellm.BadRequestError) if fails else contextlib.nullcontext():
        lite.call("completion", model, asked, **given)
    (request,) = lite.provider.requests
    assert PLAIN in str(request.headers), "that is what was sent"
    assert PLAIN not in json.dumps(dict(lite.properties()))
    assert lite.properties()["$ai_input"][0]["content"] == "is [redacted] safe?"


@pytest.mark.parametrize(
    "silence",
    [
        {"no-log": True},
        {"metadata": {"no-log": True}},
        {"proxy_server_request": {"headers": {"X-LiteLLM-Disable-Callbacks": "s3, posthog_llm"}}},
        {"proxy_server_request": {"headers": {"x-posthog-llm-span-id": "one"}}},
    ],
)
def test_not_to_be_logged(lite: Lite, silence: dict[str, Any]) -> None:
    lite.chat(**silence)
    time.sleep(0.3)
    gc.collect()
    lite.told(0)


def test_context_switches_off(lite: Lite) -> None:
    with context(capture=False):
        lite.chat()
    with context(distinct_id="ctx", properties={"page": "home"}):
        lite.chat()
    (event,) = lite.told()
    assert event.distinct_id == "ctx"
    assert event.properties["page"] == "home"


GATEWAY = {
    "user_api_key": "sk-hash",
    "user_api_key_team_id": "team",
    "user_api_key_auth": object(),
    "user_api_something_new": "x",
    "requester_ip_address": "9.9.9.9",
    "headers": {"authorization": "Bearer sk-1"},
    "hidden_params": {"api_key": "sk-2"},
    "litellm_parent_otel_span": object(),
    "queue_time_seconds": 0.1,
}


def test_gateway_internals_stay(lite: Lite) -> None:
    sent = {"plan": "gold", "trace_id": "t", "headers": {"x": "y"}, "user_id": "u"}
    metadata = {
        **GATEWAY,
        "requester_metadata": sent,
        "added_by_a_plugin": "secret",
        "user_id": "u",
    }
    request = {"url": "http://gateway/", "headers": {"authorization": "Bearer sk-3"}, "body": {}}
    lite.chat(metadata=metadata, proxy_server_request=request)
    (event,) = lite.told()
    assert custom(event.properties) == {"plan"}
    assert event.distinct_id == "u"
    text = json.dumps(event.properties, default=str)
    assert not [secret for secret in ("9.9.9.9", "sk-", "team", "secret") if secret in text]


def test_teams_and_keys_where_asked_for(lite: Lite, sink: MemorySink) -> None:
    """What the gateway knows, over what its client says of itself."""
    asked = {"groups": {"team": "team_id", "company": "org_id"}, "properties": ["key_alias"]}
    lite.use(PostHogLogger(posthog_client=sink, **asked))  # type: ignore[arg-type]
    sent = {"plan": "gold", "key_alias": "forged", "groups": {"team": "forged", "site": "b"}}
    known = {**GATEWAY, "user_api_key_alias": "ci", "user_api_key_user_email": "ann@example.com"}
    metadata = {**known, "requester_metadata": sent, "groups": sent["groups"]}
    lite.chat(metadata=metadata, proxy_server_request={"url": "http://gateway/", "headers": {}})
    (event,) = lite.told()
    assert event.groups == {"team": "team", "site": "b"}
    assert custom(event.properties) == {"plan", "key_alias"}
    assert event.properties["key_alias"] == "ci"
    text = json.dumps(event.properties, default=str)
    assert not [secret for secret in ("sk-", "example.com", "forged") if secret in text]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"groups": {"team": "key"}}, "knows no 'key'"),
        ({"properties": ["user_api_key"]}, "knows no 'user_api_key'"),
        ({"groups": ["team_id"]}, "groups must be a mapping"),
        ({"properties": "key_alias"}, "properties must be a list"),
    ],
)
def test_what_a_gateway_does_not_know(sink: MemorySink, given: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        PostHogLogger(posthog_client=sink, **given)


def test_openrouter_fields_of_a_request(lite: Lite) -> None:
    trace = {"trace_id": "t", "generation_name": "g", "trace_name": "n", "feature": "search"}
    lite.chat(user="u", extra_body={"session_id": "s", "trace": trace})
    (event,) = lite.told()
    told = event.properties
    assert (event.distinct_id, told["$ai_user"]) == ("u", "u")
    assert (told["$ai_trace_id"], told["$ai_session_id"]) == ("t", "s")
    assert (told["$ai_span_name"], told["$ai_trace_name"]) == ("g", "n")
    assert (told["trace_name"], told["feature"]) == ("n", "search")


# -- destinations ----------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[PostHogReceiver]:
    with PostHogReceiver() as server:
        yield server


@pytest.mark.parametrize("place", ["arguments", "metadata"])
@pytest.mark.parametrize("url", ["posthog_api_url", "posthog_host"])
def test_project_of_a_request(
    lite: Lite, receiver: PostHogReceiver, other: PostHogReceiver, place: str, url: str
) -> None:
    for name, server in (("phc_one", receiver), ("phc_two", other)):
        where = {"posthog_api_key": name, url: server.url}
        lite.chat(**(where if place == "arguments" else {"metadata": where}))
    for server in (receiver, other):
        (event,) = server.wait_for(1)
        assert event["properties"]["$ai_input"] == ASK
        assert "posthog" not in json.dumps(event["properties"]["$ai_model_parameters"])
    for request in lite.provider.requests:
        assert b"posthog" not in request.body
    lite.told(0)


def test_a_url_that_is_none(lite: Lite, caplog: pytest.LogCaptureFixture) -> None:
    before = posthog_llm.stats().dropped.get("refused_url", 0)
    lite.chat(posthog_api_key="phc_one", posthog_api_url=f"file:///{lite.prefix}etc")
    until = time.monotonic() + 5
    while "posthog_api_url" not in caplog.text and time.monotonic() < until:
        time.sleep(0.01)
    assert f"file:///{lite.prefix}etc" in caplog.text
    lite.chat(posthog_api_key="phc_one", posthog_api_url=f"file:///{lite.prefix}etc")
    lite.told(0)
    assert caplog.text.count(f"file:///{lite.prefix}etc") == 1
    assert posthog_llm.flush(5)
    assert posthog_llm.stats().dropped["refused_url"] == before + 2


def test_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="POSTHOG_API_KEY"):
        PostHogLogger()
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_test")
    PostHogLogger()
    monkeypatch.setenv("POSTHOG_API_URL", "ftp://example")
    with pytest.raises(ValueError, match="POSTHOG_API_URL"):
        PostHogLogger()
    monkeypatch.setenv("POSTHOG_API_URL", "https://eu.i.posthog.com")
    with pytest.raises(TypeError, match="posthog_privacy_mode"):
        PostHogLogger(posthog_privacy_mode="yes")
    with pytest.raises(TypeError, match="posthog_redact"):
        PostHogLogger(posthog_redact=1)
    with pytest.raises(TypeError, match="posthog_distinctid"):
        PostHogLogger(posthog_distinctid="user-7")


def test_project_of_the_environment(
    lite: Lite, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import posthog_llm.litellm

    monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")
    monkeypatch.setenv("POSTHOG_API_URL", receiver.url)
    lite.use(posthog_llm.litellm.logger)
    lite.chat()
    (event,) = receiver.wait_for(1)
    assert event["event"] == "$ai_generation"
    assert posthog_llm.litellm.logger is litellm.callbacks[0]


# -- no call counted twice -------------------------------------------------------------


def test_our_client_inside_litellm(sink: MemorySink, provider: ScriptedProvider) -> None:
    lite = Lite(provider, sink, "")
    lite.use(PostHogLogger(posthog_client=sink))
    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    lite.call("completion", "openai/gpt-4o", ASK, client=client)
    assert lite.properties()["$ai_total_cost_usd"] > 0  # LiteLLM's own
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    lite.told(2)
    lite.use()
    lite.call("completion", "openai/gpt-4o", ASK, client=client)
    lite.told(3)


@pytest.fixture
def built_in(receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch) -> PostHogReceiver:
    """LiteLLM's own callback, made anew, for a project of its own."""
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_own")
    monkeypatch.setenv("POSTHOG_API_URL", receiver.url)
    monkeypatch.setattr(litellm.litellm_core_utils.litellm_logging, "_in_memory_loggers", [])
    return receiver


def test_built_in_callback_beside_ours(lite: Lite, built_in: PostHogReceiver) -> None:
    lite.use(PostHogLogger(posthog_client=lite.sink), "posthog")
    lite.chat()
    lite.told(1)
    lite.use(litellm.callbacks[0])
    lite.chat(success_callback=["posthog"])  # as a team's settings do
    lite.told(2)
    time.sleep(0.2)
    assert built_in.events == []


def test_our_client_inside_litellm_with_its_own_callback(
    sink: MemorySink, provider: ScriptedProvider, built_in: PostHogReceiver
) -> None:
    lite = Lite(provider, sink, "")
    lite.use()
    litellm.success_callback = ["posthog"]
    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    lite.call("completion", "openai/gpt-4o", ASK, client=client)
    built_in.wait_for(1)
    lite.told(0)
    lite.use()
