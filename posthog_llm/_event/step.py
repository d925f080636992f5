"""The properties of events other than model calls: traces, spans, feedback and metrics.

https://posthog.com/docs/ai-observability/traces, https://posthog.com/docs/ai-observability/spans
"""

from __future__ import annotations

from typing import Any

from .._exchange import Arguments
from .._privacy import Cleaner, Withheld
from .._record import Record
from .call import error, rounded

NAMES = {
    "span": "$ai_span",
    "trace": "$ai_trace",
    "feedback": "$ai_feedback",
    "metric": "$ai_metric",
}


def properties(record: Record, who: Arguments, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the event properties of a step. No costs: PostHog sums them over all events."""
    if record.kind == "feedback":
        return {"$ai_feedback_text": cleaner.content(record.request.input)}
    if record.kind == "metric":
        return {
            "$ai_metric_name": record.details["name"],
            "$ai_metric_value": cleaner.content(record.details["value"]),
        }
    return {
        "$ai_span_type": record.details.get("type"),
        "$ai_latency": rounded(record.latency),
        "posthog_llm_outcome": record.outcome.value,
        "posthog_llm_sample_rate": record.exchange.sample_rate,
        **error(record, private, cleaner),
        **_state(record, private, cleaner),
    }


def _state(record: Record, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    if private:
        return {}
    try:
        return {
            "$ai_input_state": cleaner.free(record.request.input),
            "$ai_output_state": cleaner.free(record.response.output),
        }
    except Withheld as reason:
        return {"posthog_llm_content_withheld": str(reason)}
