"""Whatever a provider answers, the caller gets what the bare SDK gives: value or exception."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import json
import re
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import anthropic
import openai as sdk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posthog_llm import _faults as faults
from posthog_llm import anthropic as ours_too
from posthog_llm import openai as ours
from posthog_llm._observe import event_ids
from posthog_llm.testing import MemorySink

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if sdk.__version__ < "3":
    import httpx as HTTP
WIRE = Path(__file__).parent / "wire"
AS_JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "hi"}]
CALLS: dict[str, Any] = {
    "chat": lambda c, s: c.chat.completions.create(model="m", messages=MESSAGES, stream=s),
    "response": lambda c, s: c.responses.create(model="m", input="hi", stream=s),
    "embedding": lambda c, s: c.embeddings.create(model="m", input="hi"),
    "message": lambda c, s: c.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=s),
    "image": lambda c, s: c.images.generate(model="m", prompt="hi"),
}
USAGE_ALONE = re.compile(r"choices=(\[\]|None),.* usage=CompletionUsage\(")
FUZZED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Body(HTTP.SyncByteStream, HTTP.AsyncByteStream):  # type: ignore[misc,name-defined]
    def __init__(self, pieces: list[bytes], broken: bool) -> None:
        self.pieces = pieces
        self.broken = broken

    def __iter__(self) -> Any:
        yield from self.pieces
        if self.broken:
            raise HTTP.ReadError("cut")

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


class Both:
    """One client of each provider, under one name."""

    def __init__(self, first: Any, second: Any, **kwargs: Any) -> None:
        self._first = first(**kwargs)
        self.messages = second(**kwargs).messages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


class Wire:
    """A transport that answers every request with the same bytes."""

    def __init__(self) -> None:
        self.sink = MemorySink()
        self.answer: Any = None
        transport = HTTP.MockTransport(lambda request: self.answer())
        shared: dict[str, Any] = {"api_key": "k", "max_retries": 0}
        client = HTTP.Client(transport=transport)
        properties = {**shared, "http_client": client, "posthog_client": self.sink}
        self.bare = Both(sdk.OpenAI, anthropic.Anthropic, **shared, http_client=client)
        self.ours = Both(ours.OpenAI, ours_too.Anthropic, **properties)
        client = HTTP.AsyncClient(transport=transport)
        properties["http_client"] = client
        self.bare_async = Both(
            sdk.AsyncOpenAI, anthropic.AsyncAnthropic, **shared, http_client=client
        )
        self.ours_async = Both(ours.AsyncOpenAI, ours_too.AsyncAnthropic, **properties)
        self.loop = asyncio.new_event_loop()

    def script(
        self, body: bytes, status: int, headers: dict[str, str], cut: int, broken: bool
    ) -> None:
        pieces = [body[at : at + cut] for at in range(0, len(body), cut)]

        def answer() -> Any:
            return HTTP.Response(status, headers=headers, stream=Body(pieces, broken))

        self.answer = answer

    def run(self, client: Any, name: str, stream: bool) -> Any:
        def call() -> Any:
            answer = CALLS[name](client, stream)
            if stream and hasattr(answer, "__next__"):
                return [repr(item) for item in answer]
            return answer

        return self._outcome(call)

    def run_async(self, client: Any, name: str, stream: bool) -> Any:
        async def awaited() -> Any:
            answer = await CALLS[name](client, stream)
            if stream and hasattr(answer, "__anext__"):
                return [repr(item) async for item in answer]
            return answer

        return self._outcome(lambda: self.loop.run_until_complete(awaited()))

    def events(self) -> Any:
        """Return the events, also of a stream that a broken answer left behind."""
        found = self.sink.events
        if not found:
            gc.collect()
            self.loop.run_until_complete(asyncio.sleep(0.01))
            gc.collect()
            found = self.sink.events
        self.sink._events.clear()
        return found

    @staticmethod
    def _outcome(call: Any) -> Any:
        try:
            answer = call()
            return answer if isinstance(answer, list) else repr(answer)
        except Exception as error:
            # Where in a chunk its JSON breaks depends on what was taken out of that chunk.
            return type(error).__name__, re.sub(r"line \d+ column \d+ \(char \d+\)", "", str(error))


@pytest.fixture(scope="module")
def wire() -> Any:
    made = Wire()
    yield made
    made.loop.run_until_complete(made.loop.shutdown_asyncgens())
    made.loop.close()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "data: x", "[DONE]", "x" * 5000, [[]] * 3, {}, {"content": "y"}]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["content", "index", "id", "usage", "type"]), st.none()),
)


def recorded(name: str) -> Path:
    (found,) = WIRE.glob(f"*/{name}")
    return found


@st.composite
def mutated(draw: Any, value: Any) -> Any:
    """Return a JSON value with some of its places replaced, dropped or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(value))
        at = draw(st.integers(0, max(0, len(places) - 1)))
        owner, key = places[at] if places else (None, None)
        if owner is None:
            return copy.deepcopy(draw(JUNK))
        how = draw(st.sampled_from(["replace", "replace", "drop", "double"]))
        if how == "drop":
            del owner[key]
        elif how == "double" and isinstance(owner, list):
            owner.insert(key, owner[key])
        else:
            owner[key] = copy.deepcopy(draw(JUNK))
    return value


def _places(value: Any) -> Any:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield value, key
        yield from _places(inner)


@st.composite
def bodies(draw: Any, name: str) -> bytes:
    whole = json.loads(recorded(f"{name}.json").read_text())
    body = json.dumps(draw(mutated(whole))).encode()
    return draw(damaged(body))


@st.composite
def streams(draw: Any, name: str) -> bytes:
    blocks = recorded(f"{name}.sse").read_text().removesuffix("\n\n").split("\n\n")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(blocks) - 1))
        head, _, data = blocks[at].partition("data: ")
        how = draw(st.sampled_from(["mutate", "mutate", "drop", "double", "junk"]))
        if how == "drop" and len(blocks) > 1:
            del blocks[at]
        elif how == "double":
            blocks.insert(at, blocks[at])
        elif how == "junk":
            junk = [": ping", "data:", "data", "event: error", "retry: x", "", "data: {", "\x00"]
            blocks[at] = draw(st.sampled_from(junk))
        elif data.endswith("}"):
            blocks[at] = f"{head}data: {json.dumps(draw(mutated(json.loads(data))))}"
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    body = "".join(f"{block}\n\n" for block in blocks).replace("\n", end)
    return draw(damaged(body.encode("utf-8", "surrogatepass")))


@st.composite
def damaged(draw: Any, body: bytes) -> bytes:
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "bytes", "empty"]))
    if how == "empty":
        return b""
    at = draw(st.integers(0, max(0, len(body) - 1)))
    if how == "cut":
        return body[:at]
    if how == "bytes":
        return body[:at] + draw(st.binary(max_size=4)) + body[at:]
    return body


def same_for_both(wire: Wire, data: Any, name: str, stream: bool, body: bytes) -> None:
    good = "text/event-stream" if stream else "application/json"
    kinds = st.sampled_from([good] * 5 + ["text/plain", "", "application/json; charset=utf-8"])
    headers = {"content-type": data.draw(kinds)}
    encoding = data.draw(st.sampled_from(["", "", "", "gzip", "broken gzip", "unknown"]))
    if encoding:
        headers["content-encoding"] = encoding.removeprefix("broken ")
        body = gzip.compress(body) if encoding == "gzip" else body
    status = data.draw(st.sampled_from([200] * 6 + [201, 204, 400, 404, 500]))
    cut = data.draw(st.sampled_from([1 << 20, 4096, 97, 13]))
    wire.script(body, status, headers, cut, data.draw(st.booleans()) and stream)
    if data.draw(st.booleans()):
        bare, found = (
            wire.run(wire.bare, name, stream),
            wire.run(wire.ours, name, stream),
        )
    else:
        bare = wire.run_async(wire.bare_async, name, stream)
        found = wire.run_async(wire.ours_async, name, stream)
    events = wire.events()
    found_faults = dict(faults.counts)
    faults.counts.clear()
    assert found == _less_usage(bare, found)
    assert len(events) == 1, events
    json.dumps(dict(events[0].properties))
    assert not found_faults


def _less_usage(bare: Any, found: Any) -> Any:
    """Leave out chunks with nothing but usage that ours did not show: they were not asked for.

    This wire sends them whether they are asked for or not.
    """
    if not isinstance(bare, list) or not isinstance(found, list):
        return bare
    shown = iter(found)
    following = next(shown, None)
    kept = []
    for item in bare:
        if item == following:
            following = next(shown, None)
        elif USAGE_ALONE.search(item):
            continue
        kept.append(item)
    return kept


@FUZZED
@given(data=st.data(), name=st.sampled_from(list(CALLS)))
def test_any_plain_answer(wire: Wire, data: Any, name: str) -> None:
    same_for_both(wire, data, name, False, data.draw(bodies(name)))


@FUZZED
@given(data=st.data(), name=st.sampled_from(["chat", "response", "message"]))
def test_any_stream(wire: Wire, data: Any, name: str) -> None:
    same_for_both(wire, data, name, True, data.draw(streams(name)))


# -- size --------------------------------------------------------------------------------


def test_endless_stream_is_bounded_and_still_counted(wire: Wire) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "x" * 1_000}, "finish_reason": None}
    chunk = b"data: %b\n\n" % json.dumps({**head, "choices": [choice]}).encode()
    usage = {"prompt_tokens": 3, "completion_tokens": 50_000, "total_tokens": 50_003}
    last = (
        b"data: %b\n\ndata: [DONE]\n\n"
        % json.dumps({**head, "choices": [], "usage": usage}).encode()
    )
    wire.answer = lambda: HTTP.Response(
        200,
        headers={"content-type": "text/event-stream"},
        stream=Body([chunk] * 10_000 + [last], False),
    )
    gc.collect()
    blocks = sys.getallocatedblocks()
    stream: Any = CALLS["chat"](wire.ours, True)
    assert sum(1 for _ in stream) == 10_000
    (event,) = wire.events()
    assert event.properties["$ai_output_tokens"] == 50_000
    assert event.properties["posthog_llm_content_cut_bytes"] > 0
    assert event.properties["posthog_llm_outcome"] == "ok"
    assert len(event.properties["$ai_output_choices"][0]["content"]) < 8 << 20
    del event
    gc.collect()
    # The stream is still in hand. Caches grow with a first call, by nothing near a block a chunk.
    assert sys.getallocatedblocks() - blocks < 5_000


def test_a_stream_that_was_compressed_well_is_bounded_once_it_is_decoded(wire: Wire) -> None:
    """64 MiB of text came as some hundred KB: all of those are kept, and not all of that."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "x" * (1 << 20)}, "finish_reason": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 50_000, "total_tokens": 50_003}
    chunk = b"data: %b\n\n" % json.dumps({**head, "choices": [choice]}).encode()
    last = b"data: %b\n\n" % json.dumps({**head, "choices": [], "usage": usage}).encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    sync = zlib.Z_SYNC_FLUSH
    pieces = [packer.compress(chunk) + packer.flush(sync) for _ in range(64)]
    pieces.append(packer.compress(last + b"data: [DONE]\n\n") + packer.flush())
    assert sum(map(len, pieces)) < 1 << 20
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    wire.answer = lambda: HTTP.Response(200, headers=headers, stream=Body(pieces, False))
    stream: Any = CALLS["chat"](wire.ours, True)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream) == 64
        (event,) = wire.events()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20
    assert event.properties["$ai_output_tokens"] == 50_000
    assert event.properties["posthog_llm_content_cut_bytes"] > 54 << 20
    assert event.properties["posthog_llm_outcome"] == "ok"


def test_answers_in_the_callers_hands_keep_nothing_of_ours(wire: Wire) -> None:
    body = recorded("chat.sse").read_bytes()
    wire.script(body, 200, {"content-type": "text/event-stream"}, 97, False)
    stream: Any = CALLS["chat"](wire.ours, True)
    list(stream)
    assert len(wire.events()) == 1
    call = stream.response.stream._call
    assert not call.exchange.chunks
    assert not call.exchange.times
    assert call.exchange.request is None


def test_answers_are_not_remembered_longer_than_they_live(wire: Wire) -> None:
    wire.script(
        recorded("chat.json").read_bytes(),
        200,
        {"content-type": "application/json"},
        1 << 20,
        False,
    )
    gc.collect()
    before = len(event_ids._known)
    answers = [CALLS["chat"](wire.ours, False) for _ in range(50)]
    assert len(event_ids._known) == before + 50
    answers.clear()
    assert len(event_ids._known) == before
    assert len(wire.events()) == 50


def test_huge_prompt_is_cut_and_still_counted(wire: Wire) -> None:
    wire.script(
        recorded("chat.json").read_bytes(),
        200,
        {"content-type": "application/json"},
        1 << 20,
        False,
    )
    text = "begin " + "word " * 2_000_000 + "end"
    messages = [{"role": "system", "content": "short"}, {"role": "user", "content": text}]
    wire.ours.chat.completions.create(model="m", messages=messages)
    (event,) = wire.events()
    system, user = event.properties["$ai_input"]
    assert system["content"] == "short"
    assert user["content"].startswith("begin word")
    assert user["content"].endswith("word end")
    assert len(user["content"]) < 300_000
    assert event.properties["posthog_llm_content_cut_bytes"] == len(text) - (256 << 10)
    assert event.properties["$ai_input_tokens"] == 82


def test_deeply_nested_answer(wire: Wire) -> None:
    body = b'{"choices": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    wire.script(body, 200, {"content-type": "application/json"}, 1 << 20, False)
    assert wire.run(wire.ours, "chat", False) == wire.run(wire.bare, "chat", False)
    (event,) = wire.events()
    assert event.properties["$ai_http_status"] == 200
    assert event.properties["$ai_output_choices"] == []
