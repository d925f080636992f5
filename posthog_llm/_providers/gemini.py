"""Gemini's API, on Google AI and on Vertex: content that a model generates.

https://ai.google.dev/api/generate-content,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._exchange import Exchange, Failure
from .._narrowing import is_dict, is_list, is_mapping, mapping
from .._record import RequestFacts, ResponseFacts
from .chat import text_or_none
from .gemini_content import blocks, message, messages, snake
from .gemini_usage import read_usage, searches
from .pieces import append, held, joined
from .sse import Event, Folded, objects

_CONTENT = frozenset({"contents", "content", "systemInstruction", "tools", "model"})
_SETTINGS = ("generationConfig", "generation_config")
_TIERS = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
}
"""Vertex's words for the tiers that PostHog prices by name.

https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse
"""


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    return RequestFacts(
        model=exchange.model,
        input=messages(body.get("systemInstruction"), body.get("contents")) or None,
        tools=body.get("tools"),
        parameters=parameters(body, _CONTENT),
    )


def parameters(body: Mapping[str, Any], content: frozenset[str]) -> dict[str, Any]:
    """Return a request's settings under the SDK's own names, those of `generationConfig` beside
    the others."""
    found = {snake(k): v for k, v in body.items() if k not in content and k not in _SETTINGS}
    for name in _SETTINGS:
        found.update({snake(k): v for k, v in mapping(body.get(name)).items()})
    for name, value in found.items():
        if is_mapping(value) and name.endswith("_config"):
            found[name] = {snake(k): v for k, v in value.items()}
    return found


def read_response(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    given = body.get("candidates")
    candidates = [c for c in given if is_mapping(c)] if is_list(given) else []
    metadata, reason = mapping(body.get("usageMetadata")), _stop_reason(body, candidates)
    counted = read_usage(metadata, reason is not None, any(map(_read_urls, candidates)))
    model = text_or_none(body.get("modelVersion"))
    counted.web_searches = searches(candidates, model)
    return ResponseFacts(
        model=_short(model),
        output=[said for c in candidates if (said := _said(c))] or None,
        usage=counted,
        stop_reason=reason,
        service_tier=_tier(metadata),
        response_id=text_or_none(body.get("responseId")),
        failure=failure(body.get("error")),
    )


def _short(model: str | None) -> str | None:
    """Return a model's name without the collection that some versions of the API put before it."""
    return model.rpartition("/")[2] or None if model else None


def _read_urls(candidate: Mapping[str, Any]) -> bool:
    """Whether the model was given the content of URLs, which is charged as input."""
    return bool(mapping(candidate.get("urlContextMetadata")).get("urlMetadata"))


def _tier(metadata: Mapping[str, Any]) -> str | None:
    """Return the tier that was served: of Vertex its traffic, of Google AI its own word."""
    traffic = text_or_none(metadata.get("trafficType"))
    served = text_or_none(metadata.get("serviceTier"))
    if traffic:
        return _TIERS.get(traffic) or traffic.lower()
    return served.lower() if served else None


def _stop_reason(body: Mapping[str, Any], candidates: list[Mapping[str, Any]]) -> str | None:
    """Return why the model stopped, or why it did not begin: the prompt was blocked."""
    blocked = mapping(body.get("promptFeedback")).get("blockReason")
    reasons = (text_or_none(c.get("finishReason")) for c in candidates)
    return next(filter(None, reasons), None) or text_or_none(blocked)


def _said(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a candidate as a message, with what is beside its content."""
    content = blocks(mapping(candidate.get("content")).get("parts"))
    said = message("assistant", content)
    if text := text_or_none(candidate.get("finishMessage")):
        said["finish_message"] = text
    ratings = candidate.get("safetyRatings")
    if stopped := [r for r in ratings if _blocks(r)] if is_list(ratings) else []:
        said["safety_ratings"] = stopped
    if sources := _sources(mapping(candidate.get("groundingMetadata"))):
        said["grounding"] = sources
    return said if len(said) > 2 or content else None


def _blocks(rating: Any) -> bool:
    return is_mapping(rating) and rating.get("blocked") is True


def _sources(grounding: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the model searched for, and what it found."""
    found: dict[str, Any] = {}
    if queries := grounding.get("webSearchQueries"):
        found["queries"] = queries
    chunks = grounding.get("groundingChunks")
    places = [
        {k: v for k, v in place.items() if k in ("title", "uri", "domain")}
        for chunk in (chunks if is_list(chunks) else ())
        if is_mapping(chunk)
        for place in chunk.values()
        if is_mapping(place)
    ]
    return {**found, "sources": places} if places else found


def failure(error: Any) -> Failure | None:
    """Read an error object: `{"code": 429, "message": …, "status": "RESOURCE_EXHAUSTED"}`."""
    if not error:
        return None
    if not is_mapping(error):
        return Failure("APIError", str(error))
    status = text_or_none(error.get("status"))
    return Failure("APIError", text_or_none(error.get("message")), status)


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Fold a stream's responses into the one that a plain request would have had."""
    body: dict[str, Any] = {}
    candidates: dict[int, dict[str, Any]] = {}
    first: int | None = None
    ended = False
    for offset, event in objects(source):
        for key, value in event.items():
            if key == "usageMetadata" and is_dict(value):
                held(body, key, dict).update(value)  # each tells the counts so far
            elif key != "candidates" and value is not None:
                body[key] = value
        pieces = event.get("candidates")
        for piece in pieces if is_list(pieces) else ():
            if is_dict(piece):
                index = piece.get("index")
                known = candidates.setdefault(index if isinstance(index, int) else 0, {})
                grown = _grow(known, piece)
                first = offset if first is None and grown else first
        feedback = mapping(event.get("promptFeedback"))
        ended = ended or bool(event.get("error") or feedback.get("blockReason"))
    if candidates:
        body["candidates"] = list(candidates.values())
        ended = ended or all(c.get("finishReason") for c in candidates.values())
    return Folded(joined(body), first, ended)


def _grow(candidate: dict[str, Any], piece: dict[str, Any]) -> bool:
    """Add a piece to its candidate; return whether it says anything."""
    grown = False
    for key, value in piece.items():
        if key == "content" and is_dict(value):
            content = held(candidate, key, dict)
            content.update({k: v for k, v in value.items() if k != "parts"})
            parts = value.get("parts")
            for part in parts if is_list(parts) else ():
                grown = _add(held(content, "parts", list), part) or grown
        elif key == "groundingMetadata" and is_dict(value):
            held(candidate, key, dict).update(value)
        elif value is not None:
            candidate[key] = value
    return grown


def _add(parts: list[Any], part: Any) -> bool:
    """Add a part; a text continues the text before it."""
    if not is_dict(part):
        return False
    text, last = part.get("text"), parts[-1] if parts else None
    if not isinstance(text, str):
        if not _continues(last, part):
            parts.append(part)
        return True
    same = (
        is_dict(last) and "text" in last and bool(last.get("thought")) is bool(part.get("thought"))
    )
    if same and last is not None:
        append(last, "text", text)
    elif text:
        parts.append(dict(part))
    return bool(text)


def _continues(last: Any, part: dict[str, Any]) -> bool:
    """Add a piece to the function call before it, if it continues that; return whether it did.

    https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling
    """
    begun, more = mapping(last).get("functionCall"), part.get("functionCall")
    if not (is_dict(begun) and is_dict(more)) or begun.get("willContinue") is not True:
        return False
    if more.get("name"):
        return False
    pieces = more.get("partialArgs")
    held(begun, "partialArgs", list).extend(pieces if is_list(pieces) else ())
    begun["willContinue"] = more.get("willContinue")
    return True
