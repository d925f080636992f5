"""Frameworks that run tasks on other machines: one trace over driver and workers, exact counts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from posthog_llm.testing import PostHogReceiver, ScriptedProvider

ROWS = 8
LABEL = """
import os, sys
import posthog_llm
from posthog_llm.openai import OpenAI

def label(row, sent):
    client = OpenAI(base_url=os.environ["PROVIDER"], api_key="k")
    with posthog_llm.job() as task, posthog_llm.continue_trace(sent), posthog_llm.span("row"):
        client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"secret {row}"}]
        )
    return task.delivery.is_safe

@posthog_llm.trace("decorated")
def decorated(row):
    return label(row, posthog_llm.trace_headers())

def deliver(row):
    with posthog_llm.job() as task:
        decorated(row)
    return task.delivery.is_safe
"""
RUN = """
if __name__ == "__main__":
    START
    who = {"distinct_id": "ann", "session_id": "run", "groups": {"team": "a"}}
    with posthog_llm.trace("run", privacy_mode=True, properties={"run": 7}, **who):
        sent = posthog_llm.trace_headers()
        assert all(MAP(label, [(row, sent) for row in range(ROWS)]))
    assert all(MAP(deliver, [(0,)]))
    assert posthog_llm.flush(20)
"""
FRAMEWORKS = {
    "ray": (
        """
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    def spread(function, rows):
        remote = ray.remote(function)
        return ray.get([remote.remote(*row) for row in rows])
    """
    ),
    "distributed": (
        """
    from distributed import Client
    cluster = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    def spread(function, rows):
        return cluster.gather([cluster.submit(function, *row, pure=False) for row in rows])
    """
    ),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_one_trace_over_driver_and_workers(
    provider: ScriptedProvider, receiver: PostHogReceiver, tmp_path: Path, name: str
) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip("Ray and Dask are in the session `frameworks`")
    code = RUN.replace("START", FRAMEWORKS[name].strip()).replace("ROWS", str(ROWS))
    program = tmp_path / "program.py"
    program.write_text(LABEL + code.replace("MAP", "spread"))
    done = subprocess.run(
        [sys.executable, program],
        env={
            **os.environ,
            "PROVIDER": provider.base_url,
            "PYTHONPATH": os.getcwd(),
            "POSTHOG_API_KEY": "phc_test",
            "POSTHOG_HOST": receiver.url,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
        },
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    inside = [e for e in receiver.events if e["properties"].get("run") == 7]
    assert Counter(event["event"] for event in inside) == {
        "$ai_trace": 1,
        "$ai_span": ROWS,
        "$ai_generation": ROWS,
    }
    assert len({event["properties"]["$ai_trace_id"] for event in inside}) == 1
    for event in inside:
        assert event["distinct_id"] == "ann"
        assert event["properties"]["$ai_session_id"] == "run"
        assert event["properties"]["$groups"] == {"team": "a"}
        assert "secret" not in str(event)
    assert len(receiver.events) - len(inside) == 3  # of the decorated function, which was pickled
