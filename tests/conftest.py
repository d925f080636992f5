from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

import posthog_llm
from posthog_llm import _faults as faults
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider, reset

from .driving import DRIVERS, GEMINI, Driver

gc.freeze()  # what is imported lives on: no collection needs to look at it
for name in list(os.environ):
    if name.startswith(
        ("POSTHOG_", "OPENAI_", "AZURE_OPENAI_", "AWS_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")
    ):
        del os.environ[name]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else LiteLLM asks the network for prices


# Nothing here speaks TLS, and every client would read some hundred authorities: one suffices.
_end = "-----END CERTIFICATE-----\n"
_authority = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115 - as long as the tests
_authority.write(Path(certifi.where()).read_text().partition(_end)[0] + _end)
_authority.flush()
os.environ["SSL_CERT_FILE"] = _authority.name


@pytest.fixture(autouse=True, scope="module")
def few_to_collect() -> None:
    """Leave what the modules before made out of this one's many collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fault of ours, which users never see, fails the test that caused it."""
    yield
    if not request.node.get_closest_marker("undelivered"):
        posthog_llm.flush(10)
    counts = dict(faults.counts)
    reset(0)
    expected = request.node.get_closest_marker("faulty")
    assert bool(counts) == bool(expected), counts


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
    driver = {**DRIVERS, **GEMINI}[request.param](provider)
    yield driver
    driver.close()
