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


_DETAILS = {
    "agent_handoffs": "$ai_agent_handoffs",
    "agent_name": "$ai_agent_name",
    "agent_output_type": "$ai_agent_output_type",
    "agent_tools": "$ai_agent_tools",
    "guardrail_triggered": "$ai_guardrail_triggered",
    "handoff_from": "$ai_handoff_from_agent",
    "handoff_to": "$ai_handoff_to_agent",
    "mcp_server": "$ai_mcp_server",
}
"""What a framework says of a step, by its name in `Record.details`."""


def properties(record: Record, who: Arguments, private: bool, cleaner: Cleaner) -> dict[str, Any]:
    """Return the event properties of a step. No costs: PostHog sums them over all events."""
    if record.kind == "feedback":
        return {"$ai_feedback_text": cleaner.content(record.request.input), **_rate(record)}
    if record.kind == "metric":
        return {
            "$ai_metric_name": record.details["name"],
            "$ai_metric_value": cleaner.content(record.details["value"]),
            **_rate(record),
        }
    details = record.details
    return {
        "$ai_span_type": details.get("type"),
        **{name: details[key] for key, name in _DETAILS.items() if key in details},
        "$ai_latency": rounded(record.latency),
        "posthog_llm_outcome": record.outcome.value,
        **_rate(record),
        **error(record, private, cleaner),
        **_state(record, private, cleaner),
    }


def _rate(record: Record) -> dict[str, Any]:
    return {"posthog_llm_sample_rate": record.exchange.sample_rate}


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
