"""The process's own tracer provider, for frameworks that trace with OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


@pytest.fixture(scope="module")
def tracers() -> Iterator[TracerProvider]:
    """The process's provider, for the tests of one module."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    before = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    trace._TRACER_PROVIDER_SET_ONCE = type(before[1])()
    trace._TRACER_PROVIDER = None
    made = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(made)
    yield made
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = before


@pytest.fixture
def spans_watched(tracers: TracerProvider, sink: MemorySink) -> Iterator[None]:
    posthog_llm.instrument(sink)
    yield
    posthog_llm.uninstrument()
