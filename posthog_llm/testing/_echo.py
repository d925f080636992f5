"""A model that repeats its input, in the formats of the OpenAI API."""

from __future__ import annotations

import base64
import itertools
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._narrowing import is_list, mapping
from . import _echo_gemini as gemini
from . import _echo_messages as messages
from ._echo_words import Kind, Said, Tool, call_number, chosen, echoed, pieces, words

_numbers = itertools.count(1)
CREATED = 1_700_000_000


def speaks(path: str) -> bool:
    """Whether a model at this path returns text or tool calls."""
    own = path in ("/chat/completions", "/responses")
    return own or messages.speaks(path) or gemini.speaks(path)


def answer(
    path: str, content_type: str, body: bytes, scripted: Said | None = None
) -> tuple[Kind, Any]:
    """Return the kind and body of a request's response; `scripted` is the model's output."""
    asked: dict[str, Any] = json.loads(body) if body and "json" in content_type else {}
    if found := messages.answer(path, asked, scripted) or gemini.answer(path, asked, scripted):
        return found
    if asked.get("model") == "no-such-model" and scripted is None:
        return "missing", {
            "error": {
                "message": "The model does not exist",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_found",
            }
        }
    streamed = asked.get("stream") is True
    if path == "/chat/completions":
        chat = _chat(asked, scripted)
        return ("stream", list(_chat_chunks(asked, chat))) if streamed else ("json", chat)
    if path in ("/responses", "/responses/compact"):
        response = _response(asked, scripted)
        return ("stream", list(_response_events(response))) if streamed else ("json", response)
    if path == "/completions":
        return ("stream", list(_texts(asked))) if streamed else ("json", _text(asked))
    if path == "/audio/speech":
        return "sound", b"ID3" + bytes(997)
    plain: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "/embeddings": _embeddings,
        "/images/generations": _images,
        "/images/edits": _images,
        "/images/variations": _images,
        "/audio/transcriptions": _transcription,
        "/audio/translations": _transcription,
        "/decisions": _decision,
        "/models": lambda _: {"object": "list", "data": [{"id": "gpt-5-mini", "object": "model"}]},
    }
    if path in plain:
        return "json", plain[path](asked)
    return "missing", {"error": {"message": f"no such path: {path}", "type": "not_found"}}


def _identity(prefix: str, kind: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    model = asked.get("model", "gpt-5-mini")
    return {"id": f"{prefix}-{next(_numbers)}", "object": kind, "created": CREATED, "model": model}


def _usage(prompt: str, said: str) -> dict[str, Any]:
    read, written = 8 + len(prompt.split()), len(said.split())
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _said(asked: Mapping[str, Any]) -> Said:
    """Return a chat model's output; it repeats a tool's result as text."""
    given: Any = asked.get("messages") or [{}]
    offered = [mapping(tool.get("function")) for tool in asked.get("tools") or ()]
    tools = [Tool(f["name"], f.get("parameters") or {}) for f in offered if "name" in f]
    if given[-1].get("role") == "tool":
        tools = []
    schema = mapping(mapping(asked.get("response_format")).get("json_schema")).get("schema")
    return echoed(words(given), chosen(tools, asked.get("tool_choice")), schema)


def _message(said: Said, number: int) -> dict[str, Any]:
    if said.tool is None:
        return {"role": "assistant", "content": said.text, "refusal": None, "annotations": []}
    call = {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": said.tool, "arguments": said.written},
    }
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def _chat(asked: Mapping[str, Any], scripted: Said | None) -> dict[str, Any]:
    said = scripted or _said(asked)
    reason, number = "tool_calls" if said.tool else "stop", call_number(asked.get("messages"))
    message = _message(said, number)
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
        for index in range(asked.get("n") or 1)
    ]
    usage = _usage(words(asked.get("messages")), said.written)
    return {**_identity("chatcmpl", "chat.completion", asked), "choices": choices, "usage": usage}


def _chat_chunks(asked: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    wanted = mapping(asked.get("stream_options")).get("include_usage")
    head = {**whole, "object": "chat.completion.chunk", **({"usage": None} if wanted else {})}
    if not wanted:
        del head["usage"]
    for choice in whole["choices"]:
        for delta in _deltas(choice["message"]):
            yield {**head, "choices": [_piece(choice["index"], delta, None)]}
        yield {**head, "choices": [_piece(choice["index"], {}, choice["finish_reason"])]}
    if wanted:
        yield {**head, "choices": [], "usage": whole["usage"]}


def _piece(index: int, delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = message["content"]
    yield {"role": "assistant", "content": None if content is None else "", "refusal": None}
    for word in pieces(content or ""):
        yield {"content": word}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{**call, "index": index, "function": function}]}
        for word in pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": word}}]}


def _text(asked: Mapping[str, Any]) -> dict[str, Any]:
    heard = words(asked.get("prompt"))
    choice = {"index": 0, "text": heard, "logprobs": None, "finish_reason": "stop"}
    return {
        **_identity("cmpl", "text_completion", asked),
        "choices": [choice],
        "usage": _usage(heard, heard),
    }


def _texts(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    whole = _text(asked)
    usage = whole.pop("usage")
    for word in pieces(whole["choices"][0]["text"]):
        yield {
            **whole,
            "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}],
        }
    yield {
        **whole,
        "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}],
    }
    if mapping(asked.get("stream_options")).get("include_usage"):
        yield {**whole, "choices": [], "usage": usage}


def _response_said(asked: Mapping[str, Any]) -> Said:
    """Return a model's output for a response; it repeats a tool's result as text."""
    given = asked.get("input")
    last: Any = given[-1] if is_list(given) and given else None
    offered = [tool for tool in asked.get("tools") or () if tool.get("type") == "function"]
    tools = [Tool(tool["name"], tool.get("parameters") or {}) for tool in offered]
    if mapping(last).get("type") == "function_call_output":
        return echoed(words(last["output"]), (), None)
    schema = mapping(mapping(asked.get("text")).get("format")).get("schema")
    return echoed(words(given), chosen(tools, asked.get("tool_choice")), schema)


def _item(said: Said, number: int) -> dict[str, Any]:
    if said.tool is not None:
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}"}
        return {**call, "status": "completed", "name": said.tool, "arguments": said.written}
    text: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": []}
    return {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [text],
    }


def _response(asked: Mapping[str, Any], scripted: Said | None) -> dict[str, Any]:
    said = scripted or _response_said(asked)
    usage = _usage(words(asked.get("input")), said.written)
    identity = _identity("resp", "response", asked)
    return {
        **identity,
        "created_at": identity.pop("created"),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "output": [_item(said, call_number(asked.get("input")))],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": asked.get("tools") or [],
        "background": asked.get("background", False),
        "service_tier": "default",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _response_events(response: dict[str, Any]) -> Iterator[bytes]:
    (item,) = response["output"]
    begun: dict[str, Any] = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *_item_events(item),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        data = json.dumps({**event, "sequence_number": number})
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()


def _item_events(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place: dict[str, Any] = {"item_id": item["id"], "output_index": 0}
    whole: dict[str, Any]
    added = {"type": "response.output_item.added", "output_index": 0}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        yield {**added, "item": {**item, "status": "in_progress", "arguments": ""}}
        for word in pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", **place, "delta": word}
        whole = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": f"{kind}.done", **place, **whole}
        return
    (part,) = item["content"]
    place["content_index"] = 0
    yield {**added, "item": {**item, "status": "in_progress", "content": []}}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for word in pieces(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    whole = {"text": part["text"], "logprobs": []}
    yield {"type": "response.output_text.done", **place, **whole}
    yield {"type": "response.content_part.done", **place, "part": part}


def _embeddings(asked: Mapping[str, Any]) -> dict[str, Any]:
    texts = asked.get("input")
    texts = texts if is_list(texts) else [texts]
    vector: Any = [0.25, -0.5, 0.75]
    if asked.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    count = sum(len(str(text).split()) for text in texts)
    return {
        "object": "list",
        "model": asked.get("model"),
        "data": [
            {"object": "embedding", "index": i, "embedding": vector} for i in range(len(texts))
        ],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _decision(asked: Mapping[str, Any]) -> dict[str, Any]:
    answers = [{"type": "predicate", "name": None, "probability": 0.9}]
    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    usage |= {"input_tokens_details": {"cached_tokens": 4}}  # type: ignore[dict-item]
    return {"answers": answers * len(asked["questions"]), "model": asked["model"], "usage": usage}


def _images(asked: Mapping[str, Any]) -> dict[str, Any]:
    picture = base64.b64encode(bytes(range(48))).decode()
    return {
        "created": CREATED,
        "output_format": "png",
        "data": [{"b64_json": picture}],
        "usage": {
            "input_tokens": 10,
            "output_tokens": 272,
            "total_tokens": 282,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
        },
    }


def _transcription(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": "Hello from a recording.",
        "usage": {
            "type": "tokens",
            "input_tokens": 14,
            "output_tokens": 5,
            "total_tokens": 19,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
        },
    }
