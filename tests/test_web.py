"""Web servers: who asks, for the whole answer, and nothing lost when the server stops."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

import posthog_llm
from posthog_llm import ASGIMiddleware, WSGIMiddleware
from posthog_llm import _faults as faults
from posthog_llm._context import current
from posthog_llm.openai import AsyncOpenAI
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

WHO = (b"x-posthog-distinct-id", b"by header")
TRACE = (b"x-posthog-llm-trace-id", b"t")
MESSAGES: Any = [{"role": "user", "content": "hi"}]


def seen_by(pairs: list[tuple[bytes, bytes]], **options: Any) -> Any:
    """Return what holds inside an ASGI app for a request with some headers."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())

    async def main() -> None:
        for kind in ("http", "websocket"):
            await ASGIMiddleware(app, **options)({"type": kind, "headers": pairs}, None, None)  # type: ignore[arg-type]

    asyncio.run(main())
    assert seen[0] == seen[1]
    assert current().distinct_id is None
    return seen[0]


def named(scope: Any) -> Any:
    return {"distinct_id": "by function", "session_id": "", "properties": {"plan": "gold"}}


async def awaited(scope: Any) -> Any:
    return named(scope)


@pytest.mark.parametrize("identify", [named, awaited])
def test_a_function_says_who_asks(identify: Any) -> None:
    found = seen_by([WHO, TRACE, (b"x-posthog-session-id", b"r")], identify=identify)
    assert (found.distinct_id, found.trace_id, found.session_id) == ("by function", "t", None)
    assert found.properties == {"$session_id": "r", "plan": "gold"}


def test_a_function_that_knows_nobody_leaves_it_to_the_headers() -> None:
    assert seen_by([WHO], identify=lambda scope: None).distinct_id == "by header"


def fails(scope: Any) -> Any:
    raise KeyError("x-user")


@pytest.mark.faulty
@pytest.mark.parametrize(
    "identify", [fails, lambda scope: {"user": 1}, lambda scope: {"distinct_id": []}]
)
def test_where_that_fails_calls_are_anonymous_and_private(identify: Any) -> None:
    found = seen_by([WHO, TRACE], identify=identify)
    assert (found.distinct_id, found.trace_id, found.privacy_mode) == (None, "t", True)
    assert sum(faults.counts.values()) == 2


def test_misuse_raises_at_once() -> None:
    for middleware in (ASGIMiddleware, WSGIMiddleware):
        with pytest.raises(TypeError, match="identify must be callable"):
            middleware(lambda *_: None, identify="x-user")  # type: ignore[arg-type]


# -- lifespan ----------------------------------------------------------------------------------


async def begun_and_ended(app: Any) -> list[str]:
    """Go through an app's lifespan as a server does; returns what it was told."""
    asked = iter(("lifespan.startup", "lifespan.shutdown"))
    properties: list[str] = []

    async def receive() -> Any:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        properties.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return properties


async def takes_requests_only(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(f"Django can only handle ASGI/HTTP connections, not {scope['type']}.")


async def reads_and_leaves(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def leaves(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize("app", [Starlette(), takes_requests_only, reads_and_leaves, leaves])
def test_the_end_of_the_lifespan_delivers(app: Any) -> None:
    delivered: list[str] = []

    class Slow:
        def capture(self, uuid: str, **_: Any) -> None:
            time.sleep(0.2)
            delivered.append(uuid)

    uuid = posthog_llm.capture_generation(model="m", posthog_client=Slow())
    properties = asyncio.run(begun_and_ended(ASGIMiddleware(app)))
    assert properties == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert delivered == [uuid]


def test_an_app_that_fails_to_start_says_so() -> None:
    async def fails_to_start(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(begun_and_ended(ASGIMiddleware(fails_to_start)))


# -- whole answers -------------------------------------------------------------------------------


def test_a_stream_is_asked_by_whom_the_request_is(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """Its call is made after the handler has returned, and its words are sent after that."""
    client = AsyncOpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)

    async def chat(request: Any) -> Any:
        async def words() -> Any:
            async for chunk in await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True
            ):
                yield chunk.choices[0].delta.content or "" if chunk.choices else ""

        return StreamingResponse(words())

    def who(scope: Any) -> Any:
        return {"distinct_id": dict(scope["headers"])[b"x-user"].decode(), "privacy_mode": True}

    app = ASGIMiddleware(Starlette(routes=[Route("/", chat)]), identify=who)
    sent: list[bytes] = []

    async def receive() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    asyncio.run(app({**scope, "headers": [(b"x-user", b"ann")]}, receive, send))
    assert b"".join(sent)
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "ann"
    assert "$ai_input" not in event.properties


def test_what_holds_where_a_handler_returns_holds_for_a_bound_stream(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """As docs/web.md has it; a stream that is not bound runs after the block has ended."""
    client = AsyncOpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)

    async def words() -> Any:
        await client.chat.completions.create(model="m", messages=MESSAGES)
        yield "word"

    async def handler(make: Any) -> Any:
        async with posthog_llm.context(distinct_id="ann", privacy_mode=True):
            return make()

    async def main() -> None:
        for make in (words, lambda: posthog_llm.propagate_context(words)()):
            stream = await handler(make)
            assert [word async for word in stream] == ["word"]

    asyncio.run(main())
    careless, carried = sink.wait_for(2)
    assert carried.distinct_id == "ann"
    assert "$ai_input" not in carried.properties
    assert careless.distinct_id != "ann"
    assert "$ai_input" in careless.properties


@pytest.mark.parametrize("streams", [False, True])
def test_wsgi(streams: bool) -> None:
    seen: list[Any] = []
    closed: list[Any] = []

    class Stream:
        def __iter__(self) -> Any:
            for piece in (b"a", b"b"):
                seen.append((current().trace_id, current().distinct_id))
                yield piece

        def close(self) -> None:
            closed.append(current().distinct_id)

    def app(environ: Any, start_response: Any) -> Any:
        seen.append((current().trace_id, current().distinct_id))
        return Stream() if streams else [b"a", b"b"]

    wrapped = WSGIMiddleware(app, identify=lambda environ: {"distinct_id": environ["HTTP_X_USER"]})
    body: Any = wrapped({"HTTP_X_POSTHOG_LLM_TRACE_ID": "t", "HTTP_X_USER": "ann"}, None)
    assert list(body) == [b"a", b"b"]
    body.close()
    assert seen == [("t", "ann")] * (3 if streams else 1)
    assert closed == (["ann"] if streams else [])
    assert current().trace_id is None


@pytest.mark.faulty
def test_wsgi_where_nobody_is_found() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append((current().distinct_id, current().privacy_mode))
        return []

    list(WSGIMiddleware(app, identify=fails)({"HTTP_X_POSTHOG_DISTINCT_ID": "x"}, None))
    assert seen == [(None, True)]


def test_wsgi_answer_of_one_piece_has_its_length() -> None:
    """By the number of pieces, servers know whether they can say Content-Length themselves."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        return [b"hello"]

    body: Any = WSGIMiddleware(app)({}, None)
    assert len(body) == 1
    assert list(body) == [b"hello"]


# -- servers -------------------------------------------------------------------------------------

APP = """
import os
import posthog_llm
from posthog_llm.openai import AsyncOpenAI, OpenAI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

where = {"base_url": os.environ["PROVIDER"], "api_key": "k"}
client, plain = AsyncOpenAI(**where), OpenAI(**where)
ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

async def stream(request):
    async def words():
        async for chunk in await client.chat.completions.create(**ask, stream=True):
            yield (chunk.choices[0].delta.content or "") if chunk.choices else ""
    return StreamingResponse(words())

async def call(request):
    await client.chat.completions.create(**ask)
    return PlainTextResponse("done")

def who(scope):
    return {"distinct_id": dict(scope["headers"])[b"x-user"].decode()}

app = Starlette(routes=[Route("/stream", stream), Route("/call", call)])
app = posthog_llm.ASGIMiddleware(app, identify=who)

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/call":
        plain.chat.completions.create(**ask)
        return [b"done"]
    chunks = plain.chat.completions.create(**ask, stream=True)
    return ((chunk.choices[0].delta.content or "").encode() for chunk in chunks if chunk.choices)

wsgi = posthog_llm.WSGIMiddleware(
    wsgi, identify=lambda environ: {"distinct_id": environ["HTTP_X_USER"]}
)
"""
GUNICORN = ("gunicorn", "--workers", "2", "--bind", "127.0.0.1:PORT")
SERVERS = {
    "uvicorn": ("uvicorn", "program:app", "--port", "PORT"),
    "gunicorn": (*GUNICORN, "--worker-class", "asgi", "program:app"),
    "gunicorn with threads": (*GUNICORN, "--threads", "20", "program:wsgi"),
}
Serve = Callable[[str], "tuple[subprocess.Popen[bytes], int]"]


@pytest.fixture
def serve(provider: ScriptedProvider, receiver: PostHogReceiver, tmp_path: Path) -> Iterator[Serve]:
    """Start a server of the program above, and wait until it answers."""
    running: list[subprocess.Popen[bytes]] = []

    def started(name: str) -> tuple[subprocess.Popen[bytes], int]:
        (tmp_path / "program.py").write_text(APP)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        command = [part.replace("PORT", str(port)) for part in SERVERS[name]]
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.getcwd(),
                "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
                "PROVIDER": provider.base_url,
                "POSTHOG_API_KEY": "phc_test",
                "POSTHOG_HOST": receiver.url,
            },
        )
        running.append(process)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process, port
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)

    yield started
    for process in running:
        process.kill()
        process.wait()


class Visitors:
    """Users of such a server, each with a thread and a name of their own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._threads: list[threading.Thread] = []
        self.names: list[str] = []
        self.answers: dict[str, bytes] = {}

    def come(self, path: str, count: int, leaves: bool = False) -> None:
        """Let some come, and return once each has got the first of an answer."""
        began = threading.Barrier(count + 1)
        for number in range(count):
            name = f"{path[1:]}-{leaves}-{number}"
            self.names.append(name)
            thread = threading.Thread(target=self._visit, args=(path, name, leaves, began))
            self._threads.append(thread)
            thread.start()
        began.wait(60)

    def _visit(self, path: str, name: str, leaves: bool, began: threading.Barrier) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", path, headers={"X-User": name})
        answer = connection.getresponse()
        first = answer.read(1)
        began.wait(60)
        self.answers[name] = first if leaves else first + answer.read()
        connection.close()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("name", SERVERS)
def test_a_deploy_loses_nothing(
    serve: Serve, provider: ScriptedProvider, receiver: PostHogReceiver, name: str
) -> None:
    """SIGTERM amid streams, after users who left: each call is told, once, as who asked."""
    process, port = serve(name)
    visitors = Visitors(port)
    visitors.come("/call", 20)
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    pieces = [{**chunk, "choices": [delta]}] * 30 + [{**chunk, "choices": [end]}]
    slow = [Reply.stream(pieces, delay=0.05) for _ in range(30)]
    provider.script("/chat/completions", *slow)
    visitors.come("/stream", 20, leaves=True)
    visitors.come("/stream", 10)
    process.send_signal(signal.SIGTERM)
    visitors.join()
    process.wait(60)
    stayed = [answer for name, answer in visitors.answers.items() if name.startswith("stream-F")]
    assert stayed == [b"word " * 30] * 10
    assert Counter(event["distinct_id"] for event in receiver.events) == Counter(visitors.names)
    outcomes = Counter(event["properties"]["posthog_llm_outcome"] for event in receiver.events)
    assert outcomes["ok"] >= 30
    assert outcomes["error"] == 0
