"""Jobs: what a process says at its end of what it captured."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from posthog import Posthog

import posthog_llm
from posthog_llm import Delivery
from posthog_llm import _cli as cli
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .test_processes import DELIVER, Children


@pytest.fixture
def children(provider: ScriptedProvider, receiver: PostHogReceiver) -> Children:
    return Children(provider, receiver)


def test_a_job_says_what_became_of_its_events() -> None:
    sink = MemorySink()
    posthog_llm.capture_generation(model="m", posthog_client=sink)
    posthog_llm.flush(10)
    with posthog_llm.job() as job:
        assert job.delivery is None
        for _ in range(3):
            posthog_llm.capture_generation(model="m", posthog_client=sink)
    assert job.delivery == Delivery(delivered=3)
    assert job.delivery.is_safe


@pytest.mark.faulty
def test_a_job_says_what_was_lost() -> None:
    class Broken:
        def capture(self, **_: Any) -> None:
            raise OSError

    job = posthog_llm.job()

    def fail() -> None:
        with job:
            posthog_llm.capture_generation(model="m", posthog_client=Broken())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert job.delivery == Delivery(lost={"capture_failed": 1})
    assert not job.delivery.is_safe


def test_what_the_program_filters_is_not_lost(sink: MemorySink) -> None:
    posthog_llm.configure(before_capture=lambda event: None)
    try:
        with posthog_llm.job() as job:
            posthog_llm.capture_generation(model="m", posthog_client=sink)
    finally:
        posthog_llm.configure(before_capture=None)
    assert job.delivery == Delivery()


def test_an_outage(receiver: PostHogReceiver) -> None:
    receiver.status = 503
    destination = Posthog("phc_job", host=receiver.url, max_retries=0, flush_interval=0.1)
    with posthog_llm.job(timeout=0.5) as job:
        posthog_llm.capture_generation(model="m", posthog_client=destination)
    assert job.delivery == Delivery(waiting=1)
    receiver.status = 200
    assert posthog_llm.flush(20)


def test_async(sink: MemorySink) -> None:
    """The loop goes on while the end of the job waits."""
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0.005)

    class Slow(MemorySink):
        def capture(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(0.2)
            return super().capture(*args, **kwargs)

    async def main() -> Any:
        task = asyncio.create_task(tick())
        async with posthog_llm.job() as job:
            posthog_llm.capture_generation(model="m", posthog_client=Slow())
            before = len(ticks)
        assert len(ticks) > before + 5
        assert await posthog_llm.aflush(10)
        task.cancel()
        return job.delivery

    assert asyncio.run(main()) == Delivery(delivered=1)
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(posthog_llm.aflush(-1))


@pytest.mark.parametrize("timeout", [-1, "10", None])
def test_misuse_raises_at_once(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        posthog_llm.job(timeout=timeout)


JOB = """
with posthog_llm.job(timeout=1) as job:
    ask(4)
print(job.delivery, job.delivery.is_safe, flush=True)
os._exit(0)
"""


def test_what_is_safe_on_disk(children: Children, tmp_path: Path) -> None:
    """`flush` would be False: exit codes need more."""
    children.receiver.status = 503
    for _ in range(2):  # what another process left is not the job's
        properties = children.run(JOB, POSTHOG_LLM_SPOOL=tmp_path)
        assert properties == "Delivery(delivered=0, spooled=4, waiting=0, lost={}) True\n"
    children.receiver.status = 200
    assert children.run(JOB).startswith("Delivery(delivered=4, spooled=0, waiting=0, lost={}) True")


FORKED = """
with posthog_llm.job() as job:
    ask(2)
    pid = os.fork()
    if not pid:
        ask(1)
if not pid:
    assert job.delivery is None  # the block is its parent's
    assert posthog_llm.flush()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(job.delivery)
"""


def test_a_job_is_its_own_process_s(children: Children) -> None:
    properties = children.run(FORKED)
    assert properties == "Delivery(delivered=2, spooled=0, waiting=0, lost={})\n"
    assert children.seen().total() == 3


def test_a_redactor_that_hangs_at_exit_holds_nobody_up(children: Children) -> None:
    """What it has not seen is lost with the process, as in any that ends without a spool."""
    code = """
        import threading
        posthog_llm.configure(redact=lambda text: threading.Event().wait(60) or text)
        with posthog_llm.trace("t", input="x"):
            ask(1)
        began = time.monotonic()
        assert posthog_llm.shutdown(0.5) is False
        assert time.monotonic() - began < 5
        """
    began = time.monotonic()
    children.run(code)
    assert time.monotonic() - began < 30, "the redactor would hang for 60 seconds"


# -- the command ---------------------------------------------------------------------------------


def test_show_and_send(
    children: Children, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = children.receiver
    receiver.stop()
    children.run("ask(3)", POSTHOG_LLM_SPOOL=tmp_path)
    scrub = "project(before_send=lambda event: event)"
    children.run(f"ask(1, posthog_client={scrub})", POSTHOG_LLM_SPOOL=tmp_path)
    for _ in range(2):  # to show is not to touch
        assert cli.main(["spool", "show", str(tmp_path)]) == 0
        properties = capsys.readouterr().out
        assert f"3 events for {receiver.url}, the project with the key phc_test...\n" in properties
        assert "1 event for" in properties
        assert "through a client with a before_send only" in properties
        assert "The oldest is of 20" in properties
    receiver.start()
    code = f"""
        from posthog_llm import _cli as cli
        assert cli.main(["spool", "send", {str(tmp_path)!r}]) == 1  # one waits for its client
        """
    properties = children.run(code)
    assert "3 events delivered\n" in properties
    assert children.seen().total() >= 3
    assert cli.main(["spool", "show", str(tmp_path)]) == 0
    assert "1 event for" in capsys.readouterr().out
    options = f"client.with_options(posthog_client={scrub})\n"
    children.run(f"client = {options}{DELIVER}", POSTHOG_LLM_SPOOL=tmp_path)
    assert cli.main(["spool", "show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No events of ended processes\n"


def test_show_leaves_a_file_that_is_just_being_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that starts has made its file, and has not locked it yet."""
    made = tmp_path / "just-made.events"
    made.touch()
    assert cli.main(["spool", "show", str(tmp_path)]) == 0
    assert made.exists()
    assert "1 more files are of processes that live" in capsys.readouterr().out


def test_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["spool", "send", str(tmp_path / "none")])
    assert "is no directory" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "none")
