"""Every endpoint that runs a model, by every way of calling it, is told exactly once."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai as sdk
import pytest
from pydantic import BaseModel

from posthog_llm import _event as events_of
from posthog_llm import event_id
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._providers.endpoints import endpoint_of
from posthog_llm._providers.reading import read as read_exchange
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver, saying

ASK: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi you"}]}
SAID = saying("You said: hi you")
WHO = {"posthog_distinct_id": "u1", "posthog_properties": {"plan": "team"}}


class City(BaseModel):
    name: str


def picture() -> Any:
    return ("cat.png", io.BytesIO(b"\x89PNG" + bytes(96)), "image/png")


CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda c: c.chat.completions.create(**ASK, **WHO),
    "chat parse": lambda c: c.chat.completions.parse(**ASK, response_format=City, **WHO),
    "chat posted": lambda c: c.post(
        "/chat/completions", body=ASK, cast_to=sdk.types.chat.ChatCompletion
    ),
    "chat posted without slash": lambda c: c.post(
        "chat/completions", body=ASK, cast_to=sdk.types.chat.ChatCompletion
    ),
    "response": lambda c: c.responses.create(model="gpt-5-mini", input="hi you", **WHO),
    "response parse": lambda c: c.responses.parse(model="gpt-5-mini", input="hi you", **WHO),
    "completion": lambda c: c.completions.create(model="m", prompt="hi you", **WHO),
    "embedding": lambda c: c.embeddings.create(model="e", input=["hi", "you"], **WHO),
    "image": lambda c: c.images.generate(model="gpt-image-1", prompt="a cat", **WHO),
    "image edit": lambda c: c.images.edit(
        model="gpt-image-1", prompt="a hat", image=picture(), **WHO
    ),
    "image variation": lambda c: c.images.create_variation(image=picture(), **WHO),
    "speech": lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input="hi", **WHO),
    "transcription": lambda c: c.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=("a.mp3", b"ID3", "audio/mpeg"), **WHO
    ),
    "translation": lambda c: c.audio.translations.create(
        model="whisper-1", file=("a.mp3", b"ID3", "audio/mpeg"), **WHO
    ),
}
if hasattr(sdk.OpenAI(api_key="x").responses, "compact"):
    CALLS["compact"] = lambda c: c.responses.compact(model="gpt-5-mini", input="hi", **WHO)
if hasattr(sdk.OpenAI, "decisions"):
    CALLS["decision"] = lambda c: c.decisions.create(
        model="gpt-6-luna", input="hi", questions=[{"type": "predicate", "question": "ok?"}], **WHO
    )


@pytest.mark.parametrize("name", list(CALLS))
def test_one_event_a_call(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, name: str
) -> None:
    if name == "chat parse":
        said = {"role": "assistant", "content": '{"name": "Lisbon"}'}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-5-mini"}
        provider.script("/chat/completions", Reply.json({**body, "choices": [choice]}))
    answer = drive.call(lambda: CALLS[name](drive.ours(posthog_client=sink)))

    (event,) = sink.wait_for(1)
    assert event.event == ("$ai_embedding" if name == "embedding" else "$ai_generation")
    assert event_id(answer) == event.uuid
    properties = event.properties
    assert "$ai_is_error" not in properties
    assert properties["$ai_http_status"] == 200
    assert properties["$ai_stream"] is False
    assert properties["$ai_latency"] > 0
    assert properties["$ai_input"]
    assert "$ai_time_to_first_token" not in properties
    assert ("$ai_output_choices" in properties) is (name != "embedding")
    if name == "speech":
        (block,) = properties["$ai_output_choices"][0]["content"]
        assert block == {"type": "audio", "data": "[audio/mpeg, 1000 bytes]"}
    elif name not in ("chat parse",):
        assert properties["$ai_input_tokens"] > 0
    if "posted" not in name:
        assert event.distinct_id == "u1"
        assert properties["plan"] == "team"
    for request in provider.requests:
        assert "posthog" not in request.path + str(request.headers) + request.body.decode("latin-1")


def test_files_are_captured_by_name_type_and_size(drive: Driver, sink: MemorySink) -> None:
    drive.call(lambda: CALLS["image edit"](drive.ours(posthog_client=sink)))
    (message,) = sink.wait_for(1)[0].properties["$ai_input"]
    assert message["content"] == [
        {"type": "text", "text": "a hat"},
        {"type": "file", "file": {"filename": "cat.png", "file_data": "[image/png, 100 bytes]"}},
    ]


def test_transcription_as_text_and_as_stream(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    file = ("a.mp3", b"ID3", "audio/mpeg")
    client = drive.ours(posthog_client=sink)
    create = client.audio.transcriptions.create
    provider.script(
        "/audio/transcriptions",
        Reply([b"Hello.\n"], headers={"content-type": "text/plain"}),
        Reply.stream(
            [
                {"type": "transcript.text.delta", "delta": "Hel"},
                {"type": "transcript.text.delta", "delta": "lo."},
                {
                    "type": "transcript.text.done",
                    "text": "Hello.",
                    "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 2},
                },
            ],
            done=False,
        ),
    )
    text = drive.call(lambda: create(model="whisper-1", file=file, response_format="text"))
    assert text == "Hello.\n"
    events = drive.collect(lambda: create(model="gpt-4o-transcribe", file=file, stream=True))
    assert [event.type for event in events][-1] == "transcript.text.done"
    as_text, as_stream = sink.wait_for(2)
    for event in (as_text, as_stream):
        assert event.properties["$ai_output_choices"] == saying("Hello.")
    assert as_stream.properties["$ai_input_tokens"] == 9
    assert as_stream.properties["$ai_stream"] is True


def test_streamed_pictures(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    client = drive.ours(posthog_client=sink)
    ask: dict[str, Any] = {"model": "gpt-image-1", "prompt": "a cat"}
    try:
        inspect.signature(client.images.generate).bind(**ask, stream=True)
    except TypeError:
        pytest.skip("this SDK version streams no pictures")
    data = "iVBORw0KGgoAAAANSUhEUgAA"
    usage = {"input_tokens": 5, "output_tokens": 272, "total_tokens": 277}
    done = {"type": "image_generation.completed", "b64_json": data, "usage": usage}
    partial = {"type": "image_generation.partial_image", "b64_json": data, "partial_image_index": 0}
    provider.script("/images/generations", Reply.stream([partial, done], done=False))
    events = drive.collect(lambda: client.images.generate(**ask, stream=True))
    assert [event.type for event in events] == [partial["type"], done["type"]]
    recorded = sink.wait_for(1)[0].properties
    assert recorded["$ai_image_output_tokens"] == 272
    (message,) = recorded["$ai_output_choices"]
    assert message["content"][0]["b64_json"] == "[image/png, 18 bytes]"
    assert recorded["$ai_time_to_first_token"] > 0


def test_speech_as_events(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    usage = {"input_tokens": 5, "output_tokens": 20, "total_tokens": 25}
    events = [
        {"type": "speech.audio.delta", "audio": "SUQz"},
        {"type": "speech.audio.done", "usage": usage},
    ]
    provider.script("/audio/speech", Reply.stream(events, done=False))
    client = drive.ours(posthog_client=sink)
    ask = {"model": "tts", "voice": "alloy", "input": "hi", "stream_format": "sse"}
    drive.call(lambda: client.audio.speech.create(**ask))
    recorded = sink.wait_for(1)[0].properties
    assert recorded["posthog_llm_outcome"] == "ok"
    assert recorded["$ai_output_tokens"] == 20


# -- raw and streaming responses -------------------------------------------------------


def test_raw_parsed(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    raw = drive.call(lambda: client.chat.completions.with_raw_response.create(**ASK, **WHO))
    assert raw.headers["x-request-id"] == "req_test"
    assert raw.parse().choices[0].message.content == "You said: hi you"
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_choices"] == SAID
    assert event.properties["posthog_llm_request_id"] == "req_test"
    assert event_id(raw) == event.uuid


def test_raw_never_parsed(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.chat.completions.with_raw_response.create(**ASK, **WHO))
    assert sink.wait_for(1)[0].properties["$ai_output_choices"] == SAID


def test_raw_parsed_to_another_type(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    raw = drive.call(lambda: client.chat.completions.with_raw_response.create(**ASK))

    class Other(sdk.BaseModel):
        object: str

    assert raw.parse(to=Other).object == "chat.completion"
    assert sink.wait_for(1)[0].properties["$ai_output_tokens"] == 4


def test_raw_stream(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    raw = drive.call(
        lambda: client.chat.completions.with_raw_response.create(**ASK, stream=True, **WHO)
    )
    assert len(drive.items(raw.parse())) > 3
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_choices"] == SAID
    assert event.properties["$ai_output_tokens"] == 4
    assert event_id(raw) == event.uuid


def test_client_level_raw_accessor(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.with_raw_response.embeddings.create(model="e", input="hi", **WHO))
    (event,) = sink.wait_for(1)
    assert (event.event, event.distinct_id) == ("$ai_embedding", "u1")


READERS: dict[str, Callable[[Any], Any]] = {
    "parsed": lambda response: response.parse(),
    "lines": lambda response: _all(response.iter_lines()),
    "bytes": lambda response: _all(response.iter_bytes()),
    "json": lambda response: response.json(),
    "never read": lambda response: None,
}


def _all(pieces: Any) -> Any:
    return pieces if hasattr(pieces, "__aiter__") else list(pieces)


@pytest.mark.parametrize("how", list(READERS))
def test_streaming_response_of_a_plain_call(drive: Driver, sink: MemorySink, how: str) -> None:
    client = drive.ours(posthog_client=sink)
    manager = client.chat.completions.with_streaming_response.create(**ASK, **WHO)
    drive.inside(manager, READERS[how])
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    if how == "never read":
        assert event.properties["posthog_llm_outcome"] == "closed_early"
        assert "$ai_output_tokens" not in event.properties
    else:
        assert event.properties["posthog_llm_outcome"] == "ok"
        assert event.properties["$ai_output_choices"] == SAID


@pytest.mark.parametrize("how", ["lines", "bytes", "never read"])
def test_streaming_response_of_a_stream(drive: Driver, sink: MemorySink, how: str) -> None:
    client = drive.ours(posthog_client=sink)
    manager = client.chat.completions.with_streaming_response.create(**ASK, stream=True, **WHO)
    drive.inside(manager, READERS[how])
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert bool(event.properties["$ai_output_choices"]) is (how != "never read")


def test_streaming_speech_is_counted_not_kept(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    manager = client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="hi", **WHO
    )
    drive.inside(manager, READERS["bytes"])
    (block,) = sink.wait_for(1)[0].properties["$ai_output_choices"][0]["content"]
    assert block["data"] == "[audio/mpeg, 1000 bytes]"


# -- stream managers and helpers -------------------------------------------------------


def test_chat_stream_manager(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    seen = []

    def use(stream: Any) -> Any:
        seen.append(event_id(stream))
        return stream.get_final_completion()

    final = drive.inside(client.chat.completions.stream(**ASK, **WHO), use)
    assert final.choices[0].message.content == "You said: hi you"
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert event.properties["$ai_output_choices"] == SAID
    assert seen == [event.uuid]


def test_response_stream_manager(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    manager = client.responses.stream(model="gpt-5-mini", input="hi you", **WHO)
    drive.inside(manager, lambda stream: stream.get_final_response())
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    (item,) = event.properties["$ai_output_choices"]
    assert item["content"][0]["text"] == "You said: hi you"
    assert event.properties["$ai_input_tokens"] == 10


def test_beta_alias(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    if not hasattr(client.beta, "chat"):
        pytest.skip("this SDK version has no beta.chat any more")
    drive.call(lambda: client.beta.chat.completions.create(**ASK, **WHO))
    assert sink.wait_for(1)[0].distinct_id == "u1"


def test_other_endpoints_pass_untouched(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.models.list(**WHO))
    assert provider.requests[0].path == "/v1/models"
    sink.wait_for(0)


# -- background responses --------------------------------------------------------------


@pytest.fixture
def identity() -> str:
    """An id of its own for each test: what was told once is never told again."""
    return f"resp_{uuid.uuid4().hex}"


def response(status: str, **more: Any) -> dict[str, Any]:
    base = {"id": "resp_1", "object": "response", "created_at": 1000, "model": "gpt-5-mini"}
    return {**base, "status": status, "background": True, "output": [], "tools": [], **more}


DONE = response(
    "completed",
    completed_at=1042,
    output=[
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "done", "annotations": []}],
        }
    ],
    usage={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
)


def test_background_response_is_captured_once_when_it_ends(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str
) -> None:
    client = drive.ours(posthog_client=sink)
    done = Reply.json({**DONE, "id": identity})
    provider.script("/responses", Reply.json(response("queued", id=identity)))
    provider.script(f"/responses/{identity}", Reply.json(response("in_progress", id=identity)))
    provider.script(f"/responses/{identity}", done, done)
    queued = drive.call(
        lambda: client.responses.create(model="gpt-5-mini", input="think", background=True, **WHO)
    )
    sink.wait_for(0)
    drive.call(lambda: client.responses.retrieve(identity))
    sink.wait_for(0)
    ended = drive.call(lambda: client.responses.retrieve(identity))
    drive.call(lambda: client.responses.retrieve(identity))
    (event,) = sink.wait_for(1)
    assert event_id(queued) == event_id(ended) == event.uuid
    assert event.distinct_id == "u1"
    assert event.properties["$ai_input"] == [{"role": "user", "content": "think"}]
    assert event.properties["$ai_output_tokens"] == 1
    assert event.properties["$ai_latency"] == 42
    assert event.properties["$ai_stop_reason"] == "completed"


def test_background_response_of_another_process(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str
) -> None:
    client = drive.ours(posthog_client=sink)
    provider.script(f"/responses/{identity}", Reply.json({**DONE, "id": identity}))
    drive.call(lambda: client.responses.retrieve(identity, **WHO))
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert "$ai_input" not in event.properties


def test_background_response_is_the_same_event_in_every_process() -> None:
    """By uuid, time and who asks, which PostHog tells the same event by."""
    yesterday = time.time() - 86_400
    body = json.dumps({**DONE, "created_at": yesterday}).encode()

    def recorded(seen: float) -> tuple[Any, ...]:
        headers = {"content-type": "application/json"}
        exchange = Exchange("response_poll", "e1", Scope(), seen, body=body, headers=headers)
        found = events_of.build(read_exchange(exchange), private=False)
        return found.uuid, found.timestamp.timestamp(), found.distinct_id

    assert (
        recorded(time.time())
        == recorded(time.time() - 60)
        == ("e1", pytest.approx(yesterday), "e1")
    )


def test_retrieving_a_response_that_was_captured_already_is_no_event(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    provider.script("/responses/resp_3", Reply.json({**DONE, "id": "resp_3", "background": False}))
    drive.call(lambda: client.responses.retrieve("resp_3"))
    sink.wait_for(0)


def test_cancelled_background_response(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, identity: str
) -> None:
    client = drive.ours(posthog_client=sink)
    cancelled = Reply.json(response("cancelled", id=identity))
    provider.script("/responses", Reply.json(response("queued", id=identity)))
    provider.script(f"/responses/{identity}/cancel", cancelled)
    drive.call(lambda: client.responses.create(model="m", input="x", background=True))
    drive.call(lambda: client.responses.cancel(identity))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "cancelled"
    assert "$ai_is_error" not in event.properties


# -- nothing is missed -----------------------------------------------------------------

DOCUMENT = Path(__file__).parent.parent / "docs" / "endpoints.md"


def posted_paths(sdk: str) -> set[str]:
    """Return every path that a resource of the installed SDK posts to."""
    found = set()
    package = importlib.import_module(f"{sdk}.resources")
    sources = [path.read_text() for path in Path(package.__path__[0]).rglob("*.py")]
    # Each method for itself: to parse all of them takes long.
    for method in re.split(r"\n(?=class |    (?:@|(?:async )?def ))", "\n".join(sources)):
        if "._post(" not in method:
            continue
        for node in ast.walk(ast.parse(f"class _:\n{method}")):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_post":
                texts = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                found.add("{}".join(text for text in texts if isinstance(text, str)))
    return found


@pytest.mark.parametrize(("sdk", "least"), [("openai", 30), ("anthropic", 5)])
def test_every_model_running_endpoint_is_covered_or_excluded_by_name(sdk: str, least: int) -> None:
    """A new endpoint of the SDK needs an adapter, or a line in docs/endpoints.md."""
    lines = DOCUMENT.read_text().partition("## Not captured")[2].splitlines()
    excluded = [m[1] for line in lines if (m := re.match(r"\| `(/\S+)`", line))]
    patterns = [re.compile(re.escape(path).replace(r"\*", ".*")) for path in excluded]
    paths = posted_paths(sdk)
    assert len(paths) > least
    missing = {
        path
        for path in paths
        if endpoint_of("post", path) is None
        and not any(pattern.fullmatch(path.partition("?")[0]) for pattern in patterns)
    }
    assert not missing
