"""What hostile users found in the whole, where several parts meet: one test each."""

from __future__ import annotations

import contextvars
import ctypes
import functools
import gc
import signal
import sys
import threading
from typing import Any

import openai
import posthog
import pytest

import posthog_llm
from posthog_llm._observe import passing
from posthog_llm._observe.usage_chunk import without_usage
from posthog_llm._providers.sse import lines_unified
from posthog_llm.openai import OpenAI
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .driving import Driver, failure_of
from .interrupts import interrupted
from .test_processes import Children, once

KEY = "ab/CD+9xyz77/QQ"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def children(provider: ScriptedProvider, receiver: PostHogReceiver) -> Children:
    return Children(provider, receiver)


def test_an_event_that_is_declined_delays_no_other(receiver: PostHogReceiver) -> None:
    def without_m1(event: Any) -> Any:
        return None if event["properties"]["$ai_model"] == "m1" else event

    client = posthog.Posthog("phc_x", host=receiver.url, sync_mode=True, before_send=without_m1)
    before = posthog_llm.stats()
    for model in ["m1"] * 8 + ["m2"] * 3:
        posthog_llm.capture_generation(model=model, posthog_client=client)
    assert posthog_llm.flush(20)
    assert posthog_llm.stats().dropped["declined"] - before.dropped.get("declined", 0) == 8
    assert [e["properties"]["$ai_model"] for e in receiver.events] == ["m2"] * 3


def test_what_the_official_client_has_is_not_given_up(receiver: PostHogReceiver) -> None:
    """It would arrive nevertheless: nobody could believe the counts."""
    receiver.fault, receiver.delay = "slow", 0.5
    lost: list[str] = []
    posthog_llm.configure(queue_bytes=1 << 20, on_drop=lambda uuid, reason: lost.append(uuid))
    client = posthog.Posthog("phc_x", host=receiver.url)
    try:
        for _ in range(1500):
            with (
                posthog_llm.context(posthog_client=client),
                posthog_llm.span("s", input="x" * 3000),
            ):
                pass
        assert posthog_llm.flush(60), posthog_llm.stats()
    finally:
        posthog_llm.configure(queue_bytes=64 << 20, on_drop=None)
    arrived = {event["uuid"] for event in receiver.events}
    assert not arrived & set(lost)
    assert len(arrived) + len(lost) == 1500


def test_calls_of_exit_functions_are_captured(children: Children) -> None:
    children.run("import atexit; atexit.register(lambda: ask(2) or posthog_llm.flush()); ask(1)")
    once(children, 3)


FORMS = [KEY, "ab%2fCD%2b9xyz77%2fQQ", "ab/CD%2B9xyz77/QQ", "ab\\/CD+9xyz77\\/QQ"]


@pytest.mark.parametrize("form", FORMS)
def test_the_key_of_a_request_leaves_nowhere(drive: Driver, sink: MemorySink, form: str) -> None:
    client = drive.ours(api_key=KEY, posthog_client=sink)
    drive.ask(
        client,
        messages=[{"role": "user", "content": f"with {form}"}],
        posthog_distinct_id=f"u-{form}",
        posthog_trace_id=f"t-{form}",
        posthog_session_id=f"s-{form}",
        posthog_properties={f"p-{form}": form},
    )
    (event,) = sink.wait_for(1)
    assert form not in str(event)
    assert event.distinct_id == "u-[redacted]"
    assert event.properties["p-[redacted]"] == "[redacted]"


def test_what_is_private_stays_so_inside(sink: MemorySink) -> None:
    with (
        posthog_llm.context(privacy_mode=True, posthog_client=sink),
        posthog_llm.trace("outer", privacy_mode=False, input="MARK"),
        posthog_llm.context(privacy_mode=False),
    ):
        posthog_llm.capture_generation(model="m", input="MARK", privacy_mode=False)
    assert len(sink.events) == 2
    assert "MARK" not in str(sink.events)


def test_a_callback_that_flushes_does_not_wait_for_itself(sink: MemorySink) -> None:
    answers: list[bool] = []

    def flushing(event: dict[str, Any]) -> dict[str, Any]:
        answers.append(posthog_llm.flush(60))
        return event

    posthog_llm.configure(before_capture=flushing)
    try:
        posthog_llm.capture_generation(model="m", posthog_client=sink)
        sink.wait_for(1)
    finally:
        posthog_llm.configure(before_capture=None)
    assert answers == [False]


def test_instrument_and_uninstrument_by_many_threads(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    raised: list[BaseException] = []

    def change() -> None:
        try:
            for _ in range(100):
                posthog_llm.instrument(sink)
                posthog_llm.uninstrument()
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert raised == []
    posthog_llm.instrument(sink)
    try:
        client = openai.OpenAI(base_url=provider.base_url, api_key="k")
        client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
    finally:
        posthog_llm.uninstrument()
    sink.wait_for(1)


@pytest.mark.parametrize("is_given", [False, True])
def test_an_interrupt_anywhere_in_a_call_leaves_nothing_for_the_next(
    provider: ScriptedProvider, sink: MemorySink, is_given: bool
) -> None:
    """What one call was given never reaches the next; and what was sent is told, once."""
    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    more: Any = {"posthog_distinct_id": "ann"} if is_given else {}

    def call() -> None:
        client.chat.completions.create(model="m", messages=MESSAGES, **more)

    files = tuple(
        f"observe/{name}.py" for name in ("passing", "resources", "seam", "stainless", "call")
    )
    call()
    number = properties = 0
    while interrupted(number, call, files):
        assert passing._nearest.get() is None, number
        number += 1
    assert number > 30
    assert posthog_llm.flush(10)
    properties = len(sink.events)
    assert properties >= len(provider.requests)
    assert len({event.uuid for event in sink.events}) == properties
    client.post("/chat/completions", cast_to=object, body={"model": "m", "messages": MESSAGES})
    assert sink.wait_for(properties + 1)[-1].distinct_id != "ann"


def test_a_time_limit_by_a_signal_is_the_programs_own(children: Children) -> None:
    """An alarm's exception amid the import that we do must not be taken for a fault of ours."""
    before = """
import builtins, signal, time
class TimeLimit(Exception): pass
def over(*_): raise TimeLimit
real = builtins.__import__
def slow(name, *args, **kwargs):
    if name == "posthog" and not signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.signal(signal.SIGALRM, over); signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(10)
    return real(name, *args, **kwargs)
builtins.__import__ = slow
from posthog_llm.openai import OpenAI
try:
    OpenAI(api_key="k")
except TimeLimit:
    print("in time")
builtins.__import__ = real
"""
    assert children.run("", before=before) == "in time\n"


def test_a_body_that_ends_in_a_carriage_return_is_whole() -> None:
    assert b"".join(lines_unified([b"data: x\r\n", b"\r"])) == b"data: x\n\n"


def test_usage_that_is_null_is_taken_out_where_it_stands_first() -> None:
    chunk = b'data: {"usage":null,"id":"c","choices":[]}\n\n'
    assert without_usage(chunk) == b'data: {"id":"c","choices":[]}\n\n'


def test_replies_of_the_scripted_provider_can_wait_and_break() -> None:
    assert (Reply.stream([], delay=2, cut=True).delay, Reply.json({}, delay=2).delay) == (2, 2)
    assert Reply.stream([], cut=True).cut


# -- what the program raises amid our lines is its own ---------------------------------------


class TooLong(Exception):
    pass


def _too_long(*_: Any) -> None:
    raise TooLong


def _restoring(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise TooLong


class _Handler:
    def __call__(self, number: int, frame: Any) -> None:
        del frame
        raise TooLong

    def method(self, number: int, frame: Any) -> None:
        del frame
        raise TooLong


def _block() -> None:
    with posthog_llm.generation(model="m"):
        pass


def _step() -> None:
    with posthog_llm.span("s"):
        pass


def _call() -> None:
    posthog_llm.capture_generation(model="m")


HANDLERS: dict[str, Any] = {
    "function": _too_long,
    "partial": functools.partial(_too_long, 1),
    "object": _Handler(),
    "partial object": functools.partial(_Handler()),
    "method": _Handler().method,
    "restoring": _restoring,
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
@pytest.mark.parametrize("use", [_block, _step, _call])
def test_a_storm_of_alarms_reaches_the_program(sink: MemorySink, handler: Any, use: Any) -> None:
    seen = contextvars.copy_context().run(_storm, sink, handler, use)
    assert seen == 150


def _storm(sink: MemorySink, handler: Any, use: Any) -> int:
    """Return how many of 150 time limits reached the program."""
    seen, before = 0, signal.getsignal(signal.SIGALRM)
    gc.disable()  # what a handler raises amid a collection's callbacks, Python itself drops
    with posthog_llm.context(posthog_client=sink):
        use()
        try:
            for number in range(150):
                signal.signal(signal.SIGALRM, handler)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + number % 20 * 0.00002)
                    while signal.getitimer(signal.ITIMER_REAL)[0]:
                        use()
                    for _ in range(1000):  # the signal may come after the timer's end is seen
                        use()
                except TooLong:
                    seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            gc.enable()
    return seen


@pytest.mark.undelivered
def test_what_another_thread_sets_reaches_the_program() -> None:
    """At each line of ours that a step and a capture by hand go through."""
    at = 0
    while contextvars.copy_context().run(_stopped, at):  # a block may end amid its own end
        at += 1
    assert at > 60


def _stopped(at: int) -> bool:
    """Set an exception at the n-th line of ours, as another thread would; False: there is none.

    Fails where it does not arrive.
    """
    lines, is_set = iter(range(at)), False

    def look(frame: Any, event: str, arg: Any) -> Any:
        nonlocal is_set
        if event == "line" and not is_set and next(lines, None) is None:
            is_set = True
            here = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(TooLong))
        return look if "posthog_llm" in frame.f_code.co_filename else None

    arrived = False
    try:
        sys.settrace(look)
        with posthog_llm.context(privacy_mode=True):
            _step()
            _block()
    except TooLong:
        arrived = True
    finally:
        sys.settrace(None)
    assert arrived == is_set, at
    return is_set


def test_what_the_programs_objects_raise_is_not_its_time_limit(sink: MemorySink) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise TooLong

    posthog_llm.capture_generation(model="m", error=Odd(), posthog_client=sink)
    (event,) = sink.wait_for(1)
    assert failure_of(event.properties) == {"message": "Odd", "type": "Odd"}
