"""Streams: the caller sees the SDK's own, and each becomes exactly one event."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import brotli
import openai as sdk
import pytest
import zstandard

import posthog_llm.openai
from posthog_llm import event_id
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import (
    ANTHROPIC,
    AsyncDriver,
    Driver,
    SyncDriver,
    comparable,
    every_provider,
    failure_of,
    outcome,
    saying,
)

ASK: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": "hello there world"}],
    "stream": True,
}
MESSAGE_SSE = (Path(__file__).parent / "wire" / "anthropic" / "message.sse").read_bytes()
TEXT = "You said: hello there world"
SAID = saying(TEXT)


def chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{**ASK, **more})


def ask(drive: Driver, client: Any, **more: Any) -> Any:
    return drive.ask(client, **{**ASK, **more})


@every_provider
def test_chunks_are_the_bare_sdks(drive: Driver, sink: MemorySink) -> None:
    bare = comparable(drive.items(ask(drive, drive.bare())))
    stream = ask(drive, drive.ours(posthog_client=sink))
    found = comparable(drive.items(stream))

    for chunks in (bare, found):
        for _, chunk in chunks:
            chunk.get("message", chunk).pop("id", None)
    assert found == bare
    (event,) = sink.wait_for(1)
    assert event.uuid == event_id(stream)
    assert event.properties["$ai_output_choices"] == saying(TEXT)
    assert event.properties["$ai_input_tokens"] == 11
    assert event.properties["$ai_output_tokens"] == 5
    assert event.properties["$ai_stream"] is True
    assert 0 < event.properties["$ai_time_to_first_token"] <= event.properties["$ai_latency"]


@every_provider
def test_stream_is_the_sdks_own_object(drive: Driver, sink: MemorySink) -> None:
    stream = ask(drive, drive.ours(posthog_client=sink))
    assert type(stream) in (drive.vendor.sdk.Stream, drive.vendor.sdk.AsyncStream)
    assert stream.response.status_code == 200
    assert stream.response.headers["content-type"] == "text/event-stream"
    drive.items(stream)
    assert stream.response.is_closed
    assert stream.response.elapsed.total_seconds() > 0


@pytest.mark.parametrize("choice", [True, False])
def test_callers_own_choice_of_usage_stands(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, choice: bool
) -> None:
    options = {"include_usage": choice}
    chunks = drive.collect(lambda: chat(drive.ours(posthog_client=sink), stream_options=options))
    assert options == {"include_usage": choice}
    assert provider.requests[0].json["stream_options"] == {"include_usage": choice}
    assert (chunks[-1].usage is not None) is choice
    (event,) = sink.wait_for(1)
    assert ("$ai_input_tokens" in event.properties) is choice


def test_other_stream_options_are_kept(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    options = {"include_obfuscation": False}
    drive.collect(lambda: chat(drive.ours(posthog_client=sink), stream_options=options))
    assert options == {"include_obfuscation": False}
    assert provider.requests[0].json["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


def test_extra_body_is_the_callers_choice_too(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    extra = {"stream_options": {"include_usage": False}}
    drive.collect(lambda: chat(drive.ours(posthog_client=sink), extra_body=extra))
    assert provider.requests[0].json["stream_options"] == {"include_usage": False}


def test_addition_can_be_turned_off(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink, posthog_stream_usage=False)
    drive.collect(lambda: chat(client))
    drive.collect(lambda: chat(client.with_options(timeout=5)))
    assert all("stream_options" not in r.json for r in provider.requests)
    first, _ = sink.wait_for(2)
    assert "$ai_input_tokens" not in first.properties
    assert "$ai_output_tokens" not in first.properties


REFUSAL = {
    "error": {
        "message": "Unrecognized request argument supplied: stream_options",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}


def test_refused_option_is_left_out_once_and_for_all(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    provider.script("/chat/completions", Reply.json(REFUSAL, 400))
    client = drive.ours(posthog_client=sink)
    first = drive.collect(lambda: chat(client))
    second = drive.collect(lambda: chat(client))
    assert first
    assert second
    assert ["stream_options" in r.json for r in provider.requests] == [True, False, False]
    for event in sink.wait_for(2):
        assert "$ai_is_error" not in event.properties
        assert event.properties["$ai_http_status"] == 200
        assert event.properties["$ai_output_choices"] == SAID


@pytest.mark.parametrize(
    ("body", "requests"),
    [
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, 1),
        ({"error": {"message": "bad", "param": "messages", "code": None}}, 1),
        ({"detail": "Bad request"}, 2),
    ],
)
def test_other_refusals_are_the_callers(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, body: Any, requests: int
) -> None:
    provider.script("/chat/completions", *[Reply.json(body, 400)] * requests)
    with pytest.raises(sdk.BadRequestError):
        drive.call(lambda: chat(drive.ours(posthog_client=sink)))
    assert len(provider.requests) == requests
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_http_status"] == 400


# -- raw bytes and lines, and content encodings ---------------------------------------


def chunk(**more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", **more}


def delta(content: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return chunk(choices=[choice], **more)


ACCEPT = "accept-encoding"
END = {"index": 0, "delta": {}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
PLAIN = b"".join(Reply.stream([delta("one"), delta(" two"), chunk(choices=[END])]).body)
COUNTED = b"".join(
    Reply.stream(
        [
            delta("one", usage=None),
            delta(" two", usage=None),
            chunk(choices=[END], usage=None),
            chunk(choices=[], usage=USAGE),
        ]
    ).body
)


def cut_up(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def encoded(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(body)
    if encoding == "deflate":
        return zlib.compress(body)
    if encoding == "raw deflate":
        return zlib.compress(body)[2:-4]
    if encoding == "br":
        return bytes(brotli.compress(body))
    return bytes(zstandard.compress(body))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    "encoding", ["", "gzip", "deflate", "raw deflate", "br", "zstd", "gzip, deflate"]
)
@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_lines_show_nothing_of_the_option(
    drive: Driver,
    sink: MemorySink,
    provider: ScriptedProvider,
    encoding: str,
    size: int,
    line_end: bytes,
) -> None:
    header = encoding.removeprefix("raw ")
    if encoding == "raw deflate" and size == 1:
        pytest.skip("the HTTP client itself cannot read this one byte by byte")

    def scripted(body: bytes) -> None:
        sent = body.replace(b"\n", line_end)
        for name in filter(None, encoding.split(", ")):
            sent = encoded(sent, name)
        headers = {"content-type": "text/event-stream"}
        if header:
            headers["content-encoding"] = header
        provider.script("/chat/completions", Reply(cut_up(sent, size), headers=headers))

    def lines(client: Any) -> Any:
        manager = client.chat.completions.with_streaming_response.create(**ASK)

        def read(response: Any) -> Any:
            assert response.headers.get("content-encoding", "") == header
            return response.iter_lines()

        found = drive.inside(manager, lambda response: listed(read(response)))
        return found if isinstance(found, list) else list(found)

    scripted(PLAIN)
    bare = lines(drive.bare())
    if encoding in ("br", "zstd") and encoding not in provider.requests[0].headers[ACCEPT]:
        pytest.skip(f"the installed HTTP client does not read {encoding}")
    scripted(COUNTED)
    assert lines(drive.ours(posthog_client=sink)) == bare
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input_tokens"] == 5
    assert event.properties["$ai_output_choices"] == saying("one two")


def listed(lines: Any) -> Any:
    return lines if hasattr(lines, "__aiter__") else list(lines)


def test_reused_prefix_with_spaces(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    spaced = COUNTED.replace(b'":', b'": ').replace(b',"', b', "')
    reply = Reply([spaced], headers={"content-type": "text/event-stream"})
    provider.script("/chat/completions", reply)
    chunks = drive.collect(lambda: chat(drive.ours(posthog_client=sink)))
    assert [c.to_dict().get("usage", "absent") for c in chunks] == ["absent"] * 3
    assert sink.wait_for(1)[0].properties["$ai_output_tokens"] == 2


# -- the endings -----------------------------------------------------------------------


@every_provider
def test_closed_early(drive: Driver, sink: MemorySink) -> None:
    stream = ask(drive, drive.ours(posthog_client=sink))
    drive.items(stream, most=3)
    drive.call(stream.close)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "closed_early"
    assert "$ai_is_error" not in event.properties
    assert "$ai_output_tokens" not in event.properties
    told_at_once = drive.vendor is ANTHROPIC
    assert ("$ai_input_tokens" in event.properties) is told_at_once
    assert "You" in str(event.properties["$ai_output_choices"])


@every_provider
def test_with_and_break(drive: Driver, sink: MemorySink) -> None:
    stream = ask(drive, drive.ours(posthog_client=sink))
    drive.inside(stream, lambda entered: next(iter(entered)) if hasattr(entered, "__next__") else 0)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] in ("closed_early", "dropped")


def test_next_then_for(sink: MemorySink, provider: ScriptedProvider) -> None:
    drive = SyncDriver(provider)
    stream = chat(drive.ours(posthog_client=sink))
    first = next(stream)
    rest = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert len(rest) == 6
    assert sink.wait_for(1)[0].properties["$ai_output_choices"] == SAID


@every_provider
def test_abandoned_to_the_garbage_collector(drive: Driver, sink: MemorySink) -> None:
    stream = ask(drive, drive.ours(posthog_client=sink))
    drive.items(stream, most=2)
    del stream
    gc.collect()
    if isinstance(drive, AsyncDriver):
        drive.loop.run_until_complete(asyncio.sleep(0.01))
        gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] in ("dropped", "closed_early")
    assert "$ai_is_error" not in event.properties


@every_provider
def test_opened_and_never_read(drive: Driver, sink: MemorySink) -> None:
    stream = ask(drive, drive.ours(posthog_client=sink))
    del stream
    gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "dropped"
    assert event.properties["$ai_output_choices"] == []
    assert "$ai_output_tokens" not in event.properties
    assert event.properties["$ai_http_status"] == 200


def test_first_token_has_come_when_the_whole_event_has(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """The provider sends the first event in four pieces, and waits before each."""
    data = b"data: " + json.dumps(delta("one")).encode() + b"\n\n"
    pieces = [data[at : at + len(data) // 4 + 1] for at in range(0, len(data), len(data) // 4 + 1)]
    assert len(pieces) == 4
    provider.script("/chat/completions", Reply.stream([*pieces, delta(" two")], delay=0.03))
    drive.collect(lambda: chat(drive.ours(posthog_client=sink)))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_time_to_first_token"] >= 4 * 0.03


def test_error_object_inside_the_stream(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    error = {"error": {"message": "overloaded", "type": "server_error", "code": "busy"}}
    provider.script("/chat/completions", Reply.stream([delta("par"), error], done=False))
    provider.script("/chat/completions", Reply.stream([delta("par"), error], done=False))
    bare = outcome(lambda: drive.collect(lambda: chat(drive.bare())))
    assert outcome(lambda: drive.collect(lambda: chat(drive.ours(posthog_client=sink)))) == bare
    gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert failure_of(event.properties) == {
        "type": "server_error",
        "status": 200,
        "code": "busy",
        "message": "overloaded",
    }
    assert event.properties["$ai_output_choices"] == saying("par")


@every_provider
def test_connection_cut(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    whole = Reply.stream([delta("one")], done=False).body[0]
    if drive.vendor is ANTHROPIC:
        whole = MESSAGE_SSE[: MESSAGE_SSE.index(b"event: content_block_stop")]
    reply = Reply([whole + b"da"], headers={"content-type": "text/event-stream"}, cut=True)
    provider.script(drive.vendor.path, reply, reply)
    bare = outcome(lambda: drive.items(ask(drive, drive.bare())))
    found = outcome(lambda: drive.items(ask(drive, drive.ours(posthog_client=sink))))
    assert found[0] is bare[0]
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_outcome"] == "error"
    said = "Let me think." if drive.vendor is ANTHROPIC else "one"
    assert said in str(event.properties["$ai_output_choices"])
    assert "$ai_output_tokens" not in event.properties


@every_provider
def test_task_cancelled_and_wait_for(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    if not isinstance(drive, AsyncDriver):
        pytest.skip("only a task can be cancelled")
    ping = b'data: {"type": "ping"}\n\n'
    slow = Reply([ping, ping], headers={"content-type": "text/event-stream"}, delay=0.5)
    provider.script(drive.vendor.path, slow, slow)
    client = drive.ours(posthog_client=sink)

    async def read() -> None:
        async for _ in await drive.vendor.create(client, **ASK):
            pass

    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(read(), 0.8)
        task = asyncio.ensure_future(read())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    drive.loop.run_until_complete(cancelled())
    streaming, in_flight = sink.wait_for(2)
    for event in (streaming, in_flight):
        assert event.properties["posthog_llm_outcome"] == "cancelled"
        assert "$ai_is_error" not in event.properties
    assert streaming.properties["$ai_http_status"] == 200
    assert in_flight.properties["$ai_http_status"] == 0


def test_keyboard_interrupt_in_the_loop(sink: MemorySink, provider: ScriptedProvider) -> None:
    client = SyncDriver(provider).ours(posthog_client=sink)

    def interrupted() -> None:
        for _ in chat(client):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] in ("dropped", "closed_early")
    assert "$ai_is_error" not in event.properties


def test_stream_that_just_stops_is_no_success(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    provider.script("/chat/completions", Reply.stream([delta("par")], done=False))
    assert len(drive.collect(lambda: chat(drive.ours(posthog_client=sink)))) == 1
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_error"]["type"] == "IncompleteStream"


def test_stopping_at_the_finish_reason_is_a_whole_answer(
    sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = SyncDriver(provider).ours(posthog_client=sink)
    stream = chat(client)
    for received in stream:
        if received.choices[0].finish_reason:
            break
    stream.close()
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert event.properties["$ai_output_choices"] == SAID


# -- byte streams of other kinds than a connection's ----------------------------------------

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if sdk.__version__ < "3":
    import httpx as HTTP
KIND = {"content-type": "text/event-stream"}
CHUNK: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
BODY = b"".join(
    Reply.stream(
        {**CHUNK, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": end}]}
        for word, end in (("hello", None), (" there", "stop"))
    ).body
)


def http_client(drive: Driver, handle: Any, **more: Any) -> Any:
    kind = HTTP.AsyncClient if isinstance(drive, AsyncDriver) else HTTP.Client
    return kind(transport=HTTP.MockTransport(handle), **more)


def shown_as_by_the_bare_sdk(drive: Driver, sink: MemorySink, http: Any) -> Any:
    bare = comparable(drive.collect(lambda: chat(drive.bare(http_client=http))))
    ours = drive.ours(http_client=http, posthog_client=sink)
    assert comparable(drive.collect(lambda: chat(ours))) == bare
    (event,) = sink.wait_for(1)
    return event.properties


def test_stream_that_can_be_read_in_both_ways(drive: Driver, sink: MemorySink) -> None:
    seen: list[Any] = []

    def put(response: Any) -> None:
        response.stream = HTTP.ByteStream(BODY)
        seen.append(response)

    async def aput(response: Any) -> None:
        put(response)

    hooks = {"response": [aput if drive.prefix else put]}

    def handle(request: Any) -> Any:
        return HTTP.Response(200, headers=KIND, stream=HTTP.ByteStream(b""))

    http = http_client(drive, handle, event_hooks=hooks)
    found = shown_as_by_the_bare_sdk(drive, sink, http)
    assert found["posthog_llm_outcome"] == "ok"
    for base in (HTTP.SyncByteStream, HTTP.AsyncByteStream):
        assert isinstance(seen[-1].stream, base)


def test_error_of_a_stream_that_knows_no_request(drive: Driver, sink: MemorySink) -> None:
    class Breaks(HTTP.SyncByteStream, HTTP.AsyncByteStream):
        def __iter__(self) -> Any:
            yield BODY[:200]
            raise HTTP.ReadError("broke")

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    http = http_client(drive, lambda _: HTTP.Response(200, headers=KIND, stream=Breaks()))
    bare = outcome(lambda: drive.collect(lambda: chat(drive.bare(http_client=http))))
    ours = drive.ours(http_client=http, posthog_client=sink)
    assert outcome(lambda: drive.collect(lambda: chat(ours))) == bare
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "error"
    assert event.properties["posthog_llm_error"]["type"] == "ReadError"


def test_stream_that_begins_anew_is_one_answer(sink: MemorySink) -> None:
    class Again(HTTP.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield BODY

    async def once() -> Any:
        yield BODY

    async def read(make: Any) -> list[Any]:
        def handle(request: Any) -> Any:
            return HTTP.Response(200, headers=KIND, **make())

        http = HTTP.AsyncClient(transport=HTTP.MockTransport(handle))
        client = posthog_llm.openai.AsyncOpenAI(
            api_key="k-123456", base_url="http://x", http_client=http, posthog_client=sink
        )
        return [chunk async for chunk in await chat(client)]

    for make in (lambda: {"stream": Again()}, lambda: {"content": once()}):
        assert asyncio.run(read(make))
    for event in sink.wait_for(2):
        assert event.properties["posthog_llm_outcome"] == "ok"
        assert event.properties["$ai_output_choices"] == saying("hello there")


def test_a_last_event_that_is_too_large_to_keep_makes_no_failure(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """The event at a response's end has all of its output: a picture of some megabytes, too."""
    item = {
        "id": "i",
        "type": "image_generation_call",
        "status": "completed",
        "result": "A" * (5 << 20),
    }
    counts = {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}
    ended = {"id": "r", "object": "response", "status": "completed", "output": [item]}
    events = [
        {"type": "response.created", "response": {"id": "r", "model": "gpt-5", "output": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**ended, "model": "gpt-5", "usage": counts}},
    ]
    provider.script("/responses", Reply.stream(events, done=False))
    client = drive.ours(posthog_client=sink)
    drive.collect(lambda: client.responses.create(model="gpt-5", input="hi", stream=True))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert event.properties["$ai_output_tokens"] == 6
    assert event.properties["posthog_llm_content_cut_bytes"] > 1 << 20
