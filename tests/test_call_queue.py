"""The queue between callers and the worker: what it weighs, and who waits for room in it."""

from __future__ import annotations

import asyncio
import inspect
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from posthog import Posthog

import posthog_llm
from posthog_llm import capture_generation
from posthog_llm._delivery import backpressure
from posthog_llm._delivery.worker import worker
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._observe.call_queue import CallQueue, call_queue
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .driving import QUESTION, Driver


class Interrupt(BaseException):
    pass


def exchange(size: int) -> Exchange:
    return Exchange("chat", "id", Scope(), 0.0, request=b"x" * size)


def drained(box: CallQueue) -> int:
    """Read all that waits, as the worker does; returns how much it was."""
    count = 0
    box.clear_wake_ups()
    try:
        while True:
            box.take()
            count += 1
    except IndexError:
        box.reweigh()
    return count


def test_weight_is_right_again_whatever_came_amid_its_change(monkeypatch: Any) -> None:
    """Threads put at once, content is given up meanwhile, signal handlers put and raise."""
    posthog_llm.configure(queue_bytes=1 << 20)
    box, ended = CallQueue(), threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        if frame.f_code.co_filename == inspect.getfile(CallQueue):
            box.put(exchange(10))
            raise Interrupt

    def put(count: int) -> None:
        for _ in range(count):
            box.put(exchange(random.randrange(20_000)))

    def read() -> None:
        while not ended.is_set():
            box.wait(0.01)
            drained(box)

    before = signal.signal(signal.SIGALRM, interrupt)
    threads = [threading.Thread(target=put, args=(10_000,)) for _ in range(4)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while any(thread.is_alive() for thread in threads):
        try:
            put(50)
        except Interrupt:
            continue
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    drained(box)
    assert box.bytes == 0
    box.put(exchange(500))
    assert box.bytes == exchange(500).weight()


def test_interrupt_amid_a_wake_up_leaves_the_reader_awake() -> None:
    """The reader is woken for the next call, however the last one's wake-up ended."""

    class Bell:
        def put(self, item: None) -> None:
            raise Interrupt

        def empty(self) -> bool:
            return True

    box = CallQueue()
    real, box.wake_ups = box.wake_ups, Bell()  # type: ignore[assignment]
    with pytest.raises(Interrupt):
        box.put(exchange(1))
    box.wake_ups = real
    box.put(exchange(1))
    assert not box.wake_ups.empty()
    assert drained(box) == 2
    assert box.wake_ups.empty()


# -- who captures by hand waits --------------------------------------------------------------


@pytest.mark.once  # captured by hand, without an SDK
@pytest.mark.parametrize("where", ["thread", "loop"])
def test_burst_by_hand_loses_nothing(receiver: PostHogReceiver, where: str) -> None:
    before = posthog_llm.stats()  # of this process, whose other tests count, too
    posthog_llm.configure(queue_bytes=1 << 20)  # room for some 300 of them
    destination = Posthog("phc_test", host=receiver.url)

    def burst() -> None:
        for _ in range(1000):
            capture_generation(model="m", input="x" * 500, posthog_client=destination)

    async def main() -> None:
        burst()

    if where == "thread":
        burst()
    else:
        asyncio.run(main())
    assert posthog_llm.flush(30)
    stats = posthog_llm.stats()
    assert stats.delivered - before.delivered == 1000
    assert (stats.trimmed, stats.dropped) == (before.trimmed, before.dropped)
    assert stats.queue_bytes == 0


class Closed:
    """A destination that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def capture(self, **event: Any) -> None:
        self.opened.wait(30)


def fill(destination: Any) -> None:
    """Capture until more is held than those who capture by hand go on at."""
    for _ in range(400):
        capture_generation(model="m", input="x" * 2000, posthog_client=destination)
        if not worker.backpressure._is_there():
            return


def lasted(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def test_nobody_waits_twice_in_vain(monkeypatch: Any) -> None:
    posthog_llm.configure(queue_bytes=1 << 20)
    monkeypatch.setattr(backpressure, "_PATIENCE", 0.5)
    destination = Closed()
    assert lasted(lambda: fill(destination)) >= 0.5
    assert lasted(lambda: capture_generation(model="m", posthog_client=destination)) < 0.4
    destination.opened.set()
    assert posthog_llm.flush(20)
    capture_generation(model="m", posthog_client=destination)  # there is room
    destination.opened.clear()
    assert lasted(lambda: fill(destination)) >= 0.5  # so it is worth a wait again
    destination.opened.set()


def test_event_loop_is_held_up_for_a_tenth_of_a_second_a_capture(monkeypatch: Any) -> None:
    posthog_llm.configure(queue_bytes=1 << 20)
    monkeypatch.setattr(backpressure, "_PATIENCE", 20.0)
    destination = Closed()

    async def main() -> None:
        fill(destination)

    assert 0.1 <= lasted(lambda: asyncio.run(main())) < 15
    destination.opened.set()


@pytest.mark.undelivered
def test_nobody_waits_for_a_posthog_that_fails(receiver: PostHogReceiver) -> None:
    posthog_llm.configure(queue_bytes=1 << 20)
    receiver.status = 503
    destination = Posthog("phc_test", host=receiver.url, max_retries=0, flush_interval=0.1)
    capture_generation(model="m", posthog_client=destination)
    assert not posthog_llm.flush(1)
    assert lasted(lambda: fill(destination)) < 5


def test_who_makes_room_does_not_wait_for_it(sink: MemorySink, monkeypatch: Any) -> None:
    """A filter of the user's runs in the worker, and may capture."""
    monkeypatch.setattr(backpressure, "_PATIENCE", 60.0)

    def capture_more(event: dict[str, Any]) -> dict[str, Any]:
        if event["properties"].get("$ai_model") == "of this test":  # else: an earlier test's stream
            for _ in range(20):
                posthog_llm.capture_metric("t", "m", "x" * 50_000, posthog_client=sink)
        return event

    posthog_llm.configure(queue_bytes=1 << 20, before_capture=capture_more)
    capture_generation(model="of this test", posthog_client=sink)
    assert lasted(lambda: posthog_llm.flush(30)) < 20
    assert len(sink.events) == 21


def test_a_streamed_answer_weighs_what_is_kept_of_it(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """Also beyond what is kept: the sum of all calls would be too small by it else."""
    piece = {"choices": [{"index": 0, "delta": {"content": "x" * (1 << 20)}}]}
    provider.script("/chat/completions", Reply.stream([piece] * 10))
    weights: list[int] = []
    client = drive.ours(posthog_client=sink)
    with pytest.MonkeyPatch.context() as patch:
        put = call_queue.put
        patch.setattr(call_queue, "put", lambda item: (weights.append(item.weight()), put(item)))
        drive.collect(lambda: client.chat.completions.create(**QUESTION, stream=True))
    sink.wait_for(1)
    assert 7 << 20 < weights[0] < 9 << 20
    assert call_queue.bytes == 0
