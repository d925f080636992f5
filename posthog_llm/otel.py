"""Spans of AI frameworks, as OpenTelemetry has them, around the model calls that they make.

    from posthog_llm.otel import SpanProcessor

    provider.add_span_processor(SpanProcessor())

`instrument` adds one to the global provider. With a provider of your own, add it yourself.
"""

from __future__ import annotations

try:
    from opentelemetry.sdk.trace import SpanProcessor as _SpanProcessor
except ImportError as error:
    raise ImportError(
        "posthog_llm.otel needs OpenTelemetry's SDK: pip install 'posthog-llm[otel]'"
    ) from error

from ._frameworks.otel import Spans

__all__ = ["SpanProcessor"]


class SpanProcessor(Spans, _SpanProcessor):
    """An OpenTelemetry processor that captures the spans of AI frameworks as steps in PostHog.

        provider = TracerProvider()
        provider.add_span_processor(posthog_llm.otel.SpanProcessor())

    It reads the GenAI semantic conventions and OpenInference's: agents, tools, retrievals,
    rerankers, guardrails and chains become `$ai_span`, or `$ai_trace` where nothing is around
    them. A span of a model call becomes a generation only if no call inside was seen by one of
    our clients, or by `instrument`. All other spans are ignored. `context` and `trace` set the
    user and the session, else the attributes of the spans do. Nothing is exported.
    """
