from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from posthog_llm import faults
from posthog_llm.delivery.worker import worker
from posthog_llm.observe import stream_usage
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .driving import DRIVERS, Driver

for name in list(os.environ):
    if name.startswith(("POSTHOG_", "OPENAI_", "AZURE_OPENAI_", "AWS_", "ANTHROPIC_")):
        del os.environ[name]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else LiteLLM asks the network for prices


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fault of ours, which users never see, fails the test that caused it."""
    faults.counts.clear()
    stream_usage._support.clear()
    yield
    worker.flush(10)
    expected = request.node.get_closest_marker("faulty")
    assert bool(faults.counts) == bool(expected), dict(faults.counts)


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[PostHogReceiver]:
    with PostHogReceiver() as server:
        yield server


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest, provider: ScriptedProvider) -> Iterator[Driver]:
    driver = DRIVERS[request.param](provider)
    yield driver
    driver.close()
