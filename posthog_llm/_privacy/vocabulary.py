"""The words that parameters may have, as providers document them; others may be caller text.

https://platform.openai.com/docs/api-reference, https://docs.claude.com/en/api/messages and
https://ai.google.dev/api; a word not listed here is sent only outside privacy mode, where the
redactor sees it.
"""

from __future__ import annotations

import re
from typing import Any

from .._narrowing import is_sequence

_EFFORT = "none|minimal|low|medium|high|xhigh|max|default|auto"
_VOICES = (
    "alloy|arbor|ash|ballad|breeze|cedar|coral|cove|echo|ember|fable|juniper|maple|marin|nova|onyx"
    "|sage|shimmer|sol|spruce|vale|verse"
)
_SUMMARY = "auto|concise|detailed|none"
_SOUND = "mp3|opus|aac|flac|wav|pcm|pcm16"
_FORMATS = (
    f"text|json|srt|verbose_json|diarized_json|vtt|url|b64_json|json_object|json_schema|{_SOUND}"
)
_WORDS = {
    "reasoning_effort": _EFFORT,
    "effort": _EFFORT,
    "verbosity": "low|medium|high",
    "service_tier": "auto|default|flex|scale|priority|fast|standard|standard_only|batch|on_demand"
    "|performance",
    "truncation": "auto|disabled",
    "encoding_format": "float|base64|int8|uint8|binary|ubinary",
    "modalities": "text|audio|image",
    "size": r"auto|\d{2,5}x\d{2,5}",
    "quality": "auto|low|medium|high|xhigh|max|standard|hd",
    "style": "vivid|natural",
    "background": "transparent|opaque|auto",
    "output_format": f"png|jpeg|jpg|webp|gif|svg|{_SOUND}",
    "format": _SOUND,
    "moderation": "auto|low",
    "input_fidelity": "low|high",
    "response_format": _FORMATS,
    "type": f"{_FORMATS}|enabled|disabled|adaptive|grammar|regex",
    "voice": _VOICES,
    "speed": "standard|fast",
    "language": r"[A-Za-z]{2,3}(?:[-_][A-Z][a-z]{3})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?",
    "stream_format": "sse|audio",
    "timestamp_granularities": "word|segment",
    "chunking_strategy": "auto",
    "include": r"logprobs|usage|file_search_call\.results"
    r"|web_search_call\.(?:results|action\.sources)"
    r"|message\.input_image\.image_url|message\.output_text\.logprobs|code_interpreter_call\.outputs"
    r"|computer_call_output\.output\.image_url|reasoning\.encrypted_content",
    "prompt_cache_retention": r"in[-_]memory|5m|30m|1h|12h|24h",
    "inference_geo": "global|[a-z]{2}",
    "summary": _SUMMARY,
    "generate_summary": _SUMMARY,
    "display": "summarized|omitted",
    "search_context_size": "low|medium|high",
    "response_mime_type": r"text/plain|application/json|text/x\.enum",
    "response_modalities": "TEXT|IMAGE|AUDIO|VIDEO",
    "media_resolution": "MEDIA_RESOLUTION_(?:LOW|MEDIUM|HIGH|ULTRA_HIGH|UNSPECIFIED)",
    "thinking_level": "(?i:minimal|low|medium|high)",
    "aspect_ratio": r"\d{1,2}:\d{1,2}",
    "image_size": "512|[1248]K",
    "sample_image_size": "512|[1248]K",
    "resolution": "480p|720p|1080p|4k",
    "task_type": "(?:CODE_)?RETRIEVAL_QUERY|RETRIEVAL_DOCUMENT|SEMANTIC_SIMILARITY|CLASSIFICATION"
    "|CLUSTERING|QUESTION_ANSWERING|FACT_VERIFICATION",
    "person_generation": "(?i:dont_allow|allow_adult|allow_all)",
}
_SHAPES = {name: re.compile(words, re.ASCII) for name, words in _WORDS.items()}


def is_known(name: str, value: Any) -> bool:
    """Whether a parameter's value is a number or one of its known words."""
    try:
        return _is_known(name, value)
    except Exception:  # its own code failed: nothing is known about it
        return False


def _is_known(name: str, value: Any) -> bool:
    if is_sequence(value):
        return all(_is_known(name, item) for item in value)
    if isinstance(value, str):
        shape = _SHAPES.get(name)
        return shape is not None and shape.fullmatch(value) is not None
    return isinstance(value, (bool, int, float))
