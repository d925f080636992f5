"""Gemini's interactions: plain, streamed and in the background, sync and async."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from posthog_llm import instrument, uninstrument
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

genai = pytest.importorskip("google.genai", reason="Google's SDK is not installed")
pytest.importorskip("google.genai._gaos.basesdk", reason="this version of it has another client")
from posthog_llm import gemini as ours  # noqa: E402 - needs Google's SDK

from .test_gemini import Asking, told  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*xperimental:UserWarning")
PATH = "/interactions"
USAGE = {
    "total_input_tokens": 20,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 20}],
    "total_cached_tokens": 5,
    "total_output_tokens": 7,
    "output_tokens_by_modality": [{"modality": "text", "tokens": 7}],
    "total_tool_use_tokens": 0,
    "total_thought_tokens": 30,
    "total_tokens": 57,
}
STEPS = [
    {
        "type": "thought",
        "signature": "CiQBVKhc7p0=",
        "summary": [{"type": "text", "text": "I look it up."}],
    },
    {"type": "function_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Lisbon"}},
    {"type": "model_output", "content": [{"type": "text", "text": "It is 23 degrees."}]},
]
ANSWER = {
    "id": "v1_1",
    "object": "interaction",
    "model": "gemini-3-flash-preview",
    "status": "completed",
    "created": "2026-11-01T00:00:00Z",
    "updated": "2026-11-01T00:00:09Z",
    "role": "model",
    "steps": STEPS,
    "usage": USAGE,
}
ASK: dict[str, Any] = {
    "model": "gemini-3-flash-preview",
    "input": "weather?",
    "system_instruction": "Be brief.",
    "generation_config": {"temperature": 0.5},
}
SAID = [
    {"type": "thinking", "thinking": "I look it up."},
    {
        "type": "function",
        "id": "c1",
        "function": {"name": "get_weather", "arguments": {"city": "Lisbon"}},
    },
    {"type": "text", "text": "It is 23 degrees."},
]
TOLD = {
    "$ai_lib": "posthog-llm",
    "$ai_provider": "gemini",
    "$ai_model": "gemini-3-flash-preview",
    "posthog_llm_requested_model": "gemini-3-flash-preview",
    "posthog_llm_served_model": "gemini-3-flash-preview",
    "$ai_http_status": 200,
    "$ai_stop_reason": "completed",
    "$ai_input": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
    ],
    "$ai_output_choices": [{"role": "assistant", "content": SAID}],
    "$ai_input_tokens": 20,
    "$ai_output_tokens": 7,
    "$ai_total_tokens": 57,
    "$ai_reasoning_tokens": 30,
    "$ai_cache_read_input_tokens": 5,
    "$ai_text_input_tokens": 20,
    "$ai_text_output_tokens": 7,
    "$ai_cache_reporting_exclusive": False,
    "$ai_tokens_source": "sdk",
    "$ai_usage": USAGE,
    "posthog_llm_endpoint": "interaction",
    "posthog_llm_outcome": "ok",
    "posthog_llm_request_id": "req_test",
    "posthog_llm_response_id": "v1_1",
    "posthog_llm_retries": 0,
}


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"event_type": kind, **more}


def delta(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return event("step.delta", index=index, delta={"type": kind, **more})


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


BEGUN = {"id": "v1_1", "model": ANSWER["model"], "status": "in_progress"}
EVENTS = [
    event("interaction.created", interaction=BEGUN),
    event("step.start", index=0, step={"type": "thought"}),
    delta(0, "thought_summary", content=text("I look ")),
    delta(0, "thought_summary", content=text("it up.")),
    event("step.stop", index=0),
    event(
        "step.start",
        index=1,
        step={"type": "function_call", "id": "c1", "name": "get_weather", "arguments": {}},
    ),
    delta(1, "arguments_delta", arguments='{"city": "Lis'),
    delta(1, "arguments_delta", arguments='bon"}'),
    event("step.stop", index=1),
    event("step.start", index=2, step={"type": "model_output"}),
    delta(2, "text", text="It is 23"),
    delta(2, "text", text=" degrees."),
    event("step.stop", index=2),
    event("interaction.completed", interaction={**BEGUN, "status": "completed", "usage": USAGE}),
]


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    uninstrument()


@pytest.fixture(params=["sync", "httpx"])
def asking(
    request: pytest.FixtureRequest, provider: ScriptedProvider, sink: MemorySink
) -> Iterator[Asking]:
    made = Asking(provider, sink, request.param)
    yield made
    made.close()


def create(asking: Asking, client: Any, **more: Any) -> Any:
    resource = client.interactions if asking.how == "sync" else client.aio.interactions
    return asking.call(resource.create, **{**ASK, **more})


def made(asking: Asking, watched: bool) -> Any:
    """Return a client of ours, or one of the SDK that `instrument` watches."""
    if watched:
        instrument(asking.sink)
    return asking.client(genai if watched else ours)


@pytest.mark.parametrize("watched", [False, True])
def test_plain(asking: Asking, watched: bool) -> None:
    asking.provider.script(PATH, Reply.json(ANSWER))
    answer = create(asking, made(asking, watched))
    assert answer.id == "v1_1"
    (found,) = asking.sink.wait_for(1)
    properties = told(found.properties)
    assert properties.pop("$ai_model_parameters") == {"temperature": 0.5}
    assert properties == {**TOLD, "$ai_stream": False}


@pytest.mark.parametrize(("step", "charged"), [("url_context_call", 520), ("search_call", 20)])
def test_content_of_urls_is_charged_as_input(asking: Asking, step: str, charged: int) -> None:
    usage = {**USAGE, "total_tool_use_tokens": 500, "total_tokens": 557}
    steps = [{"type": step, "id": "u"}, *STEPS]
    asking.provider.script(PATH, Reply.json({**ANSWER, "steps": steps, "usage": usage}))
    create(asking, made(asking, False))
    (found,) = asking.sink.wait_for(1)
    assert found.properties["$ai_input_tokens"] == charged
    assert found.properties["$ai_total_tokens"] == charged + 37


@pytest.mark.parametrize("watched", [False, True])
def test_stream_gives_the_event_of_a_plain_answer(asking: Asking, watched: bool) -> None:
    asking.provider.script(PATH, Reply.stream(EVENTS))
    items = asking.items(create(asking, made(asking, watched), stream=True))
    assert len(items) >= len(EVENTS)
    (found,) = asking.sink.wait_for(1)
    properties = told(found.properties)
    assert properties.pop("$ai_time_to_first_token") > 0
    assert properties.pop("$ai_model_parameters") == {"temperature": 0.5, "stream": True}
    (said,) = properties.pop("$ai_output_choices")
    call = said["content"][1]["function"]
    assert call.pop("arguments") == '{"city": "Lisbon"}'
    expected = {k: v for k, v in TOLD.items() if k != "$ai_output_choices"}
    assert properties == {**expected, "$ai_stream": True}


def test_arguments(asking: Asking) -> None:
    asking.provider.script(PATH, Reply.json(ANSWER), Reply.json(ANSWER))
    client = asking.client(posthog_distinct_id="client")
    create(asking, client, posthog_distinct_id="u1", posthog_properties={"a": 1})
    create(asking, client)
    first, second = asking.sink.wait_for(2)
    assert (first.distinct_id, second.distinct_id) == ("u1", "client")
    assert first.properties["a"] == 1
    assert not [r for r in asking.provider.requests if b"posthog" in r.body]


def test_error(asking: Asking) -> None:
    error = {"error": {"code": 400, "message": "no such model", "status": "INVALID_ARGUMENT"}}
    asking.provider.script(PATH, Reply.json(error, 400))
    with pytest.raises(Exception, match="no such model"):
        create(asking, asking.client())
    (found,) = asking.sink.wait_for(1)
    assert found.properties["$ai_is_error"] is True
    assert found.properties["$ai_http_status"] == 400
    assert "no such model" in found.properties["$ai_error"]


def test_retries_are_counted(asking: Asking) -> None:
    asking.provider.script(PATH, Reply.error(503, "busy"), Reply.json(ANSWER))
    retry = {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.02}
    create(asking, asking.client(http_options={"retry_options": retry}))
    (found,) = asking.sink.wait_for(1)
    assert found.properties["posthog_llm_retries"] == 1
    assert found.properties["posthog_llm_outcome"] == "ok"


def test_stream_closed_early(asking: Asking) -> None:
    asking.provider.script(PATH, Reply.stream(EVENTS, delay=0.01))
    stream = create(asking, asking.client(), stream=True)
    assert len(asking.items(stream, most=3)) == 3
    del stream
    gc.collect()
    asking.settle()
    (found,) = asking.sink.wait_for(1)
    assert found.properties["posthog_llm_outcome"] in ("closed_early", "dropped")
    assert not [name for name in found.properties if name.endswith("_tokens")]


@pytest.mark.parametrize("watched", [False, True])
def test_background_is_captured_at_its_end(asking: Asking, watched: bool) -> None:
    begun = {**BEGUN, "created": "2026-11-01T00:00:00Z", "updated": "2026-11-01T00:00:00Z"}
    asking.provider.script(PATH, Reply.json(begun))
    client = made(asking, watched)
    create(asking, client, background=True)
    asking.sink.wait_for(0)
    asking.provider.script(f"{PATH}/v1_1", Reply.json(begun))
    asking.provider.script(f"{PATH}/v1_1", Reply.json(ANSWER), Reply.json(ANSWER))
    resource = client.interactions if asking.how == "sync" else client.aio.interactions
    for _ in range(3):
        asking.call(resource.get, id="v1_1")
    (found,) = asking.sink.wait_for(1)
    assert found.properties["$ai_input"] == TOLD["$ai_input"]
    assert found.properties["$ai_output_tokens"] == 7
    assert found.properties["posthog_llm_endpoint"] == "interaction"


def test_reversible(asking: Asking) -> None:
    base = __import__("google.genai._gaos.basesdk", fromlist=["BaseSDK"])
    before = [dict(cls.__dict__) for cls in (base.BaseSDK, base.AsyncBaseSDK)]
    for times in (1, 2):
        asking.provider.script(PATH, Reply.json(ANSWER), Reply.json(ANSWER))
        instrument(asking.sink)
        create(asking, asking.client(genai))
        asking.sink.wait_for(times)
        uninstrument()
        create(asking, asking.client(genai))
        asking.sink.wait_for(times)
        assert [dict(cls.__dict__) for cls in (base.BaseSDK, base.AsyncBaseSDK)] == before


def test_once_beside_our_clients(asking: Asking) -> None:
    other = MemorySink()
    instrument(other)
    asking.provider.script(PATH, Reply.json(ANSWER))
    create(asking, asking.client())
    asking.sink.wait_for(1)
    other.wait_for(0)
