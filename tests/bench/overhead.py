"""What our client costs beside the bare SDK and posthog.ai, in one process.

    nox -s bench

An in-memory transport takes the place of the network. The contenders' blocks are interleaved,
so that the machine's moods fall on all of them; figures are medians over the blocks. The
official client runs with `send=False`: its own `capture` counts, its network does not.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import anthropic
import openai
import posthog
import posthog.ai.anthropic
import posthog.ai.openai
from openai._base_client import SyncHttpxClientWrapper

import posthog_llm
import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm import _turns

http: Any = sys.modules[SyncHttpxClientWrapper.__mro__[2].__module__.partition(".")[0]]
Measured = dict[str, list[float]]

USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
HEAD = {"id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG", "created": 1_700_000_000}
MODEL = {"model": "gpt-4o-mini-2024-07-18", "system_fingerprint": "fp_0123456789"}
SAID = "A sentence of ordinary length, as models like to give. " * 4


def completion() -> bytes:
    message = {"role": "assistant", "content": SAID, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {**HEAD, "object": "chat.completion", **MODEL, "choices": [choice], "usage": USAGE}
    return json.dumps(body).encode()


def chunks(count: int, usage: bool) -> list[bytes]:
    head = {**HEAD, "object": "chat.completion.chunk", **MODEL, "service_tier": "default"}
    null = {"usage": None} if usage else {}

    def event(choices: list[Any], **more: Any) -> bytes:
        data = json.dumps({**head, "choices": choices, **more}, separators=(",", ":"))
        return b"data: %b\n\n" % data.encode()

    def choice(delta: Any, reason: str | None = None) -> Any:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    found = [event([choice({"role": "assistant", "content": "", "refusal": None})], **null)]
    found += [event([choice({"content": f" word{i % 97}"})], **null) for i in range(count)]
    found.append(event([choice({}, "stop")], **null))
    if usage:
        found.append(event([], usage=USAGE))
    return [*found, b"data: [DONE]\n\n"]


def message() -> dict[str, Any]:
    usage = {"input_tokens": 20, "cache_read_input_tokens": 0, "output_tokens": 30}
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def message_events(count: int) -> list[bytes]:
    empty = {**message(), "content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    events: list[Any] = [
        {"type": "message_start", "message": empty},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    for number in range(count):
        delta = {"type": "text_delta", "text": f" word{number % 97}"}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 30},
        },
        {"type": "message_stop"},
    ]
    return [
        f"event: {e['type']}\ndata: {json.dumps(e, separators=(',', ':'))}\n\n".encode()
        for e in events
    ]


def vectors() -> bytes:
    floats = [struct.pack("<1536f", *(random.random() for _ in range(1536))) for _ in range(256)]
    data = [
        {"object": "embedding", "index": i, "embedding": base64.b64encode(vector).decode()}
        for i, vector in enumerate(floats)
    ]
    usage = {"prompt_tokens": 2560, "total_tokens": 2560}
    body = {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}
    return json.dumps(body).encode()


def in_pieces(events: list[bytes]) -> list[bytes]:
    """Return a stream as a network may cut it: anywhere, into 4 KB."""
    whole = b"".join(events)
    return [whole[i : i + 4096] for i in range(0, len(whole), 4096)]


def in_halves(events: list[bytes]) -> list[bytes]:
    return [half for event in events for half in (event[:100], event[100:]) if half]


class Pieces(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]
    def __init__(self, pieces: list[bytes], pause: float = 0.0) -> None:
        self.pieces = pieces
        self.pause = pause

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> Any:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            yield piece


COMPLETION = completion()
STREAMS = {True: chunks(1000, True), False: chunks(1000, False)}
MESSAGE = json.dumps(message()).encode()
MESSAGE_EVENTS = message_events(1000)
VECTORS = vectors()
WORDS = [f"word number {i} of a longer input" for i in range(256)]
CUTS = {b"in pieces": in_pieces, b"in halves": in_halves}
SHORT = {True: chunks(50, True), False: chunks(50, False)}


def answer(request: Any) -> Any:
    body = request.content
    if request.url.path == "/v1/messages":
        if b'"stream":true' in body or b'"stream": true' in body:
            headers = {"content-type": "text/event-stream"}
            return http.Response(200, headers=headers, stream=Pieces(MESSAGE_EVENTS))
        return http.Response(200, headers={"content-type": "application/json"}, content=MESSAGE)
    if request.url.path.endswith("/embeddings"):
        return http.Response(200, headers={"content-type": "application/json"}, content=VECTORS)
    if b'"stream":true' in body or b'"stream": true' in body:
        streams = SHORT if b"short" in body else STREAMS
        pieces = streams[b"include_usage" in body]
        for name, cut in CUTS.items():
            pieces = cut(pieces) if name in body else pieces
        pause = 0.001 if b"short" in body else 0.0
        headers = {"content-type": "text/event-stream"}
        return http.Response(200, headers=headers, stream=Pieces(pieces, pause))
    return http.Response(200, headers={"content-type": "application/json"}, content=COMPLETION)


async def answer_async(request: Any) -> Any:
    return answer(request)


def clients(kind: str, http_client: Callable[[], Any]) -> dict[str, Any]:
    """Return the contenders' clients of one kind (`OpenAI`, `AsyncOpenAI`, `Anthropic`)."""
    sink = posthog.Posthog("phc_bench", send=False)
    name = "anthropic" if kind == "Anthropic" else "openai"
    modules = {"openai": openai, "anthropic": anthropic}[name], posthog_llm, posthog.ai
    bare, own, peer = (getattr(getattr(m, name, m), kind) for m in modules)
    return {
        "bare": bare(api_key="k", http_client=http_client()),
        "ours": own(api_key="k", http_client=http_client(), posthog_client=sink),
        "posthog.ai": peer(api_key="k", http_client=http_client(), posthog_client=sink),
    }


def embed(client: Any, content: Any) -> Any:
    return client.embeddings.create(model="text-embedding-3-small", input=content)


def ask(client: Any, content: Any = "Hello there", **more: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    if hasattr(client, "messages"):
        model = {"model": "claude-haiku-5-5", "max_tokens": 1024}
        return client.messages.create(**model, messages=messages, **more)
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **more)


def interleaved(runs: dict[str, Callable[[], float]], blocks: int) -> Measured:
    """Run each contender once a block, in turning order; returns what each run returned."""
    found: Measured = {name: [] for name in runs}
    names = list(runs)
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(runs[name]())
    return found


def settle() -> None:
    posthog_llm.flush()


def wall_apart(client: Any, content: Any, pause: float, calls: int) -> Callable[[], float]:
    """Seconds on the caller's thread a call, with pauses between calls as a network makes."""

    def one() -> float:
        time.sleep(pause)
        start = time.perf_counter()
        ask(client, content)
        return time.perf_counter() - start

    def run() -> float:
        settle()
        return statistics.median(one() for _ in range(calls))

    return run


def process_cpu(
    client: Any, content: Any, calls: int, make: Callable[[Any, Any], Any] = ask
) -> Callable[[], float]:
    """CPU seconds of the whole process a call, the worker's included."""

    def run() -> float:
        settle()
        start = time.process_time()
        for _ in range(calls):
            make(client, content)
        settle()
        return (time.process_time() - start) / calls

    return run


def stream_cpu(
    client: Any, clock: Callable[[], float], content: str = "Hello there"
) -> Callable[[], float]:
    """CPU seconds for one stream of 1,000 chunks: the caller's thread or the whole process."""

    def run() -> float:
        settle()
        gc.collect()
        start = clock()
        for _ in ask(client, content, stream=True):
            pass
        if clock is time.process_time:
            settle()
        return clock() - start

    return run


def longest_hold(client: Any, content: str) -> float:
    """Return the most seconds that the worker computes between two of its own pauses.

    Measured by its CPU clock, which stands still while other processes run.
    """
    longest, since = 0.0, 0.0

    def pause(seconds: float) -> None:
        nonlocal longest, since
        if threading.current_thread().name != "posthog-llm":
            time.sleep(seconds)
            return
        longest = max(longest, time.thread_time() - since) if since else 0.0
        time.sleep(seconds)
        since = time.thread_time()

    settle()
    with patch.object(_turns, "sleep", pause):
        ask(client, content)
        settle()
    return longest


def many_streams(client: Any, loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Wall seconds for 200 concurrent streams of 50 chunks."""

    async def one() -> None:
        async for _ in await ask(client, "short", stream=True):
            pass

    async def all_of_them() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(200)))
        return time.perf_counter() - start

    def run() -> float:
        settle()
        return loop.run_until_complete(all_of_them())

    return run


def imported(module: str) -> Callable[[], float]:
    code = (
        "import time, openai; start = time.perf_counter(); "
        f"import {module}; print(time.perf_counter() - start)"
    )

    def run() -> float:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        )
        return float(done.stdout)

    return run


def report(title: str, measured: Measured, unit: float = 1e6, per: float = 1.0) -> None:
    """Print a row: the bare median, and each other's difference and ratio."""
    middle = {name: statistics.median(values) for name, values in measured.items()}
    bare = middle.pop("bare", 0.0)
    cells = [f"{bare * unit / per:10.2f}" if bare else " " * 10]
    for value in middle.values():
        ratio = f" ({value / bare:4.2f} x)" if bare else ""
        cells.append(f"{(value - bare) * unit / per:+9.2f}{ratio}")
    print(f"| {title:52} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1, help="factor on the number of blocks")
    factor = parser.parse_args().blocks
    made = clients("OpenAI", lambda: http.Client(transport=http.MockTransport(answer)))
    made_async = clients(
        "AsyncOpenAI", lambda: http.AsyncClient(transport=http.MockTransport(answer_async))
    )
    text, picture = "A plain sentence of prompt. " * 18_300, base64.b64encode(os.urandom(750_000))
    image = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture.decode()}"}},
    ]
    claude = clients("Anthropic", lambda: http.Client(transport=http.MockTransport(answer)))
    for client in [*made.values(), *claude.values()]:  # warm up
        for _ in range(200):
            ask(client)
    settle()
    versions = (
        *(f"openai {openai.__version__}", f"anthropic {anthropic.__version__}"),
        *(f"posthog {posthog.VERSION}", f"Python {sys.version.split()[0]}"),
    )
    print(f"{', '.join(versions)}, {os.cpu_count()} cores\n")
    print(f"| {'':52} | {'bare':>10} | {'ours added':>18} | {'posthog.ai added':>18} |")
    print(f"|{'-' * 54}|{'-' * 12}|{'-' * 20}|{'-' * 20}|")

    def measure(title: str, run: Any, blocks: int, per: float = 1.0, who: Any = made) -> None:
        report(
            title,
            interleaved({name: run(client) for name, client in who.items()}, blocks * factor),
            per=per,
        )

    measure("small call, caller's thread, us", lambda c: wall_apart(c, "Hello", 0.003, 60), 15)
    title = "1 MB prompt, caller's thread, us"
    measure(title, lambda c: wall_apart(c, text * 2, 0.02, 10), 11)
    measure("small call, CPU of the process, us", lambda c: process_cpu(c, "Hello", 200), 15)
    measure("a chunk, caller's thread, us", lambda c: stream_cpu(c, time.thread_time), 31, per=1003)
    measure("1,000 chunks, CPU of the process, us", lambda c: stream_cpu(c, time.process_time), 31)
    measure("500 KB of text, CPU of the process, us", lambda c: process_cpu(c, text, 10), 15)
    measure("1 MB of image, CPU of the process, us", lambda c: process_cpu(c, image, 10), 15)
    title = "256 embeddings, CPU of the process, us"
    measure(title, lambda c: process_cpu(c, WORDS, 5, embed), 15)
    for cut, per in (("in pieces", 1003), ("in halves", 2006)):
        title = f"a chunk {cut}, caller's thread, us"
        measure(title, lambda c, cut=cut: stream_cpu(c, time.thread_time, cut), 31, per=per)
    loop = asyncio.new_event_loop()
    title = "200 concurrent streams of 50 chunks, wall, us"
    measure(title, lambda c: many_streams(c, loop), 11, who=made_async)
    measure(
        "Anthropic, small call, CPU of the process, us",
        lambda c: process_cpu(c, "Hello", 200),
        15,
        who=claude,
    )
    title, clock = "Anthropic, a chunk, caller's thread, us", time.thread_time
    measure(title, lambda c: stream_cpu(c, clock), 21, per=1006, who=claude)
    title = "Anthropic, 1,000 chunks, CPU of the process, us"
    measure(title, lambda c: stream_cpu(c, time.process_time), 21, who=claude)
    kinds = {"plain": "A plain sentence. ", "escaped": 'A "quoted" line.\n', "accented": "Größe. "}
    for kind, words in kinds.items():
        long = words * (5_000_000 // len(words.encode()))
        holds = [longest_hold(made["ours"], long) for _ in range(7 * factor)]
        middle, most = statistics.median(holds) * 1e3, max(holds) * 1e3
        print(f"longest hold, 5 MB of {kind} text: {middle:.2f} ms, at most {most:.2f} ms")
    report(
        "import on top of openai, ms",
        interleaved(
            {"ours": imported("posthog_llm.openai"), "posthog.ai": imported("posthog.ai.openai")},
            7 * factor,
        ),
        unit=1e3,
    )


if __name__ == "__main__":
    main()
