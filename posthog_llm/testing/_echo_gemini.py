"""A model that repeats its input, in the formats of Gemini's API and of Vertex."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._narrowing import is_list, is_mapping, mapping
from ._echo_words import Kind, Said, Tool, echoed, pieces

_numbers = itertools.count(1)
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OPERATION = re.compile(r"/(models/[^/]+/operations/[^/:]+)")
_METHOD = re.compile(r".*/(?:models|tunedModels|endpoints)/([^/:]+):(\w+)")


def speaks(path: str) -> bool:
    """Whether a model at this path returns text or tool calls."""
    found = _METHOD.fullmatch(path)
    return found is not None and found[2] in ("generateContent", "streamGenerateContent")


def error(path: str, status: int, body: bytes) -> bytes:
    """Return the body of a scripted error in Google's format, where its API is asked."""
    if status < 400 or (_METHOD.fullmatch(path) or _OPERATION.fullmatch(path)) is None:
        return body
    given = mapping(json.loads(body))
    error = mapping(given.get("error"))
    if given.get("type") != "error" or "param" not in error:
        return body  # the caller's own
    name = _STATUSES.get(status, "UNKNOWN")
    return json.dumps(
        {"error": {"code": status, "message": error["message"], "status": name}}
    ).encode()


def answer(path: str, request: Mapping[str, Any], scripted: Said | None) -> tuple[Kind, Any] | None:
    """Return the kind and body of a request's response; `None` for other paths."""
    if operation := _OPERATION.fullmatch(path):
        video = {"video": {"uri": "https://example.com/files/1:download?alt=media"}}
        answer = {"generateVideoResponse": {"generatedSamples": [video]}}
        return "json", {"name": operation[1], "done": True, "response": answer}
    found = _METHOD.fullmatch(path)
    if found is None:
        return None
    model, method = found.groups()
    if model == "no-such-model" and scripted is None:
        text = f"models/{model} is not found"
        return "missing", {"error": {"code": 404, "message": text, "status": "NOT_FOUND"}}
    if method in ("generateContent", "streamGenerateContent"):
        whole = _content(model, request, scripted or _said(request))
        return ("json", whole) if method == "generateContent" else ("stream", list(_chunks(whole)))
    if method == "countTokens":
        return "json", {"totalTokens": _count(words(request.get("contents")))}
    return _other(path.rpartition(":")[0], method, request)


def _other(place: str, method: str, request: Mapping[str, Any]) -> tuple[Kind, Any] | None:
    """Respond to requests for embeddings, images and videos."""
    instances: list[Any] = request.get("instances") or []
    if method == "batchEmbedContents":
        return "json", {"embeddings": [{"values": [0.25] * 8} for _ in request["requests"]]}
    if method == "embedContent":
        counted = {"promptTokenCount": _count(words(request.get("content")))}
        return "json", {"embedding": {"values": [0.25] * 8}, "usageMetadata": counted}
    if method == "predict" and "content" in mapping(next(iter(instances), None)):
        return "json", {"predictions": [_vector(instance["content"]) for instance in instances]}
    if method == "predict":
        number = mapping(request.get("parameters")).get("sampleCount") or 1
        picture = {"mimeType": "image/png", "bytesBase64Encoded": "iVBORw0KGgo="}
        return "json", {"predictions": [picture] * number}
    if method == "predictLongRunning":
        return "json", {"name": f"{place.lstrip('/')}/operations/video-{next(_numbers)}"}
    if method == "fetchPredictOperation":
        video = {"gcsUri": "gs://bucket/video.mp4", "mimeType": "video/mp4"}
        done = {"name": request["operationName"], "done": True}
        return "json", {**done, "response": {"videos": [video]}}
    return None


def _vector(text: str) -> dict[str, Any]:
    statistics = {"truncated": False, "token_count": _count(text)}
    return {"embeddings": {"values": [0.25] * 8, "statistics": statistics}}


def words(contents: Any) -> str:
    """Return the last text in contents, parts or a plain string."""
    if is_list(contents) and contents:
        return words(contents[-1])
    if is_mapping(contents):
        found = contents.get("parts") or contents.get("text") or contents.get("functionResponse")
        return words(found) if is_list(found) else words_of(found)
    return words_of(contents)


def words_of(value: Any) -> str:
    return json.dumps(value["response"]) if is_mapping(value) else str(value or "")


def _count(text: str) -> int:
    return 8 + len(text.split())


def _said(request: Mapping[str, Any]) -> Said:
    """Return a model's output; it repeats a function's result as text."""
    contents: Any = request.get("contents") or [{}]
    offered = [
        Tool(function["name"], _parameters(function))
        for tool in request.get("tools") or ()
        for function in tool.get("functionDeclarations") or ()
    ]
    if "functionResponse" in json.dumps(contents[-1]):
        offered = []
    config = mapping(request.get("generationConfig"))
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    return echoed(words(contents), offered, _lower(schema))


def _parameters(function: Mapping[str, Any]) -> Mapping[str, Any]:
    given: Any = function.get("parameters") or function.get("parametersJsonSchema")
    return {"type": "object", **mapping(_lower(given))}


def _lower(schema: Any) -> Any:
    """Return a schema whose types are JSON Schema's: Google writes them in capitals."""
    if is_list(schema):
        return [_lower(part) for part in schema]
    if not is_mapping(schema):
        return schema
    lowered = {key: _lower(value) for key, value in schema.items()}
    if isinstance(kind := lowered.get("type"), str):
        lowered["type"] = kind.lower()
    return lowered


def _content(model: str, request: Mapping[str, Any], said: Said) -> dict[str, Any]:
    part: dict[str, Any] = {"text": said.text}
    if said.tool is not None:
        part = {"functionCall": {"name": said.tool, "args": said.arguments}}
    given, written = _count(words(request.get("contents"))), len(said.written.split())
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [part]},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": given,
            "candidatesTokenCount": written,
            "totalTokenCount": given + written,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": given}],
        },
        "modelVersion": model,
        "responseId": f"gemini-{next(_numbers)}",
    }


def _chunks(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the responses that stream another, a word at a time; each has the counts so far."""
    (candidate,) = whole["candidates"]
    (part,) = candidate["content"]["parts"]
    usage = whole["usageMetadata"]
    begun = {k: v for k, v in usage.items() if k != "candidatesTokenCount"}
    begun["totalTokenCount"] = usage["promptTokenCount"]
    parts = [{"text": text} for text in pieces(part["text"])] if "text" in part else [part]
    for number, piece in enumerate(parts, 1):
        content = {"role": "model", "parts": [piece]}
        last = number == len(parts)
        end = {"finishReason": candidate["finishReason"]} if last else {}
        yield {
            **whole,
            "candidates": [{"content": content, **end, "index": 0}],
            "usageMetadata": usage if last else begun,
        }
