"""Many calls in one process: does every event arrive, and does memory stay flat?

    nox -s soak              # 100,000 calls
    nox -s soak -- 5000

Prints the resident memory as it goes. Fails where an event is missing or told twice, or where
memory at the end exceeds that after the first fifth by more than a tenth.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from posthog import Posthog

import posthog_llm
from posthog_llm.openai import OpenAI
from posthog_llm.testing import PostHogReceiver, ScriptedProvider

THREADS = 4
STEPS = 10


class Counting(PostHogReceiver):
    """Counts events and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def take(self, path: str, body: bytes) -> int:
        status = super().take(path, body)
        self.seen.update(event["uuid"] for event in self._events)
        self._events.clear()
        return status


def serve(pipe: Any) -> None:
    """Run the servers in a process of their own, whose memory does not count."""
    with ScriptedProvider() as provider, Counting() as receiver:
        pipe.send((provider.base_url, receiver.url))
        while not pipe.poll(0.5):
            provider.requests.clear()
        pipe.send((len(receiver.seen), max(receiver.seen.values())))


def resident() -> float:
    """Return this process's resident memory, MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def ask(client: Any, count: int) -> None:
    messages = [{"role": "user", "content": "word " * 20}]
    for number in range(count):
        if number % 10:
            client.chat.completions.create(model="gpt-5-mini", messages=messages)
        else:
            for _ in client.chat.completions.create(
                model="gpt-5-mini", messages=messages, stream=True
            ):
                pass


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs,), daemon=True).start()
    base_url, host = pipe.recv()
    client = OpenAI(base_url=base_url, api_key="k", posthog_client=Posthog("phc_soak", host=host))
    with tempfile.TemporaryDirectory() as spool:
        posthog_llm.configure(spool=spool)
        sizes = []
        start, cpu = time.perf_counter(), time.process_time()
        for step in range(STEPS):
            threads = [
                threading.Thread(target=ask, args=(client, calls // STEPS // THREADS))
                for _ in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sizes.append(resident())
            print(f"{(step + 1) * calls // STEPS:8} calls  {sizes[-1]:6.1f} MiB", flush=True)
        assert posthog_llm.flush(120)
        each = (time.process_time() - cpu) / calls * 1e6
        stats = posthog_llm.stats()
        posthog_llm.configure(spool=None)
        posthog_llm.flush()
    pipe.send("end")
    seen, most = pipe.recv()
    print(f"{stats}\n{seen} events arrived, each {most} time(s)")
    print(f"{time.perf_counter() - start:.0f} s, {each:.0f} µs of CPU a call, SDK included")
    assert (seen, most) == (calls, 1)
    assert sizes[-1] < sizes[STEPS // 5 - 1] * 1.1, sizes


if __name__ == "__main__":
    main()
