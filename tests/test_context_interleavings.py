"""Whose identity holds where, however blocks, generators, tasks and threads interleave."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posthog_llm
from posthog_llm import WSGIMiddleware, context, continue_trace, propagate_context, span, trace
from posthog_llm._chain import Link, here
from posthog_llm._context import chain, current
from posthog_llm.testing import MemorySink, ScriptedProvider

from .driving import SyncDriver
from .interrupts import interrupted

SINK = MemorySink()
BLOCKS: dict[str, Callable[[], Any]] = {
    "context": lambda: context(distinct_id="A", session_id="A"),
    "trace": lambda: trace("t", distinct_id="A", session_id="A", posthog_client=SINK),
    "span": lambda: span("s"),
    "continue_trace": lambda: continue_trace({"x-posthog-distinct-id": "A"}),
}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)


@pytest.fixture(autouse=True)
def somewhere(sink: MemorySink) -> Iterator[None]:
    """Steps go to a fake, and each test leaves its own context as it was."""
    before = chain.get()
    with context(posthog_client=sink):
        yield
    assert chain.get() is before


# -- blocks that end in another context than they began in ----------------------------------


@every_block
@pytest.mark.parametrize("finalised", ["closed", "collected"])
def test_a_generator_that_ends_in_another_context(block: Any, finalised: str) -> None:
    """Starlette runs a sync generator so; the garbage collector ends one anywhere."""

    def stream() -> Any:
        with block():
            yield 1

    def begin() -> list[Any]:
        with context(distinct_id="around A"):
            generators = [stream()]
            next(generators[0])
            return generators

    def end_amid_another_request(generators: list[Any]) -> Any:
        with context(distinct_id="B", session_id="B"):
            before = chain.get()
            if finalised == "closed":
                generators[0].close()
            generators.clear()
            gc.collect()
            assert chain.get() is before
            return headers_of()

    held = copy_context().run(begin)
    properties = copy_context().run(end_amid_another_request, held)
    assert properties == {"X-POSTHOG-DISTINCT-ID": "B", "x-posthog-llm-session-id": "B"}


def headers_of() -> dict[str, str]:
    return posthog_llm.trace_headers()


def test_a_generator_that_ends_below_an_open_block() -> None:
    """Its block is taken out from under the one that was opened after it."""

    def stream() -> Any:
        with context(distinct_id="A", session_id="of the stream"):
            yield

    generator = stream()
    next(generator)
    with context(distinct_id="B"):
        assert current().session_id == "of the stream"
        generator.close()
        assert (current().distinct_id, current().session_id) == ("B", None)
    assert current().distinct_id is None


def test_a_child_task_keeps_what_held_when_it_was_made() -> None:
    async def child(ended: asyncio.Event) -> Any:
        await ended.wait()
        with context(session_id="s"):
            return current().distinct_id

    async def main() -> Any:
        ended = asyncio.Event()
        with context(distinct_id="A"):
            task = asyncio.create_task(child(ended))
        ended.set()
        return await task

    assert asyncio.run(main()) == "A"


def test_a_decorated_generator_is_itself_wherever_it_runs() -> None:
    @context(distinct_id="A")
    def stream() -> Any:
        yield current().distinct_id
        with context(session_id="inner"):
            yield current().session_id
            yield current().distinct_id, current().session_id
        yield current().session_id  # it was begun where B's session held

    def one_step(generator: Any) -> Any:
        with context(distinct_id="B", session_id="B"):
            before = chain.get()
            found = next(generator)
            assert chain.get() is before
        return found

    generator = stream()
    with ThreadPoolExecutor(1) as pool:
        seen = [
            one_step(generator),
            copy_context().run(one_step, generator),
            pool.submit(one_step, generator).result(),
            one_step(generator),
        ]
    assert seen == ["A", "inner", ("A", "inner"), "B"]


def test_an_async_generator_torn_down_in_another_context() -> None:
    """While it waits inside its block: its finaliser must not set what held around it."""

    @context(distinct_id="A")
    async def stream() -> Any:
        await asyncio.sleep(30)
        yield

    def begin() -> Any:
        step = stream().__anext__()
        with context(distinct_id="around A"), asyncio_loop():
            step.send(None)
        return step

    def end(step: Any) -> Any:
        with context(distinct_id="B"):
            step.close()
            return current().distinct_id

    assert copy_context().run(end, copy_context().run(begin)) == "B"


class asyncio_loop:
    """A loop that is said to run, so that `asyncio.sleep` can be stepped by hand."""

    def __enter__(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio._set_running_loop(self.loop)

    def __exit__(self, *exc_info: object) -> None:
        asyncio._set_running_loop(None)
        self.loop.close()


def test_an_answer_that_a_wsgi_server_closes_in_another_thread() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        for _ in range(3):
            yield (current().distinct_id or "").encode()

    def serve(body: Any, count: int) -> Any:
        with context(distinct_id="B"):
            pieces = [next(body) for _ in range(count)]
            if not count:
                body.close()
            return pieces, current().distinct_id

    body = WSGIMiddleware(app)({"HTTP_X_POSTHOG_DISTINCT_ID": "A"}, None)
    with ThreadPoolExecutor(1) as pool:
        assert serve(body, 1) == ([b"A"], "B")
        assert pool.submit(serve, body, 1).result() == ([b"A"], "B")
        assert pool.submit(serve, body, 0).result() == ([], "B")
        assert pool.submit(lambda: current().distinct_id).result() is None


# -- one object for many blocks --------------------------------------------------------------


def test_one_context_for_many_threads_and_tasks() -> None:
    shared = context(session_id="shared")
    both_inside = threading.Barrier(8)

    def work(number: int) -> Any:
        with context(distinct_id=f"user-{number}"):
            with shared:
                both_inside.wait(10)
                with shared:
                    inside = current().distinct_id, current().session_id
                assert current().session_id == "shared"
            both_inside.wait(10)
            return inside, current().distinct_id, current().session_id

    async def task(number: int) -> Any:
        with context(distinct_id=f"user-{number}"):
            async with shared:
                await asyncio.sleep(0.001 * (number % 3))
                inside = current().distinct_id, current().session_id
            return inside, current().distinct_id, current().session_id

    async def main() -> list[Any]:
        return await asyncio.gather(*map(task, range(8)))

    expected = [((f"user-{n}", "shared"), f"user-{n}", None) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == expected
    assert asyncio.run(main()) == expected


def test_a_task_that_starts_its_successor_inside_its_block() -> None:
    """Each holds the context of the one before it: that must not pile up for ever."""
    before = chain.get().depth

    def successor(left: int) -> int:
        for _ in range(left):
            context(distinct_id="A").__enter__()  # never left: the task's context ends instead
        return chain.get().depth

    assert copy_context().run(successor, 12_000) < 10_000 + before
    assert copy_context().run(successor, 50) == before + 50


# -- interrupts ------------------------------------------------------------------------------

AT = ("llm/_chain.py", "llm/_context.py", "llm/_tracing.py", "llm/_running.py")


@every_block
@pytest.mark.parametrize("how", ["with", "async with", "generator", "bound generator"])
def test_an_interrupt_leaves_nothing_behind(block: Any, how: str) -> None:
    def plain() -> None:
        with block():
            pass

    async def waiting() -> None:
        async with block():
            pass

    def awaited() -> None:
        with pytest.raises(StopIteration):
            waiting().send(None)

    def items() -> Any:
        yield 1

    def generated() -> None:
        list(block()(items)())

    def bound() -> None:
        list(propagate_context(items)())

    uses = {"with": plain, "async with": awaited, "generator": generated, "bound generator": bound}
    before = chain.get()
    number = 0
    while interrupted(number, uses[how], AT):
        assert here(chain) is before, number
        number += 1
    assert number > 5
    assert here(chain) is before


class Stop(Exception):
    pass


def interrupted_exit(use: Callable[[], object]) -> None:
    """Run `use`, and raise at the start of the first `__exit__` or `__aexit__` in it."""

    def look(frame: Any, event: str, arg: Any) -> None:
        ours = frame.f_code.co_filename.replace("\\", "/").rpartition("/")[0]
        if ours.endswith("posthog_llm") and frame.f_code.co_name in ("__exit__", "__aexit__"):
            sys.settrace(None)
            raise Stop

    sys.settrace(look)
    with pytest.raises(Stop):
        use()


@every_block
def test_an_interrupted_end_keeps_the_identity_of_whom_it_began_with(block: Any) -> None:
    """What was begun inside lives on with it: tasks, bound functions, generators."""
    before, kept = headers_of(), block()
    held: list[Any] = []

    def inside() -> None:
        with kept:
            held.extend((copy_context(), propagate_context(headers_of), headers_of()))

    interrupted_exit(inside)
    assert headers_of() == before
    copied, bound, expected = held
    assert expected != before
    assert copied.run(headers_of) == bound() == expected
    assert copy_context().run(headers_of) == before


def test_an_interrupted_end_takes_no_other_block_away() -> None:
    """A generator's block that was opened inside holds on; so does the one around."""

    def stream() -> Any:
        with context(session_id="of the stream"):
            yield

    made = stream()

    def inside() -> None:
        with context(distinct_id="A"):
            next(made)

    with context(groups={"g": 1}):
        interrupted_exit(inside)
        values = current()
        assert (values.distinct_id, values.session_id) == (None, "of the stream")
        assert values.groups == {"g": 1}
        made.close()
        assert current().session_id is None


def test_a_block_that_is_begun_by_hand_holds_on() -> None:
    def begin() -> Any:
        context(distinct_id="A").__enter__()
        shared = context(session_id="s")
        shared.__enter__()
        assert hasattr(shared, "__exit__")  # looked at only
        return current().distinct_id, current().session_id

    assert copy_context().run(begin) == ("A", "s")


# -- any interleaving, against a model -------------------------------------------------------

Values = dict[str, Any]


@dataclass
class Place:
    """A context, and what the model says of it: its blocks, the outermost first."""

    real: Context
    blocks: list[tuple[int, Values, bool]] = field(default_factory=list)
    """Key, values, and whether they hold alone rather than over those around them."""

    def values(self) -> Values:
        found: Values = {}
        for _, given_, alone in self.blocks:
            found = dict(given_) if alone else {**found, **given_}
        return found

    def copy(self) -> Place:
        return Place(self.real.copy(), list(self.blocks))

    def leave(self, key: int) -> None:
        """Python's rule, and ours: a block that ends elsewhere takes nothing away."""
        for at in range(len(self.blocks) - 1, -1, -1):
            if self.blocks[at][0] == key:
                del self.blocks[at]
                return


class Program:
    """Runs steps drawn at random, and notes for each call who asks, by the model."""

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink
        self.places = [Place(copy_context())]
        self.open: list[Callable[[Place, bool], None]] = []
        self.expected: dict[str, Values] = {}
        self.keys = 0

    def step(self, what: str, where: int, which: int, give: str, last: bool) -> None:
        place = self.places[where % len(self.places)]
        if what == "copy":
            self.places.append(place.copy())
        elif what == "go on":
            if self.open:
                move = self.open[which % len(self.open)]
                move(place, last)
        else:
            self.keys += 1
            values = {give: f"{give} {self.keys}"}
            getattr(self, what)(place, self.keys, values)
        place.real.run(self.call, place.values())
        assert place.real[chain] is not None

    def call(self, values: Values) -> None:
        name = f"call {len(self.expected)}"
        self.expected[name] = values
        posthog_llm.capture_generation(model="m", span_name=name, posthog_client=self.sink)

    # -- what may be opened: each has one move, which goes on with it, or ends it

    def block(self, place: Place, key: int, values: Values) -> None:
        made = context(**values)  # type: ignore[arg-type]
        place.real.run(made.__enter__)
        place.blocks.append((key, values, False))
        self._opened(lambda where: where.real.run(made.__exit__), key)

    def generator(self, place: Place, key: int, values: Values) -> None:
        def stream() -> Any:
            with context(**values):  # type: ignore[arg-type]
                while True:
                    yield

        made = stream()
        place.real.run(next, made)
        place.blocks.append((key, values, False))
        self._opened(
            lambda where: where.real.run(made.close), key, lambda w: w.real.run(next, made)
        )

    def async_generator(self, place: Place, key: int, values: Values) -> None:
        async def stream() -> Any:
            async with context(**values):  # type: ignore[arg-type]
                while True:
                    yield

        made = stream()
        drive(place.real, made.__anext__())
        place.blocks.append((key, values, False))
        self._opened(
            lambda where: drive(where.real, made.aclose()),
            key,
            lambda where: drive(where.real, made.__anext__()),
        )

    def decorated(self, place: Place, key: int, values: Values) -> None:
        inside = {**place.values(), **values}

        @context(**values)  # type: ignore[arg-type]
        def stream() -> Any:
            self.call(inside)
            with context(groups={"inner": key}):
                while True:
                    yield
                    self.call(inside)

        made = stream()
        place.real.run(next, made)
        self._opened(lambda where: where.real.run(made.close), 0, lambda w: w.real.run(next, made))

    def decorated_async(self, place: Place, key: int, values: Values) -> None:
        inside = {**place.values(), **values}

        @context(**values)  # type: ignore[arg-type]
        async def stream() -> Any:
            while True:
                self.call(inside)
                yield

        made = stream()
        drive(place.real, made.__anext__())
        self._opened(
            lambda where: drive(where.real, made.aclose()),
            0,
            lambda where: drive(where.real, made.__anext__()),
        )

    def bound(self, place: Place, key: int, values: Values) -> None:
        inside = place.values()

        def stream() -> Any:
            while True:
                self.call(inside)
                yield

        made = place.real.run(propagate_context, stream)()
        place.real.run(next, made)
        self._opened(lambda where: where.real.run(made.close), 0, lambda w: w.real.run(next, made))

    def _opened(
        self,
        end: Callable[[Place], object],
        key: int,
        go_on: Callable[[Place], object] = lambda where: None,
    ) -> None:
        def move(where: Place, last: bool) -> None:
            if not last:
                go_on(where)
                return
            end(where)
            where.leave(key)
            self.open.remove(move)

        self.open.append(move)

    def finish(self) -> None:
        """End everything; then compare what was captured with the model."""
        for move in list(self.open):
            move(self.places[0], True)
        for place in self.places:
            place.real.run(self.call, place.values())
        seen = {
            event.properties["$ai_span_name"]: {
                name: found
                for name, found in (
                    ("distinct_id", event.distinct_id),
                    ("session_id", event.properties.get("$ai_session_id")),
                )
                if found is not None and found != event.properties["$ai_trace_id"]
            }
            for event in self.sink.events
        }
        assert seen == self.expected


def drive(where: Context, step: Any) -> None:
    with pytest.raises(StopIteration):
        where.run(step.send, None)


KINDS = ["block", "generator", "async_generator", "decorated", "decorated_async", "bound"]
STEPS = st.tuples(
    st.sampled_from([*KINDS, "copy", "go on", "go on", "go on"]),
    st.integers(0, 5),
    st.integers(0, 9),
    st.sampled_from(["distinct_id", "distinct_id", "session_id"]),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_any_interleaving(steps: list[Any]) -> None:
    """No call is captured with an identity that does not hold where it is made."""
    program = Program(MemorySink())
    for step in steps:
        program.step(*step)
    program.finish()


def test_tasks_threads_and_streams_of_many_users(
    sink: MemorySink, provider: ScriptedProvider
) -> None:
    """Sync generators in a pool of threads, as Starlette runs them, beside tasks: real calls."""
    client = SyncDriver(provider).ours(posthog_client=sink)

    def stream(user: str) -> Any:
        with context(distinct_id=user):
            for _ in range(2):
                client.chat.completions.create(model=user, messages=[])
                yield

    async def request(number: int) -> None:
        loop, user = asyncio.get_running_loop(), f"user-{number}"
        with context(distinct_id=user):
            pieces = stream(user)
            for _ in range(2):  # each step in a copy of the request's context, as there
                await loop.run_in_executor(None, copy_context().run, next, pieces)
            await loop.run_in_executor(None, copy_context().run, pieces.close)
            client.chat.completions.create(model=user, messages=[])
            assert current().distinct_id == user

    async def main() -> None:
        await asyncio.gather(*map(request, range(20)))

    asyncio.run(main())
    events = sink.wait_for(60)
    assert all(event.distinct_id == event.properties["$ai_model"] for event in events)


def test_a_link_says_what_holds(sink: MemorySink) -> None:
    """The context variable is read by nobody else, so that its default may be shared."""
    empty = contextvars.Context()
    assert isinstance(empty.run(chain.get), Link)
    assert empty.run(current).distinct_id is None
