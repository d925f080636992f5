"""What the echoing models hear, and how they say it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..narrowing import is_list, is_mapping

Kind = Literal["json", "stream", "aws", "sound", "missing"]
"""How an answer is sent."""


def words(value: Any) -> str:
    """Return the last text in messages, parts or a plain string."""
    if is_list(value) and value:
        return words(value[-1])
    if is_mapping(value):
        return words(value.get("content") or value.get("text") or "")
    return str(value or "")


def example(schema: Mapping[str, Any], text: str) -> Any:
    """Return a value that fits a JSON schema, with `text` where it takes one."""
    kind = schema.get("type")
    if kind == "object":
        return {name: example(part, text) for name, part in schema.get("properties", {}).items()}
    examples: dict[str, Any] = {"integer": 7, "number": 0.5, "boolean": True, "array": []}
    return examples.get(str(kind), text)


def pieces(text: str) -> list[str]:
    """Return a text cut before each space."""
    return text.replace(" ", " \0").split("\0") if text else []
