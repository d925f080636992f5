"""What waits takes no more memory than it may: real processes, measured from inside."""

from __future__ import annotations

import pytest

from posthog_llm.testing import PostHogReceiver, ScriptedProvider

from .test_processes import Children

MEASURE = """
import gc, json, tracemalloc

BOUND = 1 << 20

def measure(act):
    "Print the share of the bound by which the process grows while nothing can be sent."
    act(5)  # what is loaded once, is loaded
    posthog_llm.flush(0.5)
    gc.collect()
    tracemalloc.start()
    act(50)
    posthog_llm.flush(0.5)
    wait_until(lambda: BOUND // 2 < posthog_llm.stats().queue_bytes <= BOUND)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    assert not posthog_llm.stats().delivered
    print(held / BOUND, flush=True)
    os._exit(0)

posthog_llm.configure(queue_bytes=BOUND)
"""
SHAPES = {
    "lists of numbers": "[list(range(i, i + 50)) for i in range(20)]",
    "deep lists": "[json.loads('[' * 30 + '1.5' + ']' * 30) for i in range(9)]",
    "small objects": "[{'a': i} for i in range(300)]",
    "many keys": "{f'key number {i}': i for i in range(300)}",
}


@pytest.fixture
def children(provider: ScriptedProvider, receiver: PostHogReceiver) -> Children:
    receiver.status = 503
    return Children(provider, receiver)


@pytest.mark.parametrize("shape", SHAPES)
def test_events_in_an_outage(children: Children, shape: str) -> None:
    code = f"""
def act(count):
    for _ in range(count):
        with posthog_llm.span("s", input={SHAPES[shape]}, properties={{"own": {SHAPES[shape]}}}):
            pass

posthog_llm.configure(posthog_client=project(max_retries=0))
measure(act)
"""
    assert 0.3 < float(children.run(MEASURE + code)) < 1.5


def test_calls_that_wait_to_be_read(children: Children) -> None:
    """Streams of many pieces, with properties of many parts, behind a filter that does not end."""
    code = """
def act(count):
    for _ in range(count):
        own = {f"key number {i}": [i] for i in range(300)}
        with posthog_llm.context(properties={"around": [{} for _ in range(300)]}):
            list(client.chat.completions.create(
                model="m", messages=[], stream=True, posthog_properties=own))

posthog_llm.configure(before_capture=lambda event: time.sleep(600))
measure(act)
"""
    assert 0.3 < float(children.run(MEASURE + code)) < 1.5
