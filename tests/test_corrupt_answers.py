"""Answers that cannot be decoded: the caller sees what the bare SDK shows, the event says error."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import brotli
import openai as sdk
import pytest
import zstandard

from posthog_llm._providers.aws_event_stream import CONTENT_TYPE
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider
from posthog_llm.testing._echo_messages import aws_frame

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

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if sdk.__version__ < "3":
    import httpx as HTTP
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SSE = {"content-type": "text/event-stream"}


def delta(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}}
    return b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()


BODY = delta("one") + delta("two") + b"data: [DONE]\n\n"
OPEN = delta("one") + delta("two")
ENCODERS: dict[str, Any] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def encoded(body: bytes, encoding: str) -> bytes:
    for name in filter(None, encoding.split(", ")):
        body = ENCODERS[name](body) if name in ENCODERS else body
    return bytes(body)


class Wire:
    """A transport that answers every request with the same pieces, and both kinds of clients."""

    def __init__(self, provider: Any, kind: type[Driver]) -> None:
        self.drive = kind(provider)
        self.sink = MemorySink()
        transport = HTTP.MockTransport(lambda request: self._answer())
        http = (HTTP.AsyncClient if self.drive.prefix else HTTP.Client)(transport=transport)
        self.bare = self.drive.bare(http_client=http)
        self.ours = self.drive.ours(http_client=http, posthog_client=self.sink)

    def _answer(self) -> Any:
        class Body(HTTP.SyncByteStream, HTTP.AsyncByteStream):  # type: ignore[misc,name-defined]
            def __iter__(body) -> Iterator[bytes]:
                return iter(self.pieces)

            async def __aiter__(body) -> Any:
                for piece in self.pieces:
                    yield piece

        headers = {**SSE, **({"content-encoding": self.encoding} if self.encoding else {})}
        return HTTP.Response(200, headers=headers, stream=Body())

    def seen(self, client: Any) -> Any:
        """Return the items that a caller gets, and the exception that ends them."""
        found: list[Any] = []

        async def read() -> None:
            async for item in await client.chat.completions.create(**ASK, stream=True):
                found.append(comparable(item))  # noqa: PERF401 - what came before an error counts

        try:
            if isinstance(self.drive, AsyncDriver):
                self.drive.loop.run_until_complete(read())
            else:
                for item in client.chat.completions.create(**ASK, stream=True):
                    found.append(comparable(item))  # noqa: PERF401 - as above
        except Exception as error:
            cause = error.__cause__
            return found, type(error), str(error), type(cause), str(cause)
        return found

    def compare(self, pieces: list[bytes], encoding: str) -> Any:
        self.pieces, self.encoding = pieces, encoding
        expected = self.seen(self.bare)
        assert self.seen(self.ours) == expected, (encoding, pieces)
        return expected


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    made = Wire(None, request.param)
    yield made
    made.drive.close()


LISTS = [*ENCODERS, "gzip, br", "gzip, zstd", "identity", "unknown", "unknown, gzip", ""]


@pytest.mark.parametrize("encoding", LISTS)
def test_every_truncation_is_the_bare_sdks(wire: Wire, encoding: str) -> None:
    body = encoded(OPEN, encoding)
    for size in range(0, len(body) + 1, 1 if encoding in ENCODERS else 5):
        wire.compare([body[:size]], encoding)
        wire.compare([body[: size // 2], body[size // 2 : size]], encoding)
    gc.collect()
    assert wire.sink.events


@pytest.mark.parametrize("encoding", [*ENCODERS, "gzip, br"])
def test_every_wrong_byte_is_the_bare_sdks(wire: Wire, encoding: str) -> None:
    body = encoded(BODY, encoding)
    for at in range(len(body)):
        wrong = bytearray(body)
        wrong[at] ^= 0xFF
        wire.compare([bytes(wrong[:at]), bytes(wrong[at:])], encoding)
    gc.collect()


@pytest.mark.parametrize("encoding", ENCODERS)
def test_what_follows_the_end_is_the_bare_sdks(wire: Wire, encoding: str) -> None:
    first, second = encoded(delta("one"), encoding), encoded(delta("two"), encoding)
    junk = b"\x00junk that is no member"
    for pieces in ([first, second], [first + second], [first, junk], [first + junk], [b""], []):
        wire.compare(pieces, encoding)
    gc.collect()


def test_raised_error_is_the_http_packages_own(wire: Wire) -> None:
    body = encoded(OPEN, "zstd")[:-1]
    found = wire.compare([body], "zstd")
    if isinstance(found, list):
        pytest.skip("the installed HTTP client does not read zstd")
    says = next(text for text in (found[2], found[4]) if "incomplete" in text)
    gc.collect()
    (event,) = wire.sink.wait_for(1)
    assert failure_of(event.properties) == {
        "type": "DecodingError",
        "message": says,
        "status": 200,
    }


# -- what the event says -----------------------------------------------------------------


def corrupt_gzip(*whole: bytes) -> list[bytes]:
    """Return pieces of a gzip stream: whole ones, and one that is not."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(b) + packer.flush(zlib.Z_SYNC_FLUSH) for b in whole]
    return [*pieces, b"\xff" * 30]


def abandon(drive: Driver) -> None:
    """Let a stream that an error left behind be collected."""
    gc.collect()
    if isinstance(drive, AsyncDriver):
        drive.loop.run_until_complete(asyncio.sleep(0.01))
        gc.collect()


@pytest.fixture
def said(drive: Driver) -> list[Any]:
    return saying("one")


def events_of(drive: Driver) -> tuple[bytes, bytes]:
    """Return the beginning of a stream, up to one word that was said, and another such event."""
    if drive.vendor is not ANTHROPIC:
        return delta("one"), delta("two")
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m"}
    message |= {"usage": {"input_tokens": 3, "output_tokens": 1}}
    block = {"type": "content_block_start", "index": 0}
    head = [
        {"type": "message_start", "message": message},
        {**block, "content_block": {"type": "text", "text": ""}},
    ]
    texts = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("one", "two")
    ]
    one, two, three, four = (
        f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in [*head, *texts]
    )
    return one + two + three, four


CORRUPT: dict[str, Any] = {
    "gzip": ("DecodingError", lambda one, two: corrupt_gzip(one)),
    "UTF-8": ("UnicodeDecodeError", lambda one, two: [one + two.replace(b"two", b"\xff") + two]),
    "JSON": ("JSONDecodeError", lambda one, two: [one + two.replace(b'"two"', b"two") + two]),
    "JSON, CRLF": (
        "JSONDecodeError",
        lambda one, two: [(one + two.replace(b"}\n", b"\n") + two).replace(b"\n", b"\r\n")],
    ),
    "escape": ("JSONDecodeError", lambda one, two: [one + two.replace(b"two", b"\\x") + two]),
}


@every_provider
@pytest.mark.parametrize("kind", CORRUPT)
def test_answer_that_cannot_be_decoded_is_an_error(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, said: list[Any], kind: str
) -> None:
    named, damage = CORRUPT[kind]
    headers = {**SSE, **({"content-encoding": "gzip"} if kind == "gzip" else {})}
    reply = Reply(damage(*events_of(drive)), headers=headers)
    provider.script(drive.vendor.path, reply, reply)

    def read(client: Any) -> Any:
        return outcome(lambda: drive.items(drive.ask(client, stream=True)))

    bare = read(drive.bare())
    assert read(drive.ours(posthog_client=sink)) == bare
    assert issubclass(bare[0], Exception)
    abandon(drive)
    (event,) = sink.wait_for(1)
    found = event.properties
    assert (found["posthog_llm_outcome"], found["$ai_is_error"]) == ("error", True)
    assert found["posthog_llm_error"]["type"] == named
    if kind != "gzip":  # of which OpenAI's SDK says "Connection error."
        assert found["$ai_error"] == bare[1]
    assert found["$ai_output_choices"] == said


@every_provider
def test_answer_that_is_left_before_its_end_is_no_error(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, said: list[Any]
) -> None:
    one, two = events_of(drive)
    half = two[: two.index(b"two") + 1]
    provider.script(drive.vendor.path, Reply([one, half + b"\xc3"], headers=SSE, delay=0.05))
    stream = drive.ask(drive.ours(posthog_client=sink), stream=True)
    drive.items(stream, most=1)
    drive.call(stream.close)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "closed_early"
    assert "$ai_is_error" not in event.properties
    assert event.properties["$ai_output_choices"] == said


def test_what_follows_the_last_event_is_nobodys(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = delta("one") + b"data: %b\n\n" % json.dumps(end).encode() + b"data: [DONE]\n\n"
    provider.script("/chat/completions", Reply([body + b"data: {\xff\n\n"], headers=SSE))
    client = drive.ours(posthog_client=sink)
    outcome(lambda: drive.items(drive.ask(client, stream=True)))
    abandon(drive)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "ok"


AWS = {"aws_access_key": "a", "aws_secret_key": "s", "aws_region": "us-east-1"}


@pytest.mark.parametrize("at", [9, -1, -30], ids=["prelude", "message checksum", "payload"])
@pytest.mark.parametrize("kind", ["Anthropic sync", "Anthropic async"])
def test_wrong_checksum_of_bedrock_is_an_error(
    sink: MemorySink, provider: ScriptedProvider, kind: str, at: int
) -> None:
    from .driving import DRIVERS

    drive = DRIVERS[kind](provider)
    one, two = events_of(drive)
    blocks = [b for b in (one + two + two).split(b"\n\n") if b]
    frames = [aws_frame(json.loads(block.partition(b"data: ")[2])) for block in blocks]
    wrong = bytearray(frames[-2])
    wrong[at] ^= 1
    body = b"".join([*frames[:-2], bytes(wrong), frames[-1]])
    reply = Reply([body], headers={"content-type": CONTENT_TYPE})
    provider.script("/model/m/invoke-with-response-stream", reply, reply)

    def read(module: Any, **more: Any) -> Any:
        made = getattr(module, f"{drive.prefix}AnthropicBedrock")
        client = made(base_url=provider.url, max_retries=0, **AWS, **more)
        return outcome(lambda: drive.items(drive.ask(client, stream=True)))

    bare = read(drive.vendor.sdk)
    assert read(drive.vendor.ours, posthog_client=sink) == bare
    abandon(drive)
    (event,) = sink.wait_for(1)
    assert failure_of(event.properties) == {
        "type": bare[0].__name__,
        "message": bare[1],
        "status": 200,
    }
    assert event.properties["$ai_output_choices"] == saying("one")
    drive.close()


@every_provider
@pytest.mark.parametrize("damage", [lambda b: gzip.compress(b)[:20] + b"\xff" * 40, lambda b: b"{"])
def test_plain_answer_that_cannot_be_decoded_is_an_error(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, damage: Any
) -> None:
    body = damage(b'{"id": "x"}' * 20)
    headers = {"content-type": "application/json"}
    if body != b"{":
        headers["content-encoding"] = "gzip"
    reply = Reply([body], headers=headers)
    provider.script(drive.vendor.path, reply, reply)
    bare = outcome(lambda: drive.ask(drive.bare()))
    assert outcome(lambda: drive.ask(drive.ours(posthog_client=sink))) == bare
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_error"]["type"] == bare[0].__name__
