"""Other libraries that watch the SDKs, beside ours: in either order, each call is one event."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

OTHERS = ["openinference", "traceloop", "logfire", "langfuse", "ddtrace"]
WITH_SPANS = OTHERS[:3]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ddtrace") is None, reason="runs in the beside session"
)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("other", OTHERS)
def test_one_event_each(other: str, when: str) -> None:
    command = [sys.executable, "-m", "tests.beside", other, when]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout.rpartition("told ")[2])
    assert told["watched"] == [1] * 16
    assert told["ours"] == [1] * 8
    assert told["off"] == [0] * 16
    assert told["ours, off"] == [1] * 8
    assert told["again"] == [1] * 16
    assert told["alone"] == [1] * 16
    assert told["off at last"] == [0] * 8
    assert told["faults"] == {}
    assert bool(told["spans"]) is (other in WITH_SPANS)
    assert (told["spans, off"] > told["spans"]) is (other in WITH_SPANS)
