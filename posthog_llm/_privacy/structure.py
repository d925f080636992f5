"""Which parts of a message are the provider's protocol, and which are content.

Even with a redactor that drops every text, PostHog must be able to show the conversation. So the
protocol's own words and ids bypass the redactor, but only where the protocol has its place for
them: a tool's input may have an `id`, too, and that is content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._media import known_type

FREE, LISTED, KNOWN = 0, 1, 2
"""What a place holds: arbitrary JSON; messages or their parts; a part of the protocol."""
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_IDS = frozenset({"id", "call_id", "tool_call_id", "tool_use_id", "item_id", "file_id"})
_ID = re.compile(r"(?=[\w.:/-]{0,63}[A-Za-z])(?=[\w.:/-]{0,63}\d)[\w.:/-]{1,128}", re.ASCII)
_ENUMERATED = frozenset(
    {"role", "type", "status", "finish_reason", "stop_reason", "object", "format", "detail"}
    | {"media_type", "mime_type", "phase"}
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "model"})
_TYPES = frozenset(
    # Message parts.
    {"text", "image_url", "input_audio", "file", "refusal", "image", "audio", "document", "video"}
    | {"input_text", "input_image", "input_file", "output_text", "output_audio", "summary_text"}
    | {"reasoning_text", "thinking", "redacted_thinking", "reasoning", "compaction"}
    | {"tool_use", "tool_result", "server_tool_use", "mcp_tool_use", "mcp_tool_result"}
    | {"search_result", "web_search_tool_result", "web_fetch_tool_result", "web_search_result"}
    | {"code_execution_tool_result", "bash_code_execution_tool_result", "container_upload"}
    | {"executable_code", "code_execution_result"}
    # Response items and tools.
    | {"message", "function", "function_call", "function_call_output", "custom", "custom_tool_call"}
    | {"custom_tool_call_output", "web_search_call", "file_search_call", "code_interpreter_call"}
    | {"image_generation_call", "computer_call", "computer_call_output", "local_shell_call"}
    | {"mcp_call", "mcp_list_tools", "mcp_approval_request", "item_reference", "mcp"}
    | {"web_search", "file_search", "code_interpreter", "image_generation", "computer_use_preview"}
    # Annotations, sources, formats and choices.
    | {"url_citation", "file_citation", "container_file_citation", "file_path", "char_location"}
    | {"page_location", "content_block_location", "web_search_result_location", "base64", "url"}
    | {"search_result_location", "ephemeral", "content", "json_schema", "json_object", "grammar"}
    | {"search", "open_page", "find_in_page", "logs", "reasoning.text", "reasoning.summary"}
    | {"reasoning.encrypted", "enabled", "disabled", "adaptive", "auto", "any", "none", "tool"}
)
_WORDS = frozenset(
    {"completed", "in_progress", "incomplete", "failed", "searching", "queued", "cancelled"}
    | {"generating", "interpreting", "calling", "low", "medium", "high", "original"}
    | {"stop", "length", "tool_calls", "content_filter", "end_turn", "max_tokens"}
    | {"stop_sequence", "pause_turn", "wav", "mp3", "flac", "opus", "aac", "pcm16", "pcm"}
    | {"png", "jpeg", "webp", "gif", "commentary", "final_answer"}
).union(_ROLES, _TYPES)
_PARTS = frozenset(
    {"content", "tool_calls", "annotations", "citations", "summary", "outputs", "results"}
    | {"reasoning_details", "thinking_blocks"}
)
"""Fields that hold parts, each classified by its own type."""
_OBJECTS = frozenset(
    {"function", "function_call", "image_url", "input_audio", "audio", "file", "source", "custom"}
    | {"url_citation", "json_schema", "cache_control", "action"}
)
"""Fields that hold one object whose fields the protocol defines."""


def is_protocol(value: Mapping[Any, Any], place: int) -> bool:
    """Whether a mapping at this place is defined by the protocol."""
    if place != LISTED:
        return place == KNOWN
    kind, role = value.get("type"), value.get("role")
    if kind is None:
        return isinstance(role, str) and role in _ROLES
    return isinstance(kind, str) and kind in _TYPES


def place_below(key: str) -> int:
    """Return what a field of a protocol mapping holds."""
    return LISTED if key in _PARTS else KNOWN if key in _OBJECTS else FREE


def is_structure(key: str, text: str) -> bool:
    """Whether the text of a protocol field is one of its words, or looks like an id."""
    if key in _ENUMERATED:
        return text in _WORDS or known_type(text) != ""
    return key in _IDS and _ID.fullmatch(text) is not None


def is_field(key: str) -> bool:
    """Whether a key looks like a field name."""
    return _FIELD.fullmatch(key) is not None
