"""Privacy mode: applied to the finished event, whoever set its properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._narrowing import is_dict
from .._privacy import WITHHELD, restricted

CONTENT = frozenset(
    {"$ai_input", "$ai_output", "$ai_output_choices", "$ai_tools", "$ai_instructions"}
    | {"$ai_input_state", "$ai_output_state"}
)
"""Properties that hold content."""
_TEXTS = frozenset({"posthog_llm_error_stack"})
"""Other properties that are only text."""
_CALLERS = frozenset(
    {"$ai_trace_id", "$ai_span_id", "$ai_parent_id", "$ai_session_id", "$ai_span_name"}
    | {"$ai_trace_name", "$ai_user", "$ai_lib", "$ai_lib_version"}
    | {"$ai_metric_name", "$ai_metric_value", "$ai_feedback_text", "$ai_base_url"}
    | {"$ai_provider", "posthog_llm_requested_model", "posthog_llm_model_group"}
)
"""Properties that only the caller sets."""
_NAMES = frozenset(
    {"$ai_model", "posthog_llm_served_model", "posthog_llm_request_id"}
    | {"posthog_llm_response_id"}
)
"""Properties that name a model, a request or a response."""
_OURS = ("$ai_", "posthog_llm_")


def without_content(properties: dict[str, Any]) -> dict[str, Any]:
    """Return an event's properties as they may be sent in privacy mode."""
    asked_for = properties.get("posthog_llm_requested_model")
    kept = {
        name: value if _is_callers(name, value, asked_for) else _restricted(name, value)
        for name, value in properties.items()
        if name not in CONTENT and name not in _TEXTS
    }
    if is_dict(error := kept.get("posthog_llm_error")):
        kept["$ai_error"] = summarized(error)
    if kept.get("$ai_model") == WITHHELD and asked_for:
        kept["$ai_model"] = asked_for  # the served value is not a model name
    return kept


def summarized(error: Mapping[str, Any]) -> str:
    """Describe an error without the provider's text: `RateLimitError: 429 rate_limit_exceeded`."""
    details = [str(error[name]) for name in ("status", "code") if name in error]
    return ": ".join([str(error["type"]), *filter(None, [" ".join(details)])])


def _is_callers(name: str, value: Any, asked_for: Any) -> bool:
    if not name.startswith(_OURS) or name in _CALLERS:
        return True
    return name == "$ai_model" and value == asked_for


def _restricted(name: str, value: Any) -> Any:
    return restricted(value, is_name=name in _NAMES)
