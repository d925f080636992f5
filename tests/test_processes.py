"""How processes live and die: real ones, against a receiver in this one."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posthog_llm.testing import PostHogReceiver, ScriptedProvider

from .fork_server import ForkServer

PREAMBLE = """
import itertools, os, signal, sys, threading, time
from openai import DefaultHttpxClient
import posthog_llm
from posthog import Posthog
from posthog_llm.openai import OpenAI

def project(**options):
    return Posthog("phc_test", host=os.environ["RECEIVER"], **options)

numbers = itertools.count()

def ask(count=1, **arguments):
    for _ in range(count):
        client.chat.completions.create(
            model="m",
            messages=[],
            posthog_distinct_id=f"{os.getpid()}-{next(numbers)}",
            **arguments,
        )

def ask_in_child(count):
    global client  # connections to the provider cannot be shared with the parent
    client = client.with_options(http_client=DefaultHttpxClient())
    ask(count)
    assert posthog_llm.flush(20), posthog_llm.stats()

def wait_until(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, posthog_llm.stats()
        time.sleep(0.002)

client = OpenAI(base_url=os.environ["PROVIDER"], api_key="k", posthog_client=project())
"""

forks = ForkServer()


class Children:
    """Starts programs that begin with the preamble above."""

    def __init__(self, provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
        self.receiver = receiver
        self._environment = {
            "PATH": os.environ["PATH"],
            "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
            "PROVIDER": provider.base_url,
            "RECEIVER": receiver.url,
        }

    def start(self, code: str, before: str = "", **environment: Any) -> Any:
        """Start a program; a new interpreter, where something is to come `before` all imports."""
        program = before + PREAMBLE + textwrap.dedent(code)
        given = {**self._environment, **{name: str(v) for name, v in environment.items()}}
        if not before:
            return forks.start(program, given)
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, before: str = "", expect: int = 0, **environment: Any) -> str:
        """Run a program to its end; returns what it printed."""
        process = self.start(code, before, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == expect, err
        assert "Traceback" not in err
        return out

    def seen(self) -> Counter[str]:
        return Counter(event["distinct_id"] for event in self.receiver.events)


@pytest.fixture
def children(provider: ScriptedProvider, receiver: PostHogReceiver) -> Children:
    return Children(provider, receiver)


def once(children: Children, count: int) -> None:
    seen = children.seen()
    assert len(seen) == count
    assert set(seen.values()) == {1}


# -- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "posthog_llm.flush(); os._exit(0)",
        "posthog_llm.shutdown(); os._exit(0)",
        "client._posthog.client.flush(); os._exit(0)",
        "client._posthog.client.shutdown(); os._exit(0)",
    ],
)
def test_endings_that_deliver(children: Children, ending: str) -> None:
    children.run(f"ask(7)\n{ending}")
    once(children, 7)


def test_exit_is_bounded_when_posthog_hangs(children: Children) -> None:
    children.receiver.fault = "hang"
    start = time.monotonic()
    children.run("ask(3); print(time.monotonic() - 0)")
    assert time.monotonic() - start < 15  # 5 seconds, and what a loaded machine needs to start
    assert children.receiver.events == []


def test_sigterm_with_signal_flush(children: Children) -> None:
    out = children.run(
        """
        posthog_llm.install_signal_flush()
        ask(5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        expect=-signal.SIGTERM,
    )
    assert out == ""
    once(children, 5)


def test_signal_flush_calls_the_handler_before_it(children: Children) -> None:
    out = children.run(
        """
        signal.signal(signal.SIGTERM, lambda number, frame: print("mine") or os._exit(3))
        posthog_llm.install_signal_flush(timeout=5)
        ask(5)
        sys.stdout.reconfigure(line_buffering=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        expect=3,
    )
    assert out == "mine\n"
    once(children, 5)


def test_signal_flush_is_bounded(children: Children) -> None:
    children.receiver.fault = "hang"
    children.run(
        """
        posthog_llm.install_signal_flush(timeout=0.5)
        ask(5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(50)
        """,
        expect=-signal.SIGTERM,
    )


def test_signal_amid_the_delivery_of_the_main_thread(children: Children) -> None:
    """At exit the main thread delivers itself: a flush in its handler would wait for it."""
    process = children.start(
        """
        def terminate(event):
            os.kill(os.getpid(), signal.SIGTERM)
            return event

        posthog_llm.install_signal_flush()
        posthog_llm.configure(before_capture=terminate)
        ask(1)
        """
    )
    _, error = process.communicate(timeout=60)
    # By the signal, or as without it where the exit was quicker.
    assert process.returncode in (0, -signal.SIGTERM), error
    once(children, 1)


# CPython 3.13.0 crashes where a stream, of the bare SDK too, is still open when modules are torn
# down: httpx2 uses `datetime`, which is gone by then. So the process ends when exit functions end.
NO_TEAR_DOWN = "import atexit, os; atexit.register(os._exit, 0)"
STREAM = """
    stream = iter(client.chat.completions.create(model="m", messages=[], stream=True))
    next(stream)
    """


def test_signal_flush_tells_of_open_streams_where_the_process_dies(children: Children) -> None:
    code = textwrap.dedent(STREAM) + "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"
    children.run("posthog_llm.install_signal_flush()\n" + code, expect=-signal.SIGTERM)
    (event,) = children.receiver.events
    assert event["properties"]["posthog_llm_outcome"] == "dropped"


@pytest.mark.parametrize("end", ["list(stream)", "sys.exit()"], ids=["lives on", "exits"])
def test_signal_flush_leaves_open_streams_to_the_handler_before_it(
    children: Children, end: str
) -> None:
    code = f"""
        signal.signal(signal.SIGTERM, lambda number, frame: {end})
        posthog_llm.install_signal_flush()
        os.kill(os.getpid(), signal.SIGTERM)
        """
    children.run(textwrap.dedent(STREAM) + textwrap.dedent(code), before=NO_TEAR_DOWN)
    (event,) = children.receiver.events
    assert event["properties"]["posthog_llm_outcome"] == ("ok" if "list" in end else "dropped")


def test_step_of_the_end_that_fails_costs_no_other(children: Children) -> None:
    """Threads go on opening streams while the process ends, and one stream cannot be ended."""
    out = children.run(
        """
        from posthog_llm._observe.call_queue import call_queue

        class Broken:
            def abandon(self):
                print("broken")
                raise RuntimeError

        class Open:
            def abandon(self):
                pass

        def go_on():
            kept = []
            while True:
                kept.append(Open())
                call_queue.unended.add(kept[-1])

        broken = Broken()
        call_queue.unended.add(broken)
        ask(3)
        threading.Thread(target=go_on, daemon=True).start()
        """
    )
    assert out == "broken\n"
    once(children, 3)


# -- forks ---------------------------------------------------------------------------------

FORKS = {
    "os.fork": """
        ask(3)
        children = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                ask_in_child(4)
                os._exit(0)
            children.append(pid)
        ask(2)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        """,
    "multiprocessing": """
        import multiprocessing
        ask(5)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=ask_in_child, args=(4,)) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
        """,
    "while busy": """
        ask(1)  # the SDK imports in its first call; a fork at that moment would hang its child
        busy = threading.Thread(target=ask, args=(4,))
        busy.start()
        for _ in range(3):
            pid = os.fork()
            if not pid:
                ask_in_child(4)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        busy.join()
        """,
}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("way", list(FORKS))
@pytest.mark.parametrize("settings", ["client", "environment", "spool"])
def test_parent_and_forked_children_are_captured_once_each(
    children: Children, way: str, settings: str, tmp_path: Path
) -> None:
    environment: dict[str, Any] = {"PYTHONWARNINGS": "ignore"}
    code = textwrap.dedent(FORKS[way])
    if settings == "environment":
        environment |= {"POSTHOG_API_KEY": "phc_env", "POSTHOG_HOST": children.receiver.url}
        code = "client._posthog = posthog_llm._record.Arguments()\n" + code
    if settings == "spool":
        environment["POSTHOG_LLM_SPOOL"] = tmp_path
    children.run(code, **environment)
    once(children, 5 + 3 * 4)
    if settings == "spool":  # a child that ends by os._exit leaves its empty file
        children.run(DELIVER, POSTHOG_LLM_SPOOL=tmp_path)
        assert spooled(tmp_path) == []


OPEN_AT_A_FORK = {
    "a stream, let go of": """
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        next(stream)
        if os.fork() == 0:
            del stream
            posthog_llm.flush(20)
            os._exit(0)
        os.wait()
        list(stream)
    """,
    "a stream, beside a call": """
        def is_child():
            stream = client.chat.completions.create(model="m", messages=[], stream=True)
            next(stream)
            if os.fork() == 0:
                return True  # here the child lets go of it
            os.wait()
            list(stream)
        if is_child():
            ask_in_child(1)
    """,
    "a trace": """
        with posthog_llm.trace("t", posthog_client=project()), posthog_llm.span("s"):
            if os.fork() == 0:
                sys.exit()
            os.wait()
    """,
    "a generation": """
        with posthog_llm.generation(model="m", posthog_client=project()):
            if os.fork() == 0:
                sys.exit()
            os.wait()
    """,
}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("what", list(OPEN_AT_A_FORK))
def test_what_is_open_at_a_fork_ends_in_the_process_that_began_it(
    children: Children, what: str
) -> None:
    children.run(textwrap.dedent(OPEN_AT_A_FORK[what]), PYTHONWARNINGS="ignore")
    events = children.receiver.events
    count = 1 if what in ("a stream, let go of", "a generation") else 2
    assert len({event["uuid"] for event in events}) == len(events) == count
    assert {event["properties"]["posthog_llm_outcome"] for event in events} == {"ok"}


# `platform` starts a program, which with gevent is a fork amid the first calls.
GEVENT = """
from gevent import monkey; monkey.patch_all()
import platform; platform.platform()
"""


def test_gevent(children: Children) -> None:
    pytest.importorskip("gevent", reason="gevent has no build for this Python")
    children.run(
        """
        import gevent
        gevent.joinall([gevent.spawn(lambda n: [
            client.chat.completions.create(model="m", messages=[], posthog_distinct_id=f"{n}-{i}")
            for i in range(5)
        ], n) for n in range(10)])
        assert posthog_llm.flush(20), posthog_llm.stats()
        """,
        before=GEVENT,
    )
    once(children, 50)


# -- the spool -----------------------------------------------------------------------------

DELIVER = "assert posthog_llm.flush(20), posthog_llm.stats()\n"


def spooled(tmp_path: Path) -> list[str]:
    """Return the kinds of the files with events in a spool."""
    names = (path.name.partition(".")[2] for path in tmp_path.iterdir())
    return sorted(name for name in names if name and not name.endswith("-wal"))


def test_process_that_only_knew_the_outage_loses_nothing(
    children: Children, tmp_path: Path
) -> None:
    place = tmp_path / "made" / "by us"
    children.receiver.stop()
    children.run("ask(20)", POSTHOG_LLM_SPOOL=place)
    assert spooled(place) == ["events"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert (stat.S_IMODE(place.stat().st_mode), modes) == (0o700, {0o600})
    children.receiver.start()
    children.run(f"posthog_llm.configure(spool={str(place)!r})\n" + DELIVER)
    once(children, 20)
    assert spooled(place) == []


def test_sigterm_and_sigkill_with_a_spool(children: Children, tmp_path: Path) -> None:
    children.receiver.fault = "hang"
    for number in (signal.SIGTERM, signal.SIGKILL):
        code = f"""
            ask(10)
            wait_until(lambda: posthog_llm.stats().captured == 10)
            os.kill(os.getpid(), {number})
            """
        children.run(code, expect=-number, POSTHOG_LLM_SPOOL=tmp_path)
    assert children.receiver.events == []
    children.receiver.fault = None
    out = children.run(DELIVER + "print(posthog_llm.stats())", POSTHOG_LLM_SPOOL=tmp_path)
    assert "delivered=20" in out
    once(children, 20)


def test_processes_share_a_spool_without_sending_twice(children: Children, tmp_path: Path) -> None:
    children.receiver.stop()
    for _ in range(4):
        children.run("ask(15)", POSTHOG_LLM_SPOOL=tmp_path)
    assert len(spooled(tmp_path)) == 4
    children.receiver.start()
    running = [children.start("ask(5)\n" + DELIVER, POSTHOG_LLM_SPOOL=tmp_path) for _ in range(4)]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    once(children, 4 * 15 + 4 * 5)
    assert spooled(tmp_path) == []


def test_spooled_event_is_the_event(children: Children, tmp_path: Path) -> None:
    """What a later process delivers is what this one would have."""
    children.receiver.stop()
    code = 'ask(1, posthog_groups={"company": "acme"}, posthog_properties={"n": [1, "é"]})'
    children.run(code, POSTHOG_LLM_SPOOL=tmp_path)
    children.receiver.start()
    children.run(DELIVER, POSTHOG_LLM_SPOOL=tmp_path)
    children.run(code)
    late, now = children.receiver.events
    own = {"uuid", "timestamp", "distinct_id", "properties", "$ai_latency"}
    own |= {"$ai_trace_id", "$ai_span_id", "posthog_llm_request_id", "posthog_llm_response_id"}
    assert {k: v for k, v in late.items() if k not in own} == {
        k: v for k, v in now.items() if k not in own
    }
    assert {k: v for k, v in late["properties"].items() if k not in own} == {
        k: v for k, v in now["properties"].items() if k not in own
    }
    assert late["timestamp"] < now["timestamp"]


def test_client_with_before_send_waits_for_its_like(children: Children, tmp_path: Path) -> None:
    """What a `before_send` was to see leaves through a client that has one, or not at all."""
    children.receiver.stop()
    scrub = 'project(before_send=lambda e: {**e, "distinct_id": "scrubbed"})'
    children.run(f"ask(3, posthog_client={scrub})", POSTHOG_LLM_SPOOL=tmp_path)
    children.receiver.start()
    code = """
        ask(1)
        wait_until(lambda: posthog_llm.stats().delivered == 1)
        wait_until(lambda: posthog_llm.stats().spooled == 3)
        """
    children.run(code, POSTHOG_LLM_SPOOL=tmp_path)
    assert len(children.receiver.events) == 1
    code = f"client = OpenAI(base_url='http://x', api_key='k', posthog_client={scrub})\n"
    children.run(code + DELIVER, POSTHOG_LLM_SPOOL=tmp_path)
    assert children.seen()["scrubbed"] == 3


def test_damaged_entries_are_skipped_and_counted(children: Children, tmp_path: Path) -> None:
    import sqlite3

    children.receiver.stop()
    for _ in range(3):
        children.run("ask(10)", POSTHOG_LLM_SPOOL=tmp_path)
    first, second, third = tmp_path.glob("*.events")
    for path in (first, second, third):
        db = sqlite3.connect(path)
        assert db.execute("select count(*) from events").fetchone() == (10,)
        db.close()  # as the last one it leaves no write-ahead log
    db = sqlite3.connect(first)
    db.execute(
        "update events set body = substr(body, 1, 40) where uuid = (select min(uuid) from events)"
    )
    db.execute("update events set address = '[' where uuid = (select max(uuid) from events)")
    db.commit()
    db.close()
    second.write_bytes(second.read_bytes()[:5000])
    third.write_bytes(b"no database at all")
    children.receiver.start()
    out = children.run(DELIVER + "print(posthog_llm.stats().dropped)", POSTHOG_LLM_SPOOL=tmp_path)
    assert out == "{'spool_damaged': 4}\n"
    assert len(children.receiver.events) >= 8
    assert set(children.seen().values()) == {1}
    assert {name[:14] for name in spooled(tmp_path)} == {"events.damaged"}


def test_full_disk_degrades_to_memory(children: Children, tmp_path: Path) -> None:
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        ask(200)
        assert posthog_llm.flush(20)
        stats = posthog_llm.stats()
        assert (stats.delivered, stats.dropped) == (200, {}), stats
        print("faults:", sorted(posthog_llm._faults.counts))
        """
    children.receiver.fault = "slow"
    out = children.run(code, POSTHOG_LLM_SPOOL=tmp_path)
    assert "'SpoolPolicy._written:OperationalError'" in out
    once(children, 200)


def test_size_and_age_are_bounded(children: Children, tmp_path: Path) -> None:
    children.receiver.stop()
    code = f"""
        posthog_llm.configure(spool=posthog_llm.Spool({str(tmp_path)!r}, max_bytes=20_000))
        ask(100)
        time.sleep(1)
        print(posthog_llm.stats().spooled)
        """
    count = int(children.run(code))
    assert 0 < count < 50
    time.sleep(1.1)
    children.receiver.start()
    code = f"""
        posthog_llm.configure(spool=posthog_llm.Spool({str(tmp_path)!r}, max_age=1))
        wait_until(lambda: sum(posthog_llm.stats().dropped.values()) >= {count})
        print(posthog_llm.stats().dropped)
        """
    assert children.run(code) == f"{{'spool_age': {count}}}\n"
    assert children.receiver.events == []


KILLED = """
sent = 0
while True:
    client.chat.completions.create(model="m", messages=[], posthog_distinct_id=f"{RUN}-{sent}")
    sent += 1
    wait_until(lambda: posthog_llm.stats().captured == sent)
    os.write(1, b"x")
"""


@pytest.mark.once  # what survives is files: of the others, one kill is enough
@pytest.mark.timeout(300)
def test_fifty_kills_at_random_moments_lose_nothing(children: Children, tmp_path: Path) -> None:
    """A call is acknowledged when `stats()` counts it: it is in the spool from then on."""
    acknowledged: dict[int, int] = {}
    for run in range(0, 50, 5):
        running = {}
        for number in range(run, run + 5):  # five at a time share the directory
            code = f"RUN = {number}\n" + KILLED
            running[number] = children.start(code, POSTHOG_LLM_SPOOL=tmp_path)
        for process in running.values():
            assert process.stdout is not None
            os.read(process.stdout.fileno(), 1)
        time.sleep(random.uniform(0, 0.6))
        for number, process in running.items():
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
            assert err == ""
            acknowledged[number] = 1 + len(out)
    children.run(DELIVER, POSTHOG_LLM_SPOOL=tmp_path)
    seen = children.seen()
    expected = {f"{run}-{n}" for run, count in acknowledged.items() for n in range(count)}
    assert expected <= seen.keys()
    assert sum(acknowledged.values()) > 200
    # The call that was on its way when the process was killed may have been captured.
    assert len(seen.keys() - expected) <= 50
    # What PostHog had taken when its process was killed before it knew is sent once more, under
    # the same uuid; more often, if the process that took over is killed as well.
    assert len({event["uuid"] for event in children.receiver.events}) == len(seen)
    assert sum(seen.values()) - len(seen) <= len(seen)


@pytest.mark.parametrize("where", ["outside", "amid our own lines"])
def test_signal_flush_where_no_thread_can_start(children: Children, where: str) -> None:
    code = """
        posthog_llm.install_signal_flush()
        ask()

        def start(thread):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = start
        if WHERE == "outside":
            os.kill(os.getpid(), signal.SIGTERM)
        from posthog_llm._delivery.worker import worker
        with worker.turn.alone():
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    """
    children.run(code.replace("WHERE", repr(where)), expect=-signal.SIGTERM)
    assert sum(children.seen().values()) == 1
