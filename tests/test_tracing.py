"""Traces, spans and what holds inside them, for functions of every kind."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import posthog_llm
from posthog_llm import context, propagate_context, span, trace, trace_headers
from posthog_llm._context import current
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .driving import Driver, failure_of
from .test_processes import Children

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def here(sink: MemorySink) -> Iterator[MemorySink]:
    with context(posthog_client=sink):
        yield sink


def by_name(sink: MemorySink) -> dict[str, Any]:
    return {event.properties.get("$ai_span_name"): event for event in sink.events}


def test_whole_trace(drive: Driver, here: MemorySink) -> None:
    client = drive.ours()
    identity: Any = {"distinct_id": "user-7", "session_id": "chat-1", "groups": {"company": "a"}}
    with trace("answer", input={"q": 1}, properties={"plan": "gold"}, **identity) as t:
        with span("search", type="tool", input="query", properties={"k": 3}) as s:
            drive.call(lambda: client.chat.completions.create(**ASK))
            s.output = ["found"]
            s.properties["hits"] = 1
        t.output = "reply"
    generation, inner, outer = here.wait_for(3)
    assert [e.event for e in (generation, inner, outer)] == [
        "$ai_generation",
        "$ai_span",
        "$ai_trace",
    ]
    assert generation.properties["$ai_parent_id"] == s.id == inner.properties["$ai_span_id"]
    assert {e.properties["$ai_trace_id"] for e in here.events} == {t.trace_id} == {t.id}
    for event in here.events:
        assert event.distinct_id == "user-7"
        assert event.groups == {"company": "a"}
        assert event.properties["plan"] == "gold"
        assert event.properties["$ai_session_id"] == "chat-1"
        assert event.timestamp is not None
    recorded = dict(inner.properties)
    assert 0 < recorded.pop("$ai_latency") < 5
    for name in ("$ai_lib", "$ai_lib_version"):
        assert recorded.pop(name)
    assert recorded == {
        "$ai_trace_id": t.trace_id,
        "$ai_span_id": s.id,
        "$ai_parent_id": t.id,
        "$ai_session_id": "chat-1",
        "$ai_span_name": "search",
        "$ai_span_type": "tool",
        "$ai_input_state": "query",
        "$ai_output_state": ["found"],
        "posthog_llm_outcome": "ok",
        "plan": "gold",
        "k": 3,
        "hits": 1,
    }
    assert outer.properties["$ai_input_state"] == {"q": 1}
    assert outer.properties["$ai_output_state"] == "reply"
    assert outer.properties["$ai_latency"] >= inner.properties["$ai_latency"]
    assert "$ai_parent_id" not in outer.properties
    assert "k" not in generation.properties
    assert not [name for e in (inner, outer) for name in e.properties if "cost" in name]


def test_errors_go_on_unchanged(here: MemorySink) -> None:
    error = ValueError("broken")
    with pytest.raises(ValueError, match="broken") as caught, trace("t"), span("s"):
        raise error
    assert caught.value is error
    for event in here.wait_for(2):
        assert event.properties["$ai_is_error"] is True
        assert failure_of(event.properties) == {"type": "ValueError", "message": "broken"}


def test_cancelled_is_no_error(here: MemorySink) -> None:
    async def main() -> None:
        async with trace("t"):
            await asyncio.sleep(30)

    async def cancelling() -> None:
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelling())
    (event,) = here.wait_for(1)
    assert "$ai_is_error" not in event.properties
    assert event.properties["posthog_llm_outcome"] == "cancelled"


def outcomes(sink: MemorySink) -> set[tuple[Any, Any]]:
    """Return each step's and call's outcome, and whether it is an error."""
    found = [event.properties for event in sink.events]
    return {(p["posthog_llm_outcome"], p.get("$ai_is_error", False)) for p in found}


class Cancelled(BaseException):
    """As each framework has one of its own."""


class Group(BaseException):
    """As Python's groups are from 3.11 on, and the `exceptiongroup` package's before."""

    def __init__(self, *exceptions: Any) -> None:
        self.exceptions = exceptions


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Cancelled(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(1), "cancelled"),
        (Group(Cancelled(), Cancelled()), "cancelled"),
        (Group(Cancelled(), Group(Cancelled(), ValueError("x"))), "error"),
        (Group("no exception"), "cancelled"),
        (ValueError("x"), "error"),
    ],
    ids=str,
)
def test_what_is_no_exception_cancels(
    drive: Driver, here: MemorySink, error: BaseException, outcome: str
) -> None:
    """One rule for steps, calls and calls captured by hand."""
    client = drive.ours()
    client._prepare_options = lambda options: raising(error)
    with pytest.raises(type(error)) as caught, trace("t"), span("s"):
        drive.ask(client)
    assert caught.value is error
    with pytest.raises(type(error)), posthog_llm.generation(model="m"):
        raise error
    here.wait_for(4)
    assert outcomes(here) == {(outcome, outcome == "error")}


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no task groups before")
def test_a_task_group(here: MemorySink) -> None:
    async def sleeps() -> None:
        async with span("cancelled"):
            await asyncio.sleep(30)

    async def fails() -> None:
        async with span("failed"):
            await asyncio.sleep(0.001)
            raise ValueError("broken")

    async def main() -> None:
        async with trace("group"), asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
            group.create_task(sleeps())
            group.create_task(fails())

    with pytest.raises(BaseException, match="unhandled errors in a TaskGroup"):
        asyncio.run(main())
    found = {name: e.properties["posthog_llm_outcome"] for name, e in by_name(here).items()}
    assert found == {"cancelled": "cancelled", "failed": "error", "group": "error"}


def test_trio(here: MemorySink) -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")

    async def sleeps(name: str) -> None:
        async with span(name):
            await trio.sleep(30)

    async def main() -> None:
        with trio.move_on_after(0.001):
            async with trace("timed out"), trio.open_nursery() as nursery:
                nursery.start_soon(sleeps, "one")
                nursery.start_soon(sleeps, "two")

    trio.run(main)
    assert set(by_name(here)) == {"timed out", "one", "two"}
    assert outcomes(here) == {("cancelled", False)}


def test_gevent(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    """In a process of its own, because gevent patches the standard library."""
    code = """
    import gevent

    def work(name):
        with posthog_llm.span(name):
            gevent.sleep(30)

    one = gevent.spawn(work, "killed")
    gevent.sleep(0)
    one.kill()
    with gevent.Timeout(0.001, False):
        work("timed out")
    """
    # Before the patch, because posthog asks `distro`, which runs programs from the worker: a fork
    # outside the main greenlet makes gevent 26.9 complain on Python 3.13.
    before = "import distro; distro.info()\nfrom gevent import monkey; monkey.patch_all()\n"
    children = Children(provider, receiver)
    children.run(code, before, POSTHOG_API_KEY="phc_env", POSTHOG_HOST=receiver.url)
    recorded = {
        event["properties"]["$ai_span_name"]: event["properties"]["posthog_llm_outcome"]
        for event in receiver.events
    }
    assert recorded == {"killed": "cancelled", "timed out": "cancelled"}


def test_span_alone_is_a_trace_of_its_own(here: MemorySink) -> None:
    with span("one") as s:
        pass
    (event,) = here.wait_for(1)
    assert event.properties["$ai_trace_id"] == s.trace_id
    assert event.distinct_id == s.trace_id
    assert event.properties["$process_person_profile"] is False


def test_trace_inside_a_trace_begins_anew(here: MemorySink) -> None:
    with trace("outer", trace_id="o"), span("s"), trace("inner", trace_id="i"), span("deep"):
        pass
    events = by_name(here)
    assert events["deep"].properties["$ai_trace_id"] == "i"
    assert events["deep"].properties["$ai_parent_id"] == "i"
    assert "$ai_parent_id" not in events["inner"].properties
    assert events["s"].properties["$ai_parent_id"] == "o"


def test_privacy(here: MemorySink) -> None:
    with trace("t", privacy_mode=True, input="secret") as t, span("s", input="secret") as s:
        t.output = s.output = "secret"
    for event in here.wait_for(2):
        assert "secret" not in str(event.properties)


@pytest.mark.parametrize("what", ["off", "unsampled"])
def test_not_captured(here: MemorySink, what: str) -> None:
    if what == "unsampled":
        posthog_llm.configure(sample_rate=0.0)
    try:
        with context(capture=None if what == "unsampled" else False), trace("t"), span("s"):
            pass
    finally:
        posthog_llm.configure(sample_rate=1.0)
    here.wait_for(0)


def test_a_trace_is_sampled_as_a_whole(drive: Driver, here: MemorySink) -> None:
    client = drive.ours()
    posthog_llm.configure(sample_rate=0.5)
    try:
        for _ in range(30):
            with trace("t"), span("s"):
                drive.call(lambda: client.chat.completions.create(**ASK))
                posthog_llm.capture_generation(model="m")
    finally:
        posthog_llm.configure(sample_rate=1.0)
    by_trace = Counter(event.properties["$ai_trace_id"] for event in here.events)
    assert 0 < len(by_trace) < 30
    assert set(by_trace.values()) == {4}


# -- decorators ------------------------------------------------------------------------


def test_decorated_functions(here: MemorySink) -> None:
    @trace("sync", record_arguments=True, record_result=True)
    def plain(a: int, *, b: int = 2) -> int:
        """Say more."""
        assert current().parent_id
        return a + b

    @span("async", type="agent")
    async def awaited(a: int) -> int:
        await asyncio.sleep(0)
        return a

    assert plain(1, b=5) == plain(2, b=4) == 6
    assert asyncio.run(awaited(3)) == 3
    assert plain.__doc__ == "Say more."
    assert inspect.iscoroutinefunction(awaited)
    first, second, last = here.wait_for(3)
    assert first.properties["$ai_input_state"] == {"args": [1], "kwargs": {"b": 5}}
    assert first.properties["$ai_output_state"] == 6
    assert first.properties["$ai_trace_id"] != second.properties["$ai_trace_id"]
    assert not {"$ai_input_state", "$ai_output_state"} & last.properties.keys()
    assert current().parent_id is None


def test_decorated_generators(here: MemorySink) -> None:
    @span("generator", record_result=True)
    def numbers() -> Any:
        inside = current().parent_id
        got = yield 1
        assert current().parent_id == inside is not None
        try:
            yield got
        except KeyError:
            yield "caught"
        return "end"

    assert inspect.isgeneratorfunction(numbers)

    def all_of_it() -> Any:
        made = numbers()
        assert next(made) == 1
        assert current().parent_id is None
        here.wait_for(0)
        assert made.send("sent") == "sent"
        assert made.throw(KeyError()) == "caught"
        return (yield from made)

    with pytest.raises(StopIteration) as end:
        next(all_of_it())
    assert end.value.value == "end"
    assert here.wait_for(1)[0].properties["$ai_output_state"] == "caught"
    closed = numbers()
    next(closed)
    closed.close()
    assert here.wait_for(2)[1].properties["posthog_llm_outcome"] == "cancelled"


def test_decorated_async_generators(here: MemorySink) -> None:
    @span("generator")
    async def numbers(fail: bool) -> Any:
        inside = current().parent_id
        for n in range(3):
            await asyncio.sleep(0)
            assert current().parent_id == inside is not None
            yield n
        if fail:
            raise ValueError("late")

    async def main() -> None:
        found = []
        async for n in numbers(False):
            assert current().parent_id is None
            found.append(n)
        assert found == [0, 1, 2]
        closed = numbers(False)
        await closed.__anext__()
        await closed.aclose()
        with pytest.raises(ValueError, match="late"):
            [n async for n in numbers(True)]

    assert inspect.isasyncgenfunction(numbers)
    asyncio.run(main())
    outcomes = [event.properties["posthog_llm_outcome"] for event in here.wait_for(3)]
    assert outcomes == ["ok", "cancelled", "error"]


def test_two_generators_in_step(here: MemorySink) -> None:
    """Resumed in turns, each sees its own; nothing leaks to the consumer."""

    @span("g")
    def ids() -> Any:
        while True:
            yield current().parent_id

    one, two = ids(), ids()
    seen = [(next(one), next(two)) for _ in range(3)]
    assert len({a for a, _ in seen}) == len({b for _, b in seen}) == 1
    assert seen[0][0] != seen[0][1]
    one.close()
    two.close()
    assert current().parent_id is None


def test_context_decorates(here: MemorySink) -> None:
    @context(distinct_id="who")
    def plain() -> Any:
        return current().distinct_id

    @context(distinct_id="who")
    async def awaited() -> Any:
        await asyncio.sleep(0)
        return current().distinct_id

    @context(distinct_id="who")
    def generator() -> Any:
        yield current().distinct_id

    async def many() -> Any:
        return await asyncio.gather(*(awaited() for _ in range(20)))

    assert plain() == "who"
    assert asyncio.run(many()) == ["who"] * 20
    assert list(generator()) == ["who"]
    assert current().distinct_id is None


# -- tasks and threads -----------------------------------------------------------------


def test_gathered_tasks_do_not_see_each_other(here: MemorySink) -> None:
    async def one(n: int) -> None:
        async with trace(f"t{n}", trace_id=f"t{n}"):
            await asyncio.sleep(0.001 * (n % 3))
            async with span(f"s{n}"):
                await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*(one(n) for n in range(30)))

    asyncio.run(main())
    events = by_name(here)
    for n in range(30):
        assert events[f"s{n}"].properties["$ai_parent_id"] == f"t{n}"


def test_bind_carries_into_threads(here: MemorySink) -> None:
    started = threading.Barrier(4)

    def work(n: int) -> Any:
        started.wait(5)
        with span(f"s{n}"):
            return current().trace_id

    async def awork() -> Any:
        return current().trace_id

    def pieces() -> Any:
        yield current().trace_id
        yield current().trace_id

    with ThreadPoolExecutor(4) as pool, trace("t", trace_id="t"):
        assert list(pool.map(propagate_context(work), range(4))) == ["t"] * 4
        assert pool.submit(lambda: current().trace_id).result() is None
        bound, bound_pieces = propagate_context(awork), propagate_context(pieces)
    assert asyncio.run(bound()) == "t"
    assert list(bound_pieces()) == ["t", "t"]
    assert current().trace_id is None
    events = by_name(here)
    assert {events[f"s{n}"].properties["$ai_parent_id"] for n in range(4)} == {"t"}


def test_generator_finished_elsewhere(here: MemorySink) -> None:
    """A generator that is closed in another context than it was begun in raises nothing."""

    async def stream() -> Any:
        with context(distinct_id="a"), span("s"):
            yield 1
            yield 2

    async def main() -> None:
        made = stream()
        await made.__anext__()
        await asyncio.create_task(made.aclose())

    asyncio.run(main())
    here.wait_for(1)


# -- misuse ----------------------------------------------------------------------------


def test_misuse() -> None:
    with pytest.raises(TypeError, match="name must be"):
        trace(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected argument 'colour'"):
        trace("t", colour="red")
    with pytest.raises(TypeError, match="properties must be a mapping"):
        span("s", properties=["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="type must be"):
        span("s", type=object())  # type: ignore[arg-type]
    once = span("s")
    with once:
        pass
    with pytest.raises(RuntimeError, match="entered before"):
        once.__enter__()


# -- OpenTelemetry ---------------------------------------------------------------------


def test_ids_of_an_active_opentelemetry_span(drive: Driver, here: MemorySink) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    client = drive.ours()
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("outer") as outer, span("s"):
        drive.call(lambda: client.chat.completions.create(**ASK))
        parent = trace_headers()["traceparent"]
    drive.call(lambda: client.chat.completions.create(**ASK))
    inside, step, after = here.wait_for(3)
    ids = outer.get_span_context()
    assert parent == f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01"
    for event in (inside, step):
        assert event.properties["$trace_id"] == f"{ids.trace_id:032x}"
        assert event.properties["$span_id"] == f"{ids.span_id:016x}"
    assert not {"$trace_id", "$span_id"} & after.properties.keys()
