"""Programs that are unlike others, and are in the right: what they do goes on as without us."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock, PropertyMock, create_autospec, patch

import openai
import posthog
import pytest

import posthog_llm
import posthog_llm.openai
from posthog_llm import ASGIMiddleware, WSGIMiddleware
from posthog_llm._delivery.worker import worker
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._observe import passing
from posthog_llm._observe.call_queue import call_queue
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider, reset

from .driving import QUESTION, Driver
from .test_processes import Children, once

SECRET = "tell nobody of the merger"


@pytest.fixture
def children(provider: ScriptedProvider, receiver: PostHogReceiver) -> Children:
    return Children(provider, receiver)


# -- clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["OpenAI.chat", "resources.chat.Chat.completions"])
@pytest.mark.parametrize("kind", [Mock, PropertyMock])
def test_a_mock_in_the_sdks_class_is_used(
    provider: ScriptedProvider, sink: MemorySink, target: str, kind: Any
) -> None:
    with patch(f"openai.{target}", new_callable=kind):
        client = posthog_llm.openai.OpenAI(base_url=provider.base_url, api_key="k")
        client.chat.completions.create(**QUESTION)
    assert not provider.requests
    client = posthog_llm.openai.OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    client.chat.completions.create(**QUESTION)
    sink.wait_for(1)


@pytest.mark.parametrize("name", ["api_key", "NotFoundError", "OpenAI"])
def test_a_patch_of_a_name_of_the_module_is_undone(name: str) -> None:
    before = getattr(posthog_llm.openai, name), getattr(openai, name)
    with patch(f"posthog_llm.openai.{name}", "patched"):
        assert getattr(posthog_llm.openai, name) == "patched"
    assert (getattr(posthog_llm.openai, name), getattr(openai, name)) == before


def test_a_request_that_starts_the_next_one_holds_no_chain_of_them(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """A context that was copied inside a request lives as long as the task that it started."""

    async def call(left: int) -> None:
        async def hook(request: Any) -> None:
            if left:
                following.append(asyncio.create_task(call(left - 1)))

        http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [hook]})
        client = posthog_llm.openai.AsyncOpenAI(
            base_url=provider.base_url, api_key="k", posthog_client=sink, http_client=http
        )
        async with client:
            await client.chat.completions.create(**QUESTION)
        nearest.append(passing._nearest.get())

    async def main() -> None:
        following.append(asyncio.create_task(call(8)))
        while following:
            await following.pop(0)

    following: list[asyncio.Task[None]] = []
    nearest: list[Any] = []
    asyncio.run(main())
    assert len(nearest) == 9
    assert all(layer is None or layer._outer is None for layer in nearest)
    sink.wait_for(9)


def test_a_mixin_may_build_requests(provider: ScriptedProvider, sink: MemorySink) -> None:
    class Tag:
        def _build_request(self, options: Any, **more: Any) -> Any:
            request = super()._build_request(options, **more)  # type: ignore[misc]
            request.headers["x-tag"] = "1"
            return request

    class Tagged(Tag, posthog_llm.openai.OpenAI):
        pass

    client = Tagged(base_url=provider.base_url, api_key="k", posthog_client=sink)
    client.chat.completions.create(**QUESTION)
    assert provider.requests[-1].headers["x-tag"] == "1"
    sink.wait_for(1)


def test_what_a_call_was_given_holds_where_a_subclass_sends_it_in_a_thread(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    pool = ThreadPoolExecutor(1)

    class Deadline(posthog_llm.openai.OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            return pool.submit(super().request, *args, **kwargs).result(30)

    client = Deadline(base_url=provider.base_url, api_key="k", posthog_client=sink)
    ask = {"model": "m", "messages": [{"role": "user", "content": SECRET}]}
    client.chat.completions.create(**ask, posthog_capture=False)
    client.chat.completions.create(**ask, posthog_distinct_id="u", posthog_privacy_mode=True)
    client.responses.create(model="m", input="hi", posthog_distinct_id="v")
    first, second = sink.wait_for(2)
    assert (first.distinct_id, second.distinct_id) == ("u", "v")
    assert SECRET not in str(first)
    assert posthog_llm.flush(10)
    assert len(sink.events) == 2


def test_a_setter_of_a_subclass_is_called_as_often_as_without_us(
    provider: ScriptedProvider,
) -> None:
    class Budgeted(posthog_llm.openai.OpenAI):
        def __init__(self, **kwargs: Any) -> None:
            self.__dict__["sets"] = []
            super().__init__(**kwargs)

        def __setattr__(self, name: str, value: Any) -> None:
            self.sets.append(name)
            super().__setattr__(name, value)

    class Bare(openai.OpenAI):
        __init__ = Budgeted.__init__
        __setattr__ = Budgeted.__setattr__

    sets = Budgeted(base_url=provider.base_url, api_key="k").sets
    ours = [name for name in sets if not name.startswith("_posthog")]
    assert len(ours) == len(set(ours)) or ours.count("max_retries") == 1


def test_settings_of_the_module_are_the_sdks(provider: ScriptedProvider) -> None:
    from posthog_llm import openai as ours

    before = openai.api_key, openai.base_url
    try:
        ours.api_key, ours.base_url = "sk-module", f"{provider.base_url}/"
        assert (openai.api_key, ours.api_key) == ("sk-module", "sk-module")
        assert ours.chat.completions.create(**QUESTION).choices
        assert provider.requests[-1].headers["authorization"] == "Bearer sk-module"
    finally:
        openai.api_key, openai.base_url = before
    with pytest.MonkeyPatch.context() as patch:  # names of ours stay ours
        patch.setattr(ours, "OpenAI", "patched")
        assert openai.OpenAI != "patched"


@pytest.mark.parametrize("misuse", ["post", "request"])
@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
def test_misuse_raises_what_the_sdk_raises(kind: Any, misuse: str) -> None:
    client = kind(api_key="k")

    def said() -> str:
        try:
            result = getattr(client, misuse)()
            asyncio.run(result) if asyncio.iscoroutine(result) else None
        except TypeError as raised:
            return str(raised)
        return ""

    bare = said()
    assert "missing" in bare
    posthog_llm.instrument()
    assert said() == bare


def test_a_hook_may_close_an_answer_unread(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, max_retries=0)

    def close(response: Any) -> None:
        response.close()

    async def aclose(response: Any) -> None:
        await response.aclose()

    client._client.event_hooks = {"response": [aclose if drive.prefix else close]}
    with pytest.raises(Exception):  # noqa: B017 - the HTTP library's own, of either major
        drive.ask(client)
    sink.wait_for(1)


# -- processes ---------------------------------------------------------------------------------


def test_gevent_may_patch_late(children: Children) -> None:
    pytest.importorskip("gevent", reason="gevent has no build for this Python")
    process = children.start(
        """
        from gevent import monkey; monkey.patch_all()
        import gevent
        ask(2)
        while posthog_llm.stats().delivered < 2:
            gevent.sleep(0.01)
        os._exit(0)  # the official client, which began before the patch, would wait at exit
        """
    )
    process.communicate(timeout=60)  # a fork of the SDK's makes gevent complain
    assert process.returncode == 0
    once(children, 2)


def test_a_fork_waits_for_one_call_and_not_for_all(sink: MemorySink) -> None:
    """Calls that go on coming would keep it waiting for as long as it waits."""
    is_over = threading.Event()

    def feed() -> None:
        for number in itertools.count():
            if is_over.wait(0.0001):
                return
            call_queue.put(Exchange("chat", f"{number}", Scope(default=sink), 0.0, request=b"{}"))

    call_queue.start()
    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        while posthog_llm.stats().delivered < 50:  # `sink.events` waits for all, which do not end
            threading.Event().wait(0.01)
        for _ in range(5):
            worker.turn.pause()
            assert worker.turn.is_here()
            worker.turn.resume()
    finally:
        is_over.set()
        feeder.join()
        reset(0)


def test_exit_functions_may_compare_as_they_like(children: Children) -> None:
    children.run(
        """
        import atexit

        class Last:
            def __call__(self): pass
            def __eq__(self, other): raise RuntimeError("compares with none")

        atexit.register(Last())
        ask(3)
        """
    )
    once(children, 3)


def test_a_forked_child_warns_of_no_second_client(children: Children) -> None:
    process = children.start(
        """
        client = OpenAI(base_url=os.environ["PROVIDER"], api_key="k")
        ask(1)
        assert posthog_llm.flush(20)
        pid = os.fork()
        if not pid:
            ask_in_child(1)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        POSTHOG_API_KEY="phc_env",
        POSTHOG_HOST=children.receiver.url,
    )
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Multiple active" not in error
    once(children, 2)


def test_an_exiting_process_takes_nothing_from_the_spool(
    children: Children, tmp_path: Path
) -> None:
    """Its official client closes: what it took from another's file then would be lost."""
    children.receiver.status = 503
    killed = children.start(
        "ask(10, posthog_client=posthog_llm.Project('phc_test', os.environ['RECEIVER']))\n"
        "wait_until(lambda: posthog_llm.stats().spooled == 10)\n"
        "print('ready', flush=True)\ntime.sleep(60)",
        POSTHOG_LLM_SPOOL=tmp_path,
    )
    assert killed.stdout.readline() == "ready\n"
    out = children.start(
        """
        import atexit
        ask(1)
        wait_until(lambda: posthog_llm.stats().spooled)
        atexit.register(lambda: time.sleep(0.5))  # runs before ours
        print("exiting", flush=True)
        """,
        POSTHOG_LLM_SPOOL=tmp_path,
    )
    assert out.stdout.readline() == "exiting\n"
    killed.kill()
    killed.wait()
    _, error = out.communicate(timeout=60)
    assert "events were lost" not in error
    children.receiver.status = 200
    children.run(
        "posthog_llm.capture_generation(model='m', posthog_client=project())\n"
        "wait_until(lambda: not posthog_llm.stats().spooled and posthog_llm.flush(20))",
        POSTHOG_LLM_SPOOL=tmp_path,
    )
    models = [event["properties"]["$ai_model"] for event in children.receiver.events]
    assert len(models) == 12


@pytest.mark.parametrize("left", [0, 64 << 10])
def test_what_was_delivered_on_a_full_disk_is_not_sent_again(
    children: Children, tmp_path: Path, left: int
) -> None:
    """Removing an event takes space, too; a limit on the size of files stands for a full disk."""
    children.receiver.status = 503
    process = children.start(
        f"""
        import resource
        ask(4, posthog_properties={{"large": "x" * 20_000}})
        wait_until(lambda: posthog_llm.stats().spooled == 4)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({left}, {left}))
        print("full", flush=True)
        wait_until(lambda: posthog_llm.stats().delivered == 4)
        wait_until(lambda: not posthog_llm.stats().spooled)
        """,
        POSTHOG_LLM_SPOOL=tmp_path,
    )
    assert process.stdout.readline() == "full\n"
    children.receiver.status = 200
    process.communicate(timeout=60)
    assert process.returncode == 0
    children.run("ask(1); assert posthog_llm.flush(20)", POSTHOG_LLM_SPOOL=tmp_path)
    assert sorted(children.seen().values()) == [1] * 5


def test_a_spool_that_cannot_be_opened_is_named(
    sink: MemorySink, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSTHOG_LLM_SPOOL", str(tmp_path / "file" / "spool"))
    posthog_llm._settings.forget()
    posthog_llm.capture_generation(model="m", posthog_client=sink)
    sink.wait_for(1)
    assert f"no spool in {tmp_path}/file/spool" in caplog.text
    assert "in memory only" in caplog.text


# -- what the program gives us -----------------------------------------------------------------


@pytest.fixture
def failing_log() -> Iterator[None]:
    class Failing(logging.Handler):
        def emit(self, record: Any) -> None:
            raise RuntimeError("no room for logs")

    handler = Failing()
    logging.getLogger("posthog_llm").addHandler(handler)
    yield
    logging.getLogger("posthog_llm").removeHandler(handler)


@pytest.mark.faulty
def test_a_log_handler_that_raises_stops_nothing(failing_log: None, sink: MemorySink) -> None:
    class Failing:
        def capture(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError  # the loss is logged

    posthog_llm.capture_generation(model="m", posthog_client=Failing())
    assert posthog_llm.flush(20)
    assert posthog_llm.stats().dropped
    thread = worker._thread
    posthog_llm.capture_generation(model="m", posthog_client=sink)
    sink.wait_for(1)
    assert worker._thread is thread


def test_the_programs_random_numbers_are_its_own(drive: Driver, tmp_path: Path) -> None:
    random.seed(42)
    expected = [random.random() for _ in range(3)]
    posthog_llm.configure(sample_rate=0.5, spool=tmp_path)
    client = drive.ours(posthog_client=MemorySink())
    random.seed(42)
    found = []
    for _ in range(3):
        drive.ask(client)
        assert posthog_llm.flush(10)
        found.append(random.random())
    assert found == expected


@pytest.mark.parametrize(
    "make", [lambda c: Mock(spec=c), lambda c: create_autospec(c, instance=True)]
)
def test_a_mock_of_the_official_client_is_a_destination(drive: Driver, make: Any) -> None:
    client = make(posthog.Posthog)
    drive.ask(drive.ours(posthog_client=client))
    assert posthog_llm.flush(10)
    assert client.capture.call_count == 1


@pytest.mark.parametrize("filtered_by", ["redact", "before_capture", "capture"])
def test_a_filter_that_asks_a_model_does_not_feed_itself(
    drive: Driver, sink: MemorySink, filtered_by: str
) -> None:
    asks = openai.OpenAI(base_url=drive.provider.base_url, api_key="k")
    posthog_llm.instrument(posthog_client=sink)

    def ask(value: Any) -> Any:
        asks.chat.completions.create(**QUESTION)
        return value

    class Asking:
        def capture(self, event: str, **more: Any) -> None:
            sink.capture(event, **ask(more))

    destination = Asking() if filtered_by == "capture" else sink
    if filtered_by != "capture":
        posthog_llm.configure(**{filtered_by: ask})
    drive.ask(drive.ours(posthog_client=destination))
    assert posthog_llm.flush(10)
    assert len(sink.events) == 1
    requests = len(drive.provider.requests)
    assert posthog_llm.flush(10)
    assert len(drive.provider.requests) == requests


# -- servers -----------------------------------------------------------------------------------


def test_an_app_that_cannot_start_is_not_served() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("database is down")

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    with pytest.raises(RuntimeError, match="database is down"):
        asyncio.run(ASGIMiddleware(app)({"type": "lifespan"}, receive, send))


def test_a_stream_that_nobody_reads_is_captured_when_the_server_stops(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """A synchronous generator stays where it is, in a thread that no exit function runs for."""
    provider.script("/chat/completions", Reply.text("one two three"))
    client = posthog_llm.openai.OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    stream = client.chat.completions.create(**QUESTION, stream=True)
    next(stream)
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            await send({"type": f"{(await receive())['type']}.complete"})

    async def receive() -> Any:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        assert message["type"] != "lifespan.shutdown.complete" or sink.events

    asyncio.run(ASGIMiddleware(app)({"type": "lifespan"}, receive, send))
    assert sink.events[0].properties["posthog_llm_outcome"] == "dropped"
    assert list(stream)  # whoever reads on after all is not in the way


def test_files_are_sent_as_the_server_knows_how_to() -> None:
    class Wrapper:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter((b"x",))

    made = Wrapper(None)
    app = WSGIMiddleware(lambda environ, start_response: made)
    assert app({"wsgi.file_wrapper": Wrapper}, None) is made


# -- event loops, and forks ----------------------------------------------------------------------


def test_a_flush_keeps_its_limit_where_the_loops_executor_is_busy(sink: MemorySink) -> None:
    done = threading.Event()

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, done.wait)
        posthog_llm.capture_generation(model="m", posthog_client=sink)
        is_delivered = await asyncio.wait_for(posthog_llm.aflush(20), 30)
        assert not busy.done()
        done.set()
        await busy
        return is_delivered

    assert asyncio.run(main())
    assert len(sink.events) == 1


def test_a_child_may_instrument_whatever_the_parents_threads_did(children: Children) -> None:
    code = """
    import os, threading, openai, posthog_llm
    from posthog_llm import _instrumentation

    held, leave = threading.Event(), threading.Event()

    def hold():
        with _instrumentation._changing:
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        posthog_llm.instrument()
        posthog_llm.uninstrument()
        os._exit(7)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join()
    print(os.waitstatus_to_exitcode(status))
    """
    assert children.run(code).strip() == "7"
