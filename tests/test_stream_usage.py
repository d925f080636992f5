"""Usage that is asked for on the caller's behalf: who refuses it, and what the caller sees."""

from __future__ import annotations

import gzip
import json
import sys
import time
from typing import Any

import openai as sdk
import pytest

from posthog_llm._encoding import transcoder
from posthog_llm._exchange import Exchange, Outcome, Scope
from posthog_llm._observe import stream_usage
from posthog_llm._observe.usage_chunk import UsageFilter
from posthog_llm._providers.reading import read
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import AsyncDriver, Driver, comparable, saying

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if sdk.__version__ < "3":
    import httpx as HTTP
MESSAGES = [{"role": "user", "content": "hello there world"}]
VAGUE: dict[str, Any] = {"error": {"message": "Bad request", "param": None, "code": None}}


def chat(client: Any, model: str = "a") -> Any:
    return client.chat.completions.create(model=model, messages=MESSAGES, stream=True)


def asked(provider: ScriptedProvider) -> list[tuple[str, bool]]:
    return [(r.json["model"], "stream_options" in r.json) for r in provider.requests]


def refuse(provider: ScriptedProvider, *bodies: Any, status: int = 400) -> None:
    provider.script("/chat/completions", *(Reply.json(body, status) for body in bodies))


# -- who refuses -------------------------------------------------------------------------


def test_models_behind_one_gateway_refuse_each_for_itself(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    drive.collect(lambda: chat(client, "a"))
    refuse(provider, VAGUE)
    assert drive.collect(lambda: chat(client, "b"))
    drive.collect(lambda: chat(client, "b"))
    drive.collect(lambda: chat(client, "a"))
    assert asked(provider) == [
        ("a", True),
        ("b", True),
        ("b", False),
        ("b", False),
        ("a", True),
    ]
    events = {event.uuid: event.properties for event in sink.wait_for(4)}.values()
    assert [e["$ai_model"] for e in events if "$ai_input_tokens" in e] == ["a", "a"]
    assert [e.get("$ai_is_error", False) for e in events] == [False] * 4
    assert [e["posthog_llm_retries"] for e in events] == [0] * 4


def test_refusal_that_stays_without_the_option_is_the_callers(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    second = {"error": {"message": "Invalid image data", "param": None, "code": None}}
    client = drive.ours(posthog_client=sink)
    refuse(provider, VAGUE, second)
    with pytest.raises(sdk.BadRequestError, match="Invalid image data") as raised:
        drive.call(lambda: chat(client))
    assert not isinstance(raised.value.__context__, sdk.APIStatusError)
    drive.collect(lambda: chat(client))
    assert asked(provider) == [("a", True), ("a", False), ("a", True)]
    failed, answered = sink.wait_for(2)
    assert failed.properties["$ai_error"] == str(raised.value)
    assert failed.properties["posthog_llm_retries"] == 0
    assert answered.properties["$ai_input_tokens"] == 11


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "no", "type": "BadRequestError", "param": None, "code": 400}, 400),  # vLLM
        ({"message": "no", "type": "None", "param": "None", "code": "400"}, 400),  # LiteLLM
        ({"message": "Unknown parameter: 'stream_options'", "param": "stream_options"}, 400),
        ({"message": "no", "code": "unsupported_parameter"}, 422),
        ({"message": "no", "code": "ValidationException"}, 400),
        ({"message": "no", "code": "InvalidParameter"}, 400),
        ({"message": "no", "code": "unknown_field"}, 400),
        ({"message": "no", "param": "body", "code": None}, 400),
        ({"message": "include_usage is not allowed", "code": "forbidden"}, 403),
        ({"message": "no stream_options here", "code": "not_found"}, 404),
        ({"message": "unknown: stream_options"}, 500),
        ({"message": "stream_options: not implemented"}, 501),
    ],
)
def test_refusals_that_may_be_about_the_option(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, error: Any, status: int
) -> None:
    refuse(provider, {"error": error}, status=status)
    assert drive.collect(lambda: chat(drive.ours(posthog_client=sink)))
    assert asked(provider) == [("a", True), ("a", False)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "too long", "code": "context_length_exceeded"}, 400),
        ({"message": "no", "code": "invalid_image", "param": None}, 400),
        ({"message": "no", "code": None, "param": "messages"}, 400),
        ({"message": "not for you"}, 403),
        ({"message": "too large"}, 413),
        ({"message": "down"}, 500),
    ],
)
def test_refusals_for_another_cause_are_the_callers_at_once(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, error: Any, status: int
) -> None:
    refuse(provider, {"error": error}, status=status)
    with pytest.raises(sdk.APIStatusError):
        drive.call(lambda: chat(drive.ours(posthog_client=sink)))
    assert asked(provider) == [("a", True)]


def test_failure_that_names_the_option_is_tried_once_more_after_the_sdks_retries(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    body = {"error": {"message": "cannot read stream_options"}}
    failures = [Reply.json(body, 500, **{"retry-after-ms": "1"}) for _ in range(3)]
    provider.script("/chat/completions", *failures)
    with pytest.raises(sdk.InternalServerError):
        drive.call(lambda: chat(drive.ours(posthog_client=sink, max_retries=1)))
    assert asked(provider) == [("a", True), ("a", True), ("a", False)]


def test_own_retries_of_the_sdk_are_captured_beside_a_refusal(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    later = {"retry-after-ms": "1"}
    provider.script(
        "/chat/completions",
        Reply.json({}, 503, **later),
        Reply.json(VAGUE, 400),
        Reply.json({}, 503, **later),
    )
    client = drive.ours(posthog_client=sink, max_retries=1)
    assert drive.collect(lambda: chat(client))
    assert len(provider.requests) == 4
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_retries"] == 2
    assert "stream_options" not in str(event.properties)


def test_refusals_are_few_and_forgotten(
    drive: Driver,
    sink: MemorySink,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = drive.ours(posthog_client=sink)
    monkeypatch.setattr(stream_usage, "_MOST_KNOWN", 2)
    for model in "abc":
        refuse(provider, VAGUE)
        drive.collect(lambda model=model: chat(client, model))
    assert [model for _, _, model in stream_usage._refused] == ["c"]
    (key,) = stream_usage._refused
    stream_usage._refused[key] -= stream_usage._FORGOTTEN_AFTER
    drive.collect(lambda: chat(client, "c"))
    assert asked(provider)[-1] == ("c", True)


# -- what shows --------------------------------------------------------------------------


def chunk(**more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}


def delta(content: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": content}, "finish_reason": None}


END = {"index": 0, "delta": {}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
ZEROS = dict.fromkeys(USAGE, 0)
CHUNKS = [chunk(choices=[delta("one")]), chunk(choices=[delta(" two")]), chunk(choices=[END])]
DETAILS = {"reasoning_tokens": 0, "text_tokens": 2}
ADDED = {
    "OpenAI, vLLM, SGLang": chunk(choices=[], usage={**USAGE, "prompt_tokens_details": None}),
    "no choices": chunk(usage=USAGE),
    "null choices": chunk(choices=None, usage=USAGE),
    "LiteLLM": chunk(
        choices=[{"index": 0, "delta": {}}], usage={**USAGE, "completion_tokens_details": DETAILS}
    ),
    "LiteLLM, cost": chunk(choices=[], usage={**USAGE, "cost": 0.1}),
    "LiteLLM, completions": chunk(choices=[{"index": 0}], usage=USAGE),
    "llama.cpp": chunk(choices=[], usage=USAGE, timings={"prompt_n": 1}),
    "SambaNova": chunk(
        choices=[],
        usage={**USAGE, "is_last_response": True, "total_latency": 0.1, "end_time": 1.5}
        | {"completion_tokens_after_first_per_sec_first_ten": 9.5, "time_to_first_token": 0.2},
    ),
    "Azure": chunk(choices=[], usage={**USAGE, "latency_checkpoint": {"engine_tbt_ms": 5}}),
    "xAI": chunk(choices=[], usage={**USAGE, "cost_in_usd_ticks": 12345, "num_sources_used": 0}),
    "DeepInfra": chunk(choices=[], usage={**USAGE, "estimated_cost": 0.0001}),
    "Dynamo": chunk(choices=[], usage=USAGE, nvext={"worker_id": 1}),
    "a router": chunk(choices=[], usage={**USAGE, "type": "chat"}, provider="X"),
}
KINDS = [None, "application/octet-stream", "Text/Event-Stream", "text/event-stream; charset=utf-8"]


def answer(chunks: list[Any], kind: str | None = "text/event-stream") -> Reply:
    return Reply(Reply.stream(chunks).body, headers={} if kind is None else {"content-type": kind})


def shown_beside_bare(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, bare: Reply, ours: Reply
) -> Any:
    """Check that both callers see the same, and return the event of ours."""
    provider.script("/chat/completions", bare, ours)
    expected = comparable(drive.collect(lambda: chat(drive.bare())))
    assert comparable(drive.collect(lambda: chat(drive.ours(posthog_client=sink)))) == expected
    event = sink.wait_for(1)[-1]
    sink._events.clear()
    return event.properties


@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED)
def test_chunk_that_servers_add_is_hidden(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, added: Any
) -> None:
    found = shown_beside_bare(drive, sink, provider, answer(CHUNKS), answer([*CHUNKS, added]))
    assert found["$ai_output_tokens"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_content_type_does_not_matter(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, kind: str | None
) -> None:
    added = [*CHUNKS, chunk(choices=[], usage=USAGE)]
    found = shown_beside_bare(drive, sink, provider, answer(CHUNKS, kind), answer(added, kind))
    assert found["$ai_output_tokens"] == 2
    assert found["$ai_output_choices"] == saying("one two")
    assert found["$ai_time_to_first_token"] > 0


@pytest.mark.parametrize("usage", [None, ZEROS], ids=["null", "zeros"])
def test_empty_usage_of_other_chunks_is_hidden(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, usage: Any
) -> None:
    added = [{**c, "usage": usage} for c in CHUNKS] + [chunk(choices=[], usage=USAGE)]
    # Go's JSON, and OpenAI's, has no spaces.
    body = [b"data: %b\n\n" % json.dumps(c, separators=(",", ":")).encode() for c in added]
    reply = Reply([*body, b"data: [DONE]\n\n"], headers={"content-type": "text/event-stream"})
    found = shown_beside_bare(drive, sink, provider, answer(CHUNKS), reply)
    assert found["$ai_output_tokens"] == 2


@pytest.mark.parametrize(
    "more",
    [
        chunk(choices=[], usage={**USAGE, "cost": 0.1, "is_byok": False}),
        chunk(choices=[], usage={**USAGE, "cost_details": {"upstream_inference_cost": 0.1}}),
        chunk(choices=[], usage=USAGE, citations=["https://example.com"]),
        chunk(choices=[], usage=USAGE, search_results=[{"url": "https://example.com"}]),
        chunk(choices=[END], usage=USAGE),
        chunk(choices=[{"index": 0, "delta": {"content": ""}}], usage=USAGE),
    ],
    ids=["cost", "cost details", "citations", "search results", "finish reason", "content"],
)
def test_chunk_that_says_more_is_shown(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, more: Any
) -> None:
    sent = answer([*CHUNKS, more])
    found = shown_beside_bare(drive, sink, provider, sent, sent)
    assert found["$ai_output_tokens"] == 2


def test_body_that_a_hook_has_read(drive: Driver, sink: MemorySink) -> None:
    bodies = {True: [*CHUNKS, chunk(choices=[], usage=USAGE)], False: CHUNKS}
    seen: list[str] = []

    def handle(request: Any) -> Any:
        chunks = bodies["stream_options" in json.loads(request.content)]
        return HTTP.Response(200, content=b"".join(Reply.stream(chunks).body))

    def read(response: Any) -> None:
        response.read()
        seen.append(response.text)

    async def aread(response: Any) -> None:
        await response.aread()
        seen.append(response.text)

    kind, hook = (HTTP.AsyncClient, aread) if drive.prefix else (HTTP.Client, read)
    http = kind(transport=HTTP.MockTransport(handle), event_hooks={"response": [hook]})
    bare = drive.collect(lambda: chat(drive.bare(http_client=http)))
    stream = drive.call(lambda: chat(drive.ours(http_client=http, posthog_client=sink)))
    assert comparable(drive.items(stream)) == comparable(bare)
    assert stream.response.text == seen[0] != seen[1]
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_tokens"] == 2


@pytest.mark.parametrize(
    ("url", "last"),
    [
        ("https://openrouter.ai/api/v1", chunk(choices=[], usage=USAGE)),
        ("https://api.deepseek.com", chunk(choices=[END], usage=USAGE)),
        ("https://api.mistral.ai/v1", chunk(choices=[END], usage=USAGE)),
        ("https://api.groq.com/openai/v1", chunk(choices=[END], x_groq={"usage": USAGE})),
        ("https://api.perplexity.ai", chunk(choices=[END], usage=USAGE, citations=["x"])),
    ],
)
def test_usage_that_is_sent_unasked_is_the_callers(
    drive: Driver, sink: MemorySink, url: str, last: Any
) -> None:
    sent: list[Any] = []

    def handle(request: Any) -> Any:
        sent.append(json.loads(request.content))
        return HTTP.Response(200, content=b"".join(Reply.stream([CHUNKS[0], last]).body))

    kind = HTTP.AsyncClient if isinstance(drive, AsyncDriver) else HTTP.Client
    http = kind(transport=HTTP.MockTransport(handle))
    client = drive.ours(http_client=http, base_url=url, posthog_client=sink)
    first, shown = drive.collect(lambda: chat(client))
    assert (first.to_dict(), shown.to_dict()) == (CHUNKS[0], last)
    assert "stream_options" not in sent[0]
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_tokens"] == 2


def test_lines_that_are_no_events_pass_as_they_come() -> None:
    line = json.dumps(chunk(choices=[delta("one")], usage=None)).encode() + b"\n"
    for pieces in ([line, line], [b"\n", b"{", line[1:], line], [b"ev", b"il: 1\n"]):
        usage_filter = UsageFilter()
        shown = [usage_filter.feed(piece) for piece in pieces]
        assert b"".join(shown).strip() == b"".join(pieces).strip()
        assert shown[-1] == pieces[-1] or shown[-1].endswith(pieces[-1])
        assert usage_filter.end() == b""


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n\r\n", b": hello\n\n", b"id: 1\n"])
def test_events_in_pieces_of_any_size_are_looked_at(start: bytes) -> None:
    body = start + b"".join(Reply.stream([*CHUNKS, chunk(choices=[], usage=USAGE)]).body)
    shown = start + b"".join(Reply.stream(CHUNKS).body)
    for size in range(1, len(start) + 12):
        usage_filter = UsageFilter()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert b"".join(map(usage_filter.feed, pieces)) + usage_filter.end() == shown


# -- what it costs -----------------------------------------------------------------------


def seconds(size: int, piece: int, line_end: bytes, encoding: str) -> float:
    """Return the processor's time for one event of about `size` bytes, then the usage chunk."""
    text = b'data: {"usage":1,"choices":[{"delta":{"content":"%b"}}]}' % (b"x" * size)
    last = b"data: " + json.dumps(ADDED["OpenAI, vLLM, SGLang"]).encode()
    body = text + line_end * 2 + last + line_end * 2
    response = HTTP.Response(200, headers={"content-encoding": encoding} if encoding else {})
    hidden: Any = UsageFilter()
    if encoding:
        hidden = transcoder(response, encoding, hidden)
        body = gzip.compress(body, 0)
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    started = time.process_time()
    shown = [hidden.feed(data) for data in pieces]
    shown.append(hidden.end())
    spent = time.process_time() - started
    found = b"".join(shown)
    if encoding:
        found = b"".join(HTTP.Response(200, headers=response.headers, content=found).iter_bytes())
    assert found == text + line_end * 2
    return spent


@pytest.mark.once  # ours reads bytes, without the SDK
@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("piece", [16, 700])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_time_grows_as_an_event_does(piece: int, line_end: bytes, encoding: str) -> None:
    small = min(seconds(piece * 500, piece, line_end, encoding) for _ in range(3))
    most = 32 * max(small, 0.0005)
    assert any(seconds(piece * 8 * 500, piece, line_end, encoding) < most for _ in range(3))


def seconds_to_read(pieces: int) -> float:
    """Return the processor's time for reading an answer that came byte by byte."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\r\n\r\n'
    body = event * (pieces // len(event))
    found = Exchange("chat", "id", Scope(), 0.0, base_url="http://x", streamed=True)
    found.chunks = [body[at : at + 1] for at in range(len(body))]
    found.times = [0.0] * len(body)
    found.outcome, found.headers = Outcome.CLOSED_EARLY, {"content-type": "text/event-stream"}
    started = time.process_time()
    record = read(found)
    spent = time.process_time() - started
    assert record.response.output == [
        {"role": "assistant", "content": "word" * (pieces // len(event))}
    ]
    return spent


def test_time_to_read_grows_as_the_pieces_do() -> None:
    small, large = (min(seconds_to_read(size) for _ in range(3)) for size in (10_000, 80_000))
    assert large < 32 * small


def test_nothing_of_a_long_event_behind_a_short_one_in_one_piece_is_lost(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """What decompresses at once comes in such pieces."""
    long = {"index": 0, "delta": {"content": "x" * 100_000}}
    chunks = [CHUNKS[0], chunk(choices=[long]), *CHUNKS[1:]]
    body = b"".join(Reply.stream(chunks).body)
    for size in (70_000, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        sent = Reply(pieces, headers={"content-type": "text/event-stream"})
        shown_beside_bare(drive, sink, provider, sent, sent)


def test_no_byte_is_lost_however_the_stream_is_cut() -> None:
    """But for the usage chunk."""
    long = {"index": 0, "delta": {"content": "x" * 100_000}}
    chunks = [CHUNKS[0], chunk(choices=[long]), *CHUNKS[1:], chunk(choices=[long])]
    body = b"".join(Reply.stream(chunks).body)
    for size in (1000, 65_000, 66_000, 70_000, 131_072, 200_000, len(body)):
        usage_filter = UsageFilter()
        shown = [usage_filter.feed(body[at : at + size]) for at in range(0, len(body), size)]
        assert b"".join(shown) + usage_filter.flush() == body


@pytest.mark.parametrize("null", [b', "usage": null}', b',"usage":null,"obfuscation":"x"}'])
def test_no_null_is_left_in_an_event_of_any_length(null: bytes) -> None:
    for length in (1000, 65_300, 65_536, 100_000, 200_000):
        event = b'data: {"choices":[{"delta":{"content":"%b"}}]' % (b"x" * length)
        shown = (event + null).replace(b', "usage": null', b"").replace(b',"usage":null', b"")
        for size in (100, 1000, 65_536, 10**6):
            usage_filter, body = UsageFilter(), (event + null + b"\n\n") * 2
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            assert (
                b"".join(map(usage_filter.feed, pieces)) + usage_filter.end()
                == (shown + b"\n\n") * 2
            )
