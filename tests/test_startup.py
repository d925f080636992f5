"""How it starts: imports and threads of ours, and what of the user's we leave as it is."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from types import ModuleType
from typing import Any

import anthropic
import openai
import posthog
import pytest
from opentelemetry import trace as otel

import posthog_llm
from posthog_llm import _faults as faults
from posthog_llm._delivery.worker import worker
from posthog_llm._imports import imported
from posthog_llm._observe.call_queue import call_queue
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider, reset

from .driving import ANTHROPIC, OPENAI, Driver, SyncDriver, every_provider
from .test_anthropic import results, script_batch
from .test_streaming import COUNTED, encoded

ASKING = """
import os, sys, threading

def ask(client, **more):
    if hasattr(client, "messages"):
        return client.messages.create(max_tokens=9, model="m", messages=MESSAGES, **more)
    return client.chat.completions.create(model="m", messages=MESSAGES, **more)

def make():
    return Client(base_url=URL + path, api_key="k", max_retries=0)

MESSAGES = [{"role": "user", "content": "hi"}]
URL = os.environ["PROVIDER"]
"""
SLOW = """
import __future__, ast, importlib.machinery, sys, time

class Slow(importlib.machinery.SourceFileLoader):
    # Runs a module's first lines, and the others a while later: the disk is cold.
    def exec_module(self, module):
        body = ast.parse(self.get_data(self.path)).body
        self.run(body[:2], module)
        time.sleep(0.3)
        self.run(body[2:], module)

    def run(self, body, module):
        flags = __future__.annotations.compiler_flag if "annotations" in vars(module) else 0
        exec(compile(ast.Module(body, []), self.path, "exec", flags), vars(module))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in SLOW:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None:
                spec.loader = Slow(name, spec.origin)
            return spec

SLOW = {"anthropic", "httpx", "posthog.client", "posthog.request", "opentelemetry.trace"}
sys.meta_path.insert(0, Finder())
"""
WATCHED = """
import atexit, sys, threading

class Watch:
    # Notes what is imported by which thread.
    def find_spec(self, name, path=None, target=None):
        seen.setdefault(threading.current_thread().name, set()).add(name)

def report():
    print({thread: sorted(names) for thread, names in seen.items() if thread != "MainThread"})

seen = {}
sys.meta_path.insert(0, Watch())
atexit.register(report)  # the last of all: they run in reverse
"""


class Programs:
    """Runs programs in fresh processes, with a provider and a PostHog in this one."""

    def __init__(self, provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
        self.provider, self.receiver = provider, receiver

    def run(self, before: str, code: str, **environment: str) -> str:
        """Return what a program printed."""
        done = subprocess.run(
            [sys.executable, "-c", before + ASKING + textwrap.dedent(code)],
            env={
                "PATH": os.environ["PATH"],
                "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
                "PROVIDER": self.provider.url,
                "RECEIVER": self.receiver.url,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def project(self) -> dict[str, str]:
        return {"POSTHOG_API_KEY": "phc_test", "POSTHOG_HOST": self.receiver.url}


@pytest.fixture
def programs(provider: ScriptedProvider, receiver: PostHogReceiver) -> Programs:
    return Programs(provider, receiver)


# -- imports -------------------------------------------------------------------------------

MAKING = {
    "openai": "from posthog_llm.openai import OpenAI as Client\npath = '/v1'\n",
    "anthropic": "from posthog_llm.anthropic import Anthropic as Client\npath = ''\n",
}
MAKING |= {
    f"instrument {sdk}": "import posthog_llm; posthog_llm.instrument()\n"
    + making.replace("posthog_llm." + sdk, sdk)
    for sdk, making in MAKING.items()
}


@pytest.mark.parametrize("making", MAKING)
def test_calls_succeed_while_imports_are_slow(programs: Programs, making: str) -> None:
    """The SDK looks into `sys.modules` in each call: nobody may be importing then."""
    program = """
        import posthog_llm
        client = make()
        ask(client)
        for thread in [threading.Thread(target=ask, args=(make(),)) for _ in range(4)]:
            thread.start()
        for _ in range(30):
            ask(client)
            time.sleep(0.01)
        assert "posthog" in sys.modules
        assert posthog_llm.flush(20)
        print(dict(posthog_llm._faults.counts), dict(posthog_llm.stats().dropped))
        """
    out = programs.run(SLOW, MAKING[making] + textwrap.dedent(program), **programs.project())
    assert out == "{} {}\n"
    assert len(programs.receiver.events) == 35


def test_imports_of_other_threads_do_not_disturb_ours(programs: Programs) -> None:
    """We look at modules that the program has: not before they are whole."""
    out = programs.run(
        SLOW + MAKING["openai"],
        """
        import posthog_llm
        imports = [
            threading.Thread(target=__import__, args=(name,))
            for name in ("posthog", "opentelemetry.trace")
        ]
        imports[0].start()
        client = make()
        imports[1].start()
        while imports[1].is_alive():
            ask(client)
        imports[0].join()
        ask(client)
        assert posthog_llm.flush(20)
        stats = posthog_llm.stats()
        assert stats.captured == stats.delivered > 1, stats
        print(dict(posthog_llm._faults.counts))
        """,
        **programs.project(),
    )
    assert out == "{}\n"


def test_instrument_while_another_thread_imports_the_sdk(programs: Programs) -> None:
    out = programs.run(
        SLOW,
        """
        import posthog_llm
        importing = threading.Thread(target=__import__, args=("anthropic",))
        importing.start()
        while "anthropic" not in sys.modules:
            time.sleep(0.001)
        posthog_llm.instrument()
        importing.join()
        from anthropic import Anthropic as Client
        path = ""
        ask(make())
        assert posthog_llm.flush(20)
        print(dict(posthog_llm._faults.counts))
        """,
        **programs.project(),
    )
    assert out == "{}\n"
    assert len(programs.receiver.events) == 1


def test_threads_of_ours_import_nothing(programs: Programs, tmp_path: Any) -> None:
    """Destinations of every kind, encodings, a spool, steps of the user's own, and exit."""
    for encoding in ("gzip", "br", "zstd"):
        headers = {"content-type": "text/event-stream", "content-encoding": encoding}
        reply = Reply([encoded(COUNTED, encoding)], headers=headers)
        programs.provider.script("/chat/completions", reply)
    out = programs.run(
        WATCHED + MAKING["openai"],
        """
        import asyncio
        import posthog_llm
        client = make()
        for _ in range(3):
            with client.chat.completions.with_streaming_response.create(
                model="m", messages=MESSAGES, stream=True
            ) as stream:
                list(stream.iter_bytes())
        ask(client)
        list(ask(client, stream=True))
        ask(client, posthog_client=posthog_llm.Project("phc_tenant", os.environ["RECEIVER"]))
        with posthog_llm.trace("t"):
            posthog_llm.capture_generation(model="m", input="hi")
        import posthog

        async def main():
            own = posthog.AsyncPosthog("phc_async", host=os.environ["RECEIVER"])
            await asyncio.to_thread(ask, client, posthog_client=own)
            await own.flush()
            await own.shutdown()

        if hasattr(posthog, "AsyncPosthog"):
            asyncio.run(main())
        else:
            ask(client)
        assert posthog_llm.flush(20)  # by the worker; at exit the main thread helps
        ask(client)
        """,
        POSTHOG_LLM_SPOOL=str(tmp_path),
        **programs.project(),
    )
    assert out == "{}\n"
    assert len(programs.receiver.events) == 10


def test_batches_are_captured_without_an_import_of_ours(programs: Programs) -> None:
    script_batch(programs.provider, "msgbatch_start", results(2), "gzip")
    out = programs.run(
        WATCHED + MAKING["anthropic"],
        """
        import posthog_llm
        list(make().messages.batches.results("msgbatch_start"))
        assert posthog_llm.flush(20)
        """,
        **programs.project(),
    )
    assert out == "{}\n"
    assert programs.receiver.events[0]["properties"]["$ai_model"] == "claude-sonnet-4-5:batch"


def test_programs_without_a_client_import_on_their_own_thread(programs: Programs) -> None:
    out = programs.run(
        WATCHED,
        """
        import posthog_llm
        assert "posthog" not in sys.modules
        posthog_llm.capture_generation(model="m", input="hi")
        assert "posthog" in sys.modules
        assert posthog_llm.flush(20)
        """,
        **programs.project(),
    )
    assert out == "{}\n"
    assert len(programs.receiver.events) == 1


def test_without_posthog_calls_go_on_and_events_are_counted(programs: Programs) -> None:
    out = programs.run(
        "import sys; sys.modules['posthog'] = None\n" + MAKING["openai"],
        """
        import posthog_llm
        print(ask(make()).choices[0].message.content)
        assert posthog_llm.flush(20)
        print(posthog_llm.stats().captured, dict(posthog_llm.stats().dropped))
        """,
        **programs.project(),
    )
    assert out == "You said: hi\n1 {'fault': 1}\n"


def test_a_module_is_looked_at_when_it_is_whole(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "outer_pack").mkdir()
    (tmp_path / "outer_pack" / "__init__.py").write_text(
        "import outer_pack.whole, __main__\n__main__.reached.set()\n__main__.release.wait(20)\n"
    )
    (tmp_path / "outer_pack" / "whole.py").write_text("")
    main = ModuleType("__main__")
    main.reached, main.release = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("outer_pack", "outer_pack.whole")
    assert [imported(name) for name in names] == [None, None]
    importing = threading.Thread(target=__import__, args=("outer_pack",))
    importing.start()
    assert main.reached.wait(20)
    assert set(names) <= sys.modules.keys()
    assert [imported(name) for name in names] == [None, None]
    main.release.set()
    importing.join()
    assert [imported(name) for name in names] == [sys.modules[name] for name in names]
    for name in names:
        monkeypatch.delitem(sys.modules, name)


# -- threads -------------------------------------------------------------------------------


class NoThreads:
    """Lets no thread of ours start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.started: list[str] = []
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("posthog-llm"):
                self.started.append(thread.name)
                raise error
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.fixture
def stopped() -> None:
    """Begin without a worker, and with counts of one's own."""
    reset()
    worker.forget()


def is_working() -> bool:
    return worker._thread is not None and worker._thread.is_alive()


@pytest.mark.faulty
def test_no_thread_can_start_for_a_while(
    drive: Driver, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch, stopped: None
) -> None:
    tenant = posthog_llm.Project("phc_tenant", host=receiver.url)
    client = drive.ours(posthog_client=tenant)
    with monkeypatch.context() as patch:
        none = NoThreads(patch, RuntimeError("can't start new thread"))
        drive.ask(client)
        drive.ask(client)
        assert none.started == ["posthog-llm"] * 2  # each call tries
        assert posthog_llm.flush(20)  # on this thread
        assert len(receiver.events) == 2
    assert set(faults.counts) == {"Worker.start:RuntimeError"}
    drive.ask(client)
    assert is_working()
    assert posthog_llm.flush(20)
    assert posthog_llm.stats().delivered == len(receiver.events) == 3


def test_the_official_client_can_start_no_thread(programs: Programs) -> None:
    """We make it for the environment's project; what is half made must not fail at exit."""
    program = """
        import posthog.consumer
        import posthog_llm

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        posthog.consumer.Consumer.start = refuse
        ask(make())
        assert posthog_llm.flush(20)
        print(dict(posthog_llm._faults.counts))
        """
    out = programs.run("", MAKING["openai"] + textwrap.dedent(program), **programs.project())
    assert out == "{}\n"
    assert len(programs.receiver.events) == 1


def test_ctrl_c_while_the_worker_starts(
    drive: Driver, sink: MemorySink, monkeypatch: pytest.MonkeyPatch, stopped: None
) -> None:
    client = drive.ours(posthog_client=sink)
    with monkeypatch.context() as patch:
        NoThreads(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            drive.ask(client)
    drive.ask(client)
    assert is_working()
    sink.wait_for(1)


class TimeLimit(Exception):
    pass


def _over(*_: object) -> None:
    raise TimeLimit


class Alarming:
    """Parts of a program, and a destination; in one of them, the first time, its time is up."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.uuids: list[str] = []

    def _at(self, where: str) -> None:
        if where == self.where:
            self.where = ""
            signal.raise_signal(signal.SIGALRM)

    def __str__(self) -> str:
        self._at("property")
        return "text"

    def redact(self, text: str) -> str:
        self._at("redactor")
        return text

    def filter(self, event: Any) -> Any:
        self._at("filter")
        return event

    def drop(self, *_: object) -> None:
        self._at("drop")

    def capture(self, uuid: str, **_: Any) -> None:
        self._at("capture")
        self.uuids.append(uuid)


@pytest.mark.faulty
@pytest.mark.parametrize("where", ["capture", "redactor", "filter", "property", "drop"])
def test_a_time_limit_amid_a_delivery_on_the_programs_thread(
    monkeypatch: pytest.MonkeyPatch, stopped: None, where: str
) -> None:
    """It reaches the program, and no event is lost by it, or told twice."""
    sink = Alarming(where)
    before = signal.signal(signal.SIGALRM, _over)
    posthog_llm.configure(redact=sink.redact, before_capture=sink.filter, on_drop=sink.drop)
    NoThreads(monkeypatch, RuntimeError("can't start new thread"))
    found = posthog_llm.stats()
    try:
        for _ in range(3):
            posthog_llm.capture_generation(
                model="m", input="hi", properties={"mine": sink}, posthog_client=sink
            )
        call_queue.lose("lost", "fault")
        with pytest.raises(TimeLimit):
            posthog_llm.flush(10)
        assert posthog_llm.flush(10)
        assert len(sink.uuids) == len(set(sink.uuids)) == 3
        assert posthog_llm.stats().delivered - found.delivered == 3
        assert posthog_llm.stats().dropped["fault"] - found.dropped.get("fault", 0) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
        posthog_llm.configure(redact=None, before_capture=None, on_drop=None)


# -- faults --------------------------------------------------------------------------------


class Broken(MemorySink):
    """A destination that cannot say whether it is private."""

    @property
    def privacy_mode(self) -> bool:  # type: ignore[override]
        raise ValueError

    @privacy_mode.setter
    def privacy_mode(self, value: bool) -> None:
        pass


class BrokenSpan(otel.NonRecordingSpan):
    def get_span_context(self) -> Any:
        raise ValueError


@pytest.mark.faulty
def test_an_event_that_a_fault_costs_is_counted(drive: Driver, stopped: None) -> None:
    """In the worker, and on the caller's thread, where the call has no event then."""
    lost: list[tuple[str, str]] = []
    posthog_llm.configure(on_drop=lambda uuid, reason: lost.append((uuid, reason)))
    sink = MemorySink()
    client = drive.ours(posthog_client=sink)
    drive.ask(client)
    drive.ask(client, posthog_client=Broken())
    with otel.use_span(BrokenSpan(otel.INVALID_SPAN_CONTEXT)):
        drive.ask(client)
        manual = posthog_llm.capture_generation(model="m", input="hi")
    assert posthog_llm.flush(20)
    stats = posthog_llm.stats()
    assert (stats.captured, stats.delivered, dict(stats.dropped)) == (4, 1, {"fault": 3})
    assert {reason for _, reason in lost} == {"fault"}
    assert len({uuid for uuid, _ in lost}) == 3
    assert manual in {uuid for uuid, _ in lost}
    assert set(faults.counts) == {
        "worker:ValueError",
        "started:ValueError",
        "manual:ValueError",
    }


def test_what_a_filter_drops_was_captured(drive: Driver, sink: MemorySink, stopped: None) -> None:
    posthog_llm.configure(before_capture=lambda event: None)
    try:
        drive.ask(drive.ours(posthog_client=sink))
        assert posthog_llm.flush(20)
    finally:
        posthog_llm.configure(before_capture=None)
    stats = posthog_llm.stats()
    assert (stats.captured, dict(stats.dropped)) == (1, {"before_capture": 1})


@pytest.mark.faulty
def test_a_sink_that_exits_ends_no_thread_of_ours(drive: Driver, stopped: None) -> None:
    class Exiting:
        def capture(self, event: str, **arguments: Any) -> None:
            sys.exit(1)

    drive.ask(drive.ours(posthog_client=Exiting()))
    assert posthog_llm.flush(20)
    assert dict(posthog_llm.stats().dropped) == {"capture_failed": 1}


# -- what is the user's --------------------------------------------------------------------


class Own:
    """A destination of a user's, with a life of its own."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.flushed = 0

    def __eq__(self, other: object) -> bool:
        return True  # and without a hash

    def capture(self, event: str, **arguments: Any) -> str:
        self.events.append(event)
        return ""

    def flush(self) -> None:
        self.flushed += 1

    def shutdown(self) -> None:
        pass


@every_provider
def test_a_sink_stays_as_it_is(drive: Driver) -> None:
    mine, other = Own(), Own()
    before = dict(vars(mine))
    drive.ask(drive.ours(posthog_client=mine))
    drive.ask(drive.ours(), posthog_client=other)
    assert posthog_llm.flush(20)
    assert vars(mine).keys() == before.keys()
    assert (mine.events, other.events) == (["$ai_generation"], ["$ai_generation"])
    for twin in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert vars(twin) == vars(mine)


@pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
def test_clients_are_copied_as_the_sdks_are(
    provider: ScriptedProvider, sink: MemorySink, vendor: Any
) -> None:
    drive = SyncDriver(provider, vendor)
    bare, ours = drive.bare(), drive.ours(posthog_client=sink)
    for client in (bare, ours):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(client)
    twin = copy.copy(ours)
    assert type(twin) is type(ours)
    drive.ask(twin)
    sink.wait_for(1)


def test_the_official_clients_flush_delivers_what_came_before(
    drive: Driver, receiver: PostHogReceiver
) -> None:
    """Hooked in its class: nothing is set on the client."""

    class Theirs(posthog.Posthog):
        pass

    for cls in (posthog.Posthog, Theirs):
        theirs = cls("phc_test", host=receiver.url)
        before = set(vars(theirs))
        drive.ask(drive.ours(posthog_client=theirs))
        assert set(vars(theirs)) == before
        seen = len(receiver.events)
        theirs.flush()
        assert len(receiver.events) == seen + 1
        assert asyncio.iscoroutinefunction(theirs.flush) is False
        theirs.shutdown()


def test_flush_of_another_client_is_its_own(drive: Driver, receiver: PostHogReceiver) -> None:
    """Who is no destination of ours waits for nothing of ours."""
    held = threading.Event()

    class Held(MemorySink):
        def capture(self, event: str, **arguments: Any) -> str | None:  # type: ignore[override]
            held.wait(20)
            return super().capture(event, **arguments)

    mine, other = Held(), posthog.Posthog("phc_other", host=receiver.url)
    drive.ask(drive.ours(posthog_client=mine))
    other.capture("theirs", distinct_id="u")
    other.shutdown()
    assert [event["event"] for event in receiver.events] == ["theirs"]
    held.set()
    mine.wait_for(1)


def test_nothing_is_left_in_the_modules() -> None:
    """`posthog.flush` is the package's own function; so is what the SDKs are made of."""
    assert posthog.flush.__module__ == "posthog"
    assert not hasattr(posthog.flush, "__wrapped__")
    assert openai.OpenAI.request.__qualname__ == "SyncAPIClient.request"
    assert anthropic.Anthropic.request.__qualname__ == "SyncAPIClient.request"
