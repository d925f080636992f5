"""What may leave: one choke point for content, credentials and media.

Every value of an event passes here before it is sent, wherever it came from.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from .media import described, described_field
from .narrowing import is_collection, is_mapping, is_sequence

WITHHELD = "[withheld]"
_DEPTH = 64
_HIDDEN = "[redacted]"
# A key in an error text is often shown with stars in its middle.
_KEYS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|pplx|csk|fw|phc|phx|hf|r8|AIza|AKIA|ASIA)[-_][\w*.…-]{6,}"
    r"|\bAIza[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(?i:\b(?:bearer|basic)\s+[\w*.~+/=-]{6,})"
    r"|(?i:(?<=api-key: )|(?<=api_key=)|(?<=api-key=))[\w*.-]{6,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_CREDENTIALS = frozenset(
    {"authorization", "api_key", "apikey", "api-key", "x-api-key", "access_token"}
    | {"client_secret", "password", "authorization_token"}
)
_SERVER_SECRETS = frozenset({"authorization", "headers"})
"""Fields of an MCP tool that hold credentials, whatever their shape."""
_STRUCTURE = frozenset(
    {"role", "type", "id", "call_id", "tool_call_id", "index", "status", "finish_reason"}
    | {"object", "format", "detail", "media_type", "mime_type"}
)
"""Fields of a message that hold no text of the conversation."""

# Numbers and enumerated words; they stay in privacy mode.
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
)
_PARTLY_OPEN = {
    "reasoning": ("effort", "summary", "generate_summary", "max_tokens", "enabled"),
    "text": ("verbosity",),
    "audio": ("voice", "format"),
    "web_search_options": ("search_context_size",),
    "response_format": ("type",),
    "thinking": ("type", "budget_tokens", "display"),
    "output_config": ("effort",),
}
# Content, or an identity; they leave only outside privacy mode.
CLOSED = frozenset(
    {"stop", "tool_choice", "function_call", "metadata", "user", "safety_identifier"}
    | {"prompt_cache_key", "previous_response_id", "conversation", "prediction", "suffix"}
    | {"response_format", "text", "reasoning", "audio", "web_search_options"}
    | {"logit_bias", "prompt", "mask", "context_management", "stop_sequences"}
    | {"thinking", "output_config", "container", "mcp_servers", "betas", "custom_id"}
)
_WORD = re.compile(r"[\w.:+/-]{1,64}", re.ASCII)


class Withheld(Exception):
    """The caller's redactor failed: what it was to see must not leave."""


def parameters(asked: Mapping[str, Any], private: bool) -> dict[str, Any]:
    """Return the request fields that may leave as model parameters, by allow-list."""
    kept: dict[str, Any] = {}
    for name, value in asked.items():
        if value is None:
            continue
        if not private and (name in _OPEN or name in CLOSED):
            kept[name] = value
        elif is_mapping(value) and name in _PARTLY_OPEN:
            part = {k: value[k] for k in _PARTLY_OPEN[name] if _is_plain_word(value.get(k))}
            kept.update({name: part} if part else {})
        elif name in _OPEN and _is_plain_word(value):
            kept[name] = value
    return kept


def _is_plain_word(value: Any) -> bool:
    if is_sequence(value):
        return all(map(_is_plain_word, value))
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return isinstance(value, (bool, int, float))


def credentials_of(client: Any) -> list[str]:
    """Return an SDK client's credentials: they are removed from whatever leaves."""
    names = (
        *("api_key", "admin_api_key", "_azure_ad_token", "auth_token", "access_token"),
        *("webhook_key", "aws_access_key", "aws_secret_key", "aws_session_token"),
    )
    found = (getattr(client, name, None) for name in names)
    return [secret for secret in found if isinstance(secret, str)]


class Cleaner:
    """Makes any value fit to leave: JSON types, described media, no credentials.

    `redact` is the caller's function from text to text (or `None` to drop the text); it sees
    the texts of content only.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        redact: Callable[[str], str | None] | None = None,
        longest: int | None = None,
        *,
        keep_media: bool = False,
    ) -> None:
        self._keep_media = keep_media
        self._longest = longest
        """Characters of one text that are kept; `None`: all of them."""
        self.cut = 0
        """Characters that were cut out of texts so far."""
        self._secrets = [secret for secret in secrets if len(secret) >= 6]
        self._redact = redact
        self._around: set[int] = set()
        """Ids of the containers around the value at hand."""

    def content(self, value: Any) -> Any:
        """Clean messages, outputs and tools. Raises `Withheld` when the redactor fails."""
        return self._clean(value, "", None, _DEPTH, self._redact)

    def plain(self, value: Any) -> Any:
        """Clean a value that is no content, such as a property of the caller's."""
        return self._clean(value, "", None, _DEPTH, None)

    def text(self, text: str) -> str:
        """Remove credentials from a text."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _KEYS.sub(_HIDDEN, text)

    def error(self, text: str) -> str:
        """Clean an error's text: it may show a credential, and may echo the prompt."""
        return _redacted(self.text(text), self._redact)

    def _clean(self, value: Any, key: str, owner: Any, depth: int, redact: Any) -> Any:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            return self._string(value, key, owner, redact)
        if value is None or kind is int or kind is bool:
            return value
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if depth == 0:
            return "[nested too deep]"
        if id(value) in self._around:
            return "[circular]"
        self._around.add(id(value))
        try:
            if kind is dict or is_mapping(value):
                return self._mapping(value, depth - 1, redact)
            if is_collection(value):
                return [self._clean(item, key, owner, depth - 1, redact) for item in value]
            return self._clean(_as_plain(value), key, owner, depth - 1, redact)
        finally:
            self._around.discard(id(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int, redact: Any) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for name, item in value.items():
            key = name if isinstance(name, str) else str(_as_key(name))
            if item and (
                (key.lower() in _CREDENTIALS and isinstance(item, str))
                or (key in _SERVER_SECRETS and "server_url" in value)
            ):
                cleaned[key] = _HIDDEN
            elif key == "server_url" and isinstance(item, str):
                cleaned[key] = self.text(item.partition("?")[0])
            else:
                cleaned[key] = self._clean(item, key, value, depth, redact)
        return cleaned

    def _string(self, text: str, key: str, owner: Any, redact: Any) -> str:
        shown = text if self._keep_media else _shown(text, key, owner)
        if shown is not text or key in _STRUCTURE:
            return shown
        if self._secrets:
            for secret in self._secrets:
                if secret in text:
                    text = text.replace(secret, _HIDDEN)
        return self._shortened(_redacted(text, redact))

    def _shortened(self, text: str) -> str:
        """Cut the middle out of a text that is too long."""
        if self._longest is None or len(text) <= self._longest:
            return text
        half, gone = self._longest // 2, len(text) - self._longest
        self.cut += gone
        return f"{text[:half]}[{gone} characters cut]{text[-half:]}"


def _shown(text: str, key: str, owner: Any) -> str:
    return described(text) if owner is None else described_field(owner, key, text)


def _redacted(text: str, redact: Any) -> str:
    if redact is None or not text:
        return text
    try:
        answer = redact(text)
    except Exception as error:
        raise Withheld(type(error).__name__) from None
    if answer is None:
        return WITHHELD
    if not isinstance(answer, str):
        raise Withheld(f"redactor returned {type(answer).__name__}")
    return answer


def _as_key(name: Any) -> Any:
    return name.value if isinstance(name, Enum) else name


_BINARY: Any = (bytes, bytearray, memoryview)


def _as_plain(value: Any) -> Any:
    """Turn an object into JSON types, one step; by its name where nothing better is known."""
    if isinstance(value, Enum):
        return value.value
    for plain in (str, int, float):  # a subclass of one of these
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, _BINARY):
        return f"[binary, {len(value)} bytes]"
    cls: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if callable(dump := getattr(value, "model_dump", None)) and not issubclass(cls, type):
        return dump()
    if dataclasses.is_dataclass(cls):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(cls)}
    return f"[{cls.__name__}]" if cls.__str__ is object.__str__ else str(value)
