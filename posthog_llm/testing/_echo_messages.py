"""A model that repeats its input, in the formats of Anthropic's Messages API."""

from __future__ import annotations

import base64
import itertools
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from .._narrowing import mapping
from ._echo_words import Kind, Said, Tool, call_number, chosen, echoed, pieces, words

_numbers = itertools.count(1)
_VERTEX = re.compile(r"/projects/.*/models/([^/:]+):(?:streamR|r)awPredict")
_BEDROCK = re.compile(r"/model/([^/]+)/invoke(-with-response-stream)?")


def speaks(path: str) -> bool:
    """Whether a model at this path returns text or tool calls."""
    return path == "/messages" or bool(_VERTEX.fullmatch(path) or _BEDROCK.fullmatch(path))


def answer(path: str, request: Mapping[str, Any], scripted: Said | None) -> tuple[Kind, Any] | None:
    """Return the kind and body of a request's response; `None` for other paths."""
    if (
        path in ("/messages", "/complete")
        and request.get("model") == "no-such-model"
        and not scripted
    ):
        error = {"type": "not_found_error", "message": "model: no-such-model"}
        return "missing", {"type": "error", "error": error, "request_id": "req_test"}
    if path == "/messages/count_tokens":
        return "json", {"input_tokens": len(words(request.get("messages")).split())}
    if path == "/complete":
        return _completed(request)
    on_vertex, on_bedrock = _VERTEX.fullmatch(path), _BEDROCK.fullmatch(path)
    named = on_vertex or on_bedrock
    if path != "/messages" and not named:
        return None
    model = {"model": named.group(1)} if named else {}
    message = _message({**model, **request}, scripted or _said(request))
    if on_bedrock and on_bedrock.group(2):
        return "aws", [aws_frame(event) for event in events(message)]
    if request.get("stream"):
        return "stream", [_sse(event) for event in events(message)]
    return "json", message


def _said(request: Mapping[str, Any]) -> Said:
    """Return a model's output; it repeats a tool's result as text."""
    given = request.get("messages")
    offered = [tool for tool in request.get("tools") or () if "input_schema" in tool]
    tools = [Tool(tool["name"], tool["input_schema"]) for tool in offered]
    if "tool_result" in json.dumps((given or [None])[-1]):
        tools = []
    schema = mapping(mapping(request.get("output_config")).get("format")).get("schema")
    return echoed(words(given), chosen(tools, request.get("tool_choice")), schema)


def _block(said: Said, number: int) -> dict[str, Any]:
    if said.tool is None:
        return {"type": "text", "text": said.text}
    return {"type": "tool_use", "id": f"toolu_{number}", "name": said.tool, "input": said.arguments}


def _message(request: Mapping[str, Any], said: Said) -> dict[str, Any]:
    given = request.get("messages")
    heard, block = words(given), _block(said, call_number(given))
    usage = {
        "input_tokens": 8 + len(heard.split()),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(said.written.split()),
        "service_tier": "standard",
    }
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model"),
        "content": [block],
        "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def events(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events that stream a message, a word at a time."""
    usage = {**message["usage"], "output_tokens": 1}
    begun: dict[str, Any] = {**message, "content": [], "stop_reason": None, "usage": usage}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    counted = {"output_tokens": message["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": delta, "usage": counted}
    yield {"type": "message_stop"}


def _block_events(index: int, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    is_text = block["type"] == "text"
    empty: dict[str, Any] = {**block, **({"text": ""} if is_text else {"input": {}})}
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    yield {"type": "ping"}
    for piece in pieces(block["text"] if is_text else json.dumps(block["input"])):
        delta = (
            {"type": "text_delta", "text": piece}
            if is_text
            else {"type": "input_json_delta", "partial_json": piece}
        )
        yield {"type": "content_block_delta", "index": index, "delta": delta}


def _completed(request: Mapping[str, Any]) -> tuple[Kind, Any]:
    """Respond to a legacy text completion."""
    head = {"type": "completion", "id": f"compl_{next(_numbers)}", "model": request.get("model")}
    said = f" You said: {words(request.get('prompt'))}"
    if not request.get("stream"):
        return "json", {**head, "completion": said, "stop_reason": "stop_sequence"}
    parts = [{**head, "completion": piece, "stop_reason": None} for piece in pieces(said)]
    parts.append({**head, "completion": "", "stop_reason": "stop_sequence"})
    return "stream", [_sse(part) for part in parts]


def _sse(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def aws_frame(event: Mapping[str, Any]) -> bytes:
    """Return an event as a frame of an AWS event stream, as Bedrock sends it."""
    if event.get("type") == "error":
        names = {":message-type": "exception", ":exception-type": event["error"]["type"]}
        payload = json.dumps({"message": event["error"]["message"]}).encode()
    else:
        names = {":message-type": "event", ":event-type": "chunk"}
        text = base64.b64encode(json.dumps(event).encode()).decode()
        payload = json.dumps({"bytes": text}).encode()
    names[":content-type"] = "application/json"
    headers = b"".join(_aws_header(name, value) for name, value in names.items())
    total = 12 + len(headers) + len(payload) + 4
    prelude = struct.pack(">II", total, len(headers))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return head + struct.pack(">I", zlib.crc32(head))


def _aws_header(name: str, value: str) -> bytes:
    is_string = b"\x07"
    return (
        bytes([len(name)])
        + name.encode()
        + is_string
        + struct.pack(">H", len(value))
        + value.encode()
    )
