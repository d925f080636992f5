"""Which request fields may be sent as model parameters: an allow-list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._narrowing import is_mapping
from .vocabulary import is_known

# Numbers and enumerated words; they are sent in privacy mode, too.
_OPEN = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "top_a", "max_tokens", "max_completion_tokens"}
    | {"max_output_tokens", "max_tool_calls", "n", "best_of", "presence_penalty"}
    | {"frequency_penalty", "repetition_penalty", "seed", "logprobs", "top_logprobs", "echo"}
    | {"parallel_tool_calls", "reasoning_effort", "verbosity", "service_tier", "stream"}
    | {"store", "background", "truncation", "dimensions", "encoding_format", "modalities"}
    | {"size", "quality", "style", "output_format", "output_compression", "moderation"}
    | {"input_fidelity", "partial_images", "response_format", "voice", "speed", "language"}
    | {"stream_format", "timestamp_granularities", "chunking_strategy", "include"}
    | {"prompt_cache_retention", "max_tokens_to_sample", "inference_geo"}
    # Google's
    | {"candidate_count", "response_mime_type", "response_modalities", "response_logprobs"}
    | {"media_resolution", "audio_timestamp", "task_type", "output_dimensionality"}
    | {"auto_truncate", "sample_count", "aspect_ratio", "sample_image_size", "duration_seconds"}
    | {"resolution", "fps", "generate_audio", "enhance_prompt", "person_generation"}
    | {"add_watermark", "guidance_scale", "include_rai_reason", "compression_quality"}
)
_PARTLY_OPEN = {
    "reasoning": ("effort", "summary", "generate_summary", "max_tokens", "enabled"),
    "text": ("verbosity",),
    "audio": ("voice", "format"),
    "web_search_options": ("search_context_size",),
    "response_format": ("type",),
    "thinking": ("type", "budget_tokens", "display"),
    "output_config": ("effort",),
    "thinking_config": ("thinking_level", "thinking_budget", "include_thoughts"),
    "image_config": ("aspect_ratio", "image_size"),
}
# Content or identities; they are sent only outside privacy mode.
CLOSED = frozenset(
    {"stop", "tool_choice", "function_call", "metadata", "user", "safety_identifier"}
    | {"prompt_cache_key", "previous_response_id", "conversation", "prediction", "suffix"}
    | {"response_format", "text", "reasoning", "audio", "web_search_options"}
    | {"logit_bias", "prompt", "mask", "context_management", "stop_sequences"}
    | {"thinking", "output_config", "container", "mcp_servers", "betas", "custom_id"}
    | {"thinking_config", "image_config", "speech_config", "response_schema"}
    | {"response_json_schema", "safety_settings", "tool_config", "cached_content", "labels"}
    | {"negative_prompt", "routing_config", "model_selection_config"}
)


def parameters(request: Mapping[str, Any], private: bool) -> dict[str, Any]:
    """Return the request fields that may be sent as model parameters, by allow-list."""
    kept: dict[str, Any] = {}
    for name, value in request.items():
        if value is None:
            continue
        if not private and (name in _OPEN or name in CLOSED):
            kept[name] = value
        elif is_mapping(value) and name in _PARTLY_OPEN:
            part = {k: value[k] for k in _PARTLY_OPEN[name] if is_known(k, value.get(k))}
            kept.update({name: part} if part else {})
        elif name in _OPEN and is_known(name, value):
            kept[name] = value
    return kept
