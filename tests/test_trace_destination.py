"""Where the steps of a trace go, where nobody named a destination for them."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import posthog
import pytest

import posthog_llm
from posthog_llm import (
    configure,
    context,
    continue_trace,
    instrument,
    propagate_context,
    span,
    trace,
)
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .driving import Driver, SyncDriver
from .test_processes import Children


@pytest.fixture(autouse=True)
def nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("default_client", "api_key", "project_api_key"):
        monkeypatch.setattr(posthog, name, None)
    yield
    configure(posthog_client=None)
    posthog_llm.uninstrument()


@pytest.fixture
def default() -> Iterator[MemorySink]:
    """Where events go that nothing names a destination for."""
    sink = MemorySink()
    configure(posthog_client=sink)
    return sink  # type: ignore[return-value]


def names(sink: MemorySink) -> set[Any]:
    return {event.properties.get("$ai_span_name") or event.event for event in sink.events}


def test_steps_go_where_the_calls_inside_go(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    with trace("t") as t:
        with span("before"):
            pass
        sink.wait_for(0)
        drive.ask(client)
        with span("after"):
            sink.wait_for(2)
    assert names(sink) == {"t", "before", "after", "$ai_generation"}
    found = {event.properties.get("$ai_span_name"): event for event in sink.wait_for(4)}
    assert {event.properties["$ai_trace_id"] for event in found.values()} == {t.trace_id}
    assert found["before"].properties["$ai_parent_id"] == t.id
    assert found["t"].timestamp <= found["before"].timestamp <= found["after"].timestamp
    assert found["t"].properties["$ai_latency"] >= found["before"].properties["$ai_latency"]


def test_the_call_itself_the_context_and_the_client_may_name_it(
    provider: ScriptedProvider,
) -> None:
    by_call, by_context, by_client = MemorySink(), MemorySink(), MemorySink()
    driver = SyncDriver(provider)
    client = driver.ours(posthog_client=by_client)
    with trace("one"):
        driver.ask(client, posthog_client=by_call)
        driver.ask(client)
    with context(posthog_client=by_context), trace("two"):
        driver.ask(client)
    with span("three"):
        driver.ask(client)
    assert names(by_call) == {"one", "$ai_generation"}
    assert names(by_context) == {"two", "$ai_generation"}
    assert names(by_client) == {"three", "$ai_generation"}
    assert len(by_client.events) == 3  # the first call decides


class EmptySink(MemorySink):
    """A destination that is false as long as it has nothing to say for itself."""

    def __len__(self) -> int:
        return 0


def test_a_destination_that_is_false_is_one(provider: ScriptedProvider) -> None:
    sink, other, driver = EmptySink(), MemorySink(), SyncDriver(provider)
    with trace("of the client"), span("step"):
        driver.ask(driver.ours(posthog_client=sink))
    sink.wait_for(3)
    configure(posthog_client=other)
    client = driver.ours(posthog_client=other)
    with trace("named", posthog_client=sink), span("step"):
        driver.ask(client)
        posthog_llm.capture_generation(model="m")
    driver.ask(client, posthog_client=sink)
    sink.wait_for(8)
    other.wait_for(0)


def test_instrument_before_configure_before_the_first_call(
    provider: ScriptedProvider, default: MemorySink
) -> None:
    instrumented, named = MemorySink(), MemorySink()
    driver = SyncDriver(provider)
    with trace("configured"):
        driver.ask(driver.ours(posthog_client=named))
    instrument(instrumented)
    with trace("instrumented"):
        driver.ask(driver.bare())
        posthog_llm.capture_generation(model="m", span_name="by hand")
    posthog_llm.uninstrument()
    with trace("configured again"):
        pass
    assert names(instrumented) == {"instrumented", "$ai_generation", "by hand"}
    assert names(default) == {"configured", "configured again"}
    assert names(named) == {"$ai_generation"}


def test_configure_is_the_default_of_every_event(drive: Driver, default: MemorySink) -> None:
    drive.ask(drive.ours())
    posthog_llm.capture_generation(model="m", span_name="by hand")
    with span("step"):
        pass
    named = MemorySink()
    drive.ask(drive.ours(posthog_client=named))
    assert names(default) == {"$ai_generation", "by hand", "step"}
    assert names(named) == {"$ai_generation"}


def test_misuse_of_the_default() -> None:
    with pytest.raises(TypeError, match="posthog_client must be a posthog"):
        configure(posthog_client="phc_key")  # type: ignore[arg-type]


def test_the_default_is_flushed_by_its_own_flush(receiver: PostHogReceiver) -> None:
    from posthog import Posthog

    client = Posthog("phc_test", host=receiver.url)
    configure(posthog_client=client)
    with trace("t"):
        pass
    client.flush()
    assert [event["event"] for event in receiver.events] == ["$ai_trace"]
    client.shutdown()


def test_a_trace_without_a_call_goes_where_the_environment_says(
    receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")
    monkeypatch.setenv("POSTHOG_HOST", receiver.url)
    with trace("t"), span("s"):
        posthog_llm.capture_generation(model="m")
    assert posthog_llm.flush(10)
    assert len(receiver.events) == 3


def test_manual_captures_follow_the_trace(
    provider: ScriptedProvider,
    sink: MemorySink,
    receiver: PostHogReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before its first call and after, whatever the environment says."""
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")
    monkeypatch.setenv("POSTHOG_HOST", receiver.url)
    driver = SyncDriver(provider)
    with trace("t"):
        posthog_llm.capture_generation(model="m", span_name="before")
        driver.ask(driver.ours(posthog_client=sink))
        posthog_llm.capture_generation(model="m", span_name="after")
    assert posthog_llm.flush(10)
    assert names(sink) == {"t", "$ai_generation", "before", "after"}
    assert not receiver.events


def test_a_trace_inside_a_trace(provider: ScriptedProvider) -> None:
    """Each goes where its own calls go; one without any, where those around it go."""
    one, two = MemorySink(), MemorySink()
    driver = SyncDriver(provider)
    with trace("around"):
        with trace("silent"), span("silent step"):
            pass
        with trace("first"):
            driver.ask(driver.ours(posthog_client=one))
        with trace("second"):
            driver.ask(driver.ours(posthog_client=two))
    assert names(one) == {"around", "silent", "silent step", "first", "$ai_generation"}
    assert names(two) == {"second", "$ai_generation"}


def test_a_continued_trace(provider: ScriptedProvider, sink: MemorySink) -> None:
    driver = SyncDriver(provider)
    with continue_trace({"x-posthog-llm-trace-id": "t"}):
        with span("before"):
            pass
        driver.ask(driver.ours(posthog_client=sink))
    assert names(sink) == {"before", "$ai_generation"}


def test_many_threads_of_one_trace(provider: ScriptedProvider, sink: MemorySink) -> None:
    driver = SyncDriver(provider)
    client = driver.ours(posthog_client=sink)
    ready = threading.Barrier(9)

    def work(number: int) -> None:
        ready.wait(10)
        for step in range(20):
            with span(f"{number} {step}"):
                pass

    with trace("t"):
        threads = [threading.Thread(target=propagate_context(work), args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        ready.wait(10)
        driver.ask(client)
        for thread in threads:
            thread.join()
    assert len(sink.wait_for(162)) == len(names(sink))


def test_a_bound_generator_ends_no_trace(provider: ScriptedProvider, sink: MemorySink) -> None:
    driver = SyncDriver(provider)

    def pieces() -> Any:
        with span("inside"):
            yield

    with trace("t"):
        bound = propagate_context(pieces)
        thread = threading.Thread(target=lambda: list(bound()))
        thread.start()
        thread.join()
        driver.ask(driver.ours(posthog_client=sink))
    assert names(sink) == {"t", "inside", "$ai_generation"}


# -- the bound, and what lives on ------------------------------------------------------------


def test_no_more_than_so_many_steps_wait(provider: ScriptedProvider) -> None:
    late, named = MemorySink(), MemorySink()
    driver = SyncDriver(provider)
    with trace("t"):
        for number in range(1_001):
            with span(f"s{number}"):
                pass
        assert not posthog_llm._roots.waiting._steps  # they went where the environment says
        driver.ask(driver.ours(posthog_client=named))
    assert names(named) == {"$ai_generation"}
    with trace("large", posthog_client=late):
        pass
    assert names(late) == {"large"}


def test_nothing_of_the_callers_lives_on(provider: ScriptedProvider, sink: MemorySink) -> None:
    class Content(dict[str, Any]):
        pass

    def work(ask: bool) -> weakref.ref[Content]:
        content = Content()
        with trace("t"), span("s", input=content):
            if ask:
                driver.ask(client)
        return weakref.ref(content)

    driver = SyncDriver(provider)
    client = driver.ours(posthog_client=sink)
    held = [work(True), work(False)]
    assert posthog_llm.flush(10)
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    assert not posthog_llm._roots.waiting._steps


def test_a_block_that_never_ends_lets_its_steps_go(sink: MemorySink) -> None:
    """A request's context may end in another context, where nobody sees that it did."""

    def begin() -> None:
        def stream() -> Any:
            with continue_trace({"x-posthog-llm-trace-id": "t"}):
                with span("step"):
                    pass
                yield

        generator = stream()
        next(generator)
        generators.append(generator)

    import contextvars

    generators: list[Any] = []
    contextvars.copy_context().run(begin)
    generators.clear()
    gc.collect()
    with trace("another"), span("of another"):
        pass
    assert posthog_llm.flush(10)
    assert not posthog_llm._roots.waiting._steps


# -- flush -----------------------------------------------------------------------------------


@pytest.mark.parametrize("says", ["the environment", "the module", "configure"])
def test_a_flush_inside_a_trace_delivers_the_steps_that_ended(
    receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    with trace("t"):
        with span("s"):
            pass
        if says == "the environment":
            monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")
            monkeypatch.setenv("POSTHOG_HOST", receiver.url)
        else:
            client = posthog.Posthog("phc_test", host=receiver.url)
            if says == "configure":
                configure(posthog_client=client)
            else:
                monkeypatch.setattr(posthog, "default_client", client)
        assert posthog_llm.flush(10)
        properties = [event["properties"]["$ai_span_name"] for event in receiver.events]
        assert properties == ["s"]
        with span("another"):
            pass
    assert posthog_llm.flush(10)
    assert len(receiver.events) == 3


def test_the_default_clients_own_flush_delivers_them_too(
    receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = posthog.Posthog("phc_test", host=receiver.url)
    other = posthog.Posthog("phc_other", host=receiver.url)
    monkeypatch.setattr(posthog, "default_client", client)
    with trace("t"):
        with span("s"):
            pass
        other.flush()
        assert receiver.events == []
        posthog.flush()
        assert len(receiver.events) == 1
    client.shutdown()
    other.shutdown()


def test_the_modules_flush_waits_for_the_client_that_it_has_now(
    provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    code = """
    def slow(event):
        time.sleep(0.2)
        return event

    import posthog
    posthog.before_send = slow
    for key in ("one", "two"):
        posthog.default_client = posthog.Posthog(key, host=os.environ["RECEIVER"])
        with posthog_llm.trace(key):
            pass
        posthog.flush()
    os._exit(0)
    """
    Children(provider, receiver).run(code)
    assert [event["properties"]["$ai_span_name"] for event in receiver.events] == ["one", "two"]


def test_a_flush_is_not_true_while_a_step_has_nowhere_to_go(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """It waits for the call to come; what is elsewhere is delivered meanwhile."""
    driver = SyncDriver(provider)
    before = posthog_llm.stats()
    with trace("t"):
        with span("s", input="x" * 100_000):
            pass
        posthog_llm.capture_generation(model="m", posthog_client=sink)
        assert posthog_llm.flush(10) is False
        assert len(sink._events) == 1
        held = posthog_llm.stats()
        assert held.queue_bytes > before.queue_bytes + 100_000
        assert (held.oldest_age or -1) > 0
        driver.ask(driver.ours(posthog_client=sink))
        assert posthog_llm.flush(10)
        assert names(sink) == {"s", "$ai_generation"}
        assert posthog_llm.stats().oldest_age is None
    assert posthog_llm.flush(10)
    assert len(sink.events) == 4


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("end", ["posthog_llm.flush()", "posthog_llm.shutdown()"])
def test_a_process_that_dies_after_a_flush_inside_a_trace(
    provider: ScriptedProvider, receiver: PostHogReceiver, tmp_path: Path, spool: bool, end: str
) -> None:
    children = Children(provider, receiver)
    code = f"""
    with posthog_llm.trace("t"):
        with posthog_llm.span("s"):
            pass
        print({end}, flush=True)
        os._exit(0)
    """
    more = {"POSTHOG_LLM_SPOOL": tmp_path} if spool else {}
    out = children.run(code, POSTHOG_API_KEY="phc_env", POSTHOG_HOST=receiver.url, **more)
    assert out == "True\n"
    assert [event["properties"]["$ai_span_name"] for event in receiver.events] == ["s"]


# -- processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["sys.exit()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_steps_of_a_process_that_ends_inside_a_trace(
    provider: ScriptedProvider, receiver: PostHogReceiver, ending: str
) -> None:
    """They are delivered where the environment says; those of a fork's parent by the parent."""
    children = Children(provider, receiver)
    code = f"""
    posthog_llm.install_signal_flush()
    t = posthog_llm.trace("t")
    t.__enter__()
    with posthog_llm.span("before the fork"):
        pass
    if not (pid := os.fork()):
        with posthog_llm.span("of the child"):
            ask()
        posthog_llm.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    {ending}
    """
    expect = 0 if "exit" in ending else -15
    children.run(code, expect=expect, POSTHOG_API_KEY="phc_env", POSTHOG_HOST=receiver.url)
    properties = [
        event["properties"].get("$ai_span_name", event["event"]) for event in receiver.events
    ]
    assert sorted(properties) == ["$ai_generation", "before the fork", "of the child"]


def test_the_quickstart_leads_to_whole_traces(provider: ScriptedProvider) -> None:
    """A client with a destination, then a trace without one: as the first page shows it."""
    page = (Path(__file__).parent.parent / "docs" / "quickstart.md").read_text()
    assert "OpenAI(posthog_client=posthog)" in page
    assert os.environ.get("POSTHOG_API_KEY") is None
    sink = MemorySink()
    driver = SyncDriver(provider)
    client = driver.ours(posthog_client=sink)
    with trace("answer", distinct_id="user-7"):
        driver.ask(client)
    assert names(sink) == {"answer", "$ai_generation"}
    assert {event.distinct_id for event in sink.events} == {"user-7"}
