"""The input and output of the echoing models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .._narrowing import is_list, is_mapping, mapping

Kind = Literal["json", "stream", "aws", "sound", "missing"]
"""How a response is sent."""


@dataclass(frozen=True, slots=True)
class Said:
    """A model's output: a text or a tool call."""

    text: str = ""
    tool: str | None = None
    arguments: Any = None

    @property
    def written(self) -> str:
        """The text, or the arguments as JSON."""
        return self.text if self.tool is None else json.dumps(self.arguments)


class Tool(NamedTuple):
    """A tool that a request offers; `schema` describes its arguments."""

    name: str
    schema: Mapping[str, Any]


def chosen(tools: Sequence[Tool], choice: Any) -> list[Tool]:
    """Return the tools that a request lets the model call."""
    named = mapping(choice)
    if choice == "none" or named.get("type") == "none":
        return []
    name = named.get("name") or mapping(named.get("function")).get("name")
    return [tool for tool in tools if name in (None, tool.name)]


def echoed(heard: str, tools: Sequence[Tool], schema: Any) -> Said:
    """Return output that repeats the input, through the first tool if there is one."""
    if tools:
        return Said(tool=tools[0].name, arguments=example(tools[0].schema, heard))
    if is_mapping(schema):
        return Said(json.dumps(example(schema, heard)))
    return Said(f"You said: {heard}")


def call_number(earlier: Any) -> int:
    """Return the number of the next tool call after these messages: the ids of calls differ."""
    marks = ("tool_call_id", "function_call_output", "tool_result")
    text = json.dumps(earlier) if is_list(earlier) else ""
    return 1 + sum(text.count(f'"{mark}"') for mark in marks)


def words(value: Any) -> str:
    """Return the last text in messages, parts or a plain string."""
    if is_list(value) and value:
        return words(value[-1])
    if is_mapping(value):
        return words(value.get("content") or value.get("text") or "")
    return str(value or "")


def example(schema: Mapping[str, Any], text: str) -> Any:
    """Return a value that fits a JSON schema, with `text` for its strings."""
    kind = schema.get("type")
    if kind == "object":
        return {name: example(part, text) for name, part in schema.get("properties", {}).items()}
    examples: dict[str, Any] = {"integer": 7, "number": 0.5, "boolean": True, "array": []}
    return examples.get(str(kind), text)


def pieces(text: str) -> list[str]:
    """Return a text split before each space."""
    return text.replace(" ", " \0").split("\0") if text else []
