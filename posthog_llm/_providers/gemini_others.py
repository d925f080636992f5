"""Gemini's API besides content: embeddings, images and videos, on Google AI and on Vertex.

https://ai.google.dev/api/embeddings,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/veo-video-generation
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._exchange import Exchange
from .._narrowing import is_list, is_mapping, mapping
from .._record import RequestFacts, ResponseFacts, Usage
from .chat import text_or_none
from .gemini import failure, parameters
from .gemini_content import blocks, message, snake
from .gemini_usage import read_usage
from .usage import count

_EMBEDDED = frozenset({"content", "model", "mimeType", "mime_type"})
_SHOWN = frozenset({"prompt", "image", "video", "lastFrame", "referenceImages", "mask"})
_BASE64 = ("bytesBase64Encoded", "encodedVideo", "encodedImage")
_URIS = ("gcsUri", "uri")


def _all(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    given = body.get(name)
    return [item for item in given if is_mapping(item)] if is_list(given) else []


# -- embeddings ----------------------------------------------------------------------


def read_embedding_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    """Read a request for embeddings: of one content, of several, or of Vertex's instances."""
    several = [*_all(body, "requests"), *_all(body, "instances")]
    given = several or [body]
    first = {k: v for k, v in given[0].items() if k not in ("instances", "parameters")}
    config = mapping(first.pop("embedContentConfig", None))
    found = {**mapping(body.get("parameters")), **first, **config}
    texts = [_embedded(item.get("content")) for item in given]
    return RequestFacts(
        model=exchange.model,
        input=texts if len(texts) != 1 else texts[0],
        parameters=parameters(found, _EMBEDDED),
    )


def _embedded(content: Any) -> Any:
    """Return what is embedded: a text, or blocks if there is more than one text in it."""
    if isinstance(content, str):
        return content
    found = blocks(mapping(content).get("parts"))
    only = mapping(found[0]).get("text") if len(found) == 1 else None
    return only if isinstance(only, str) else found


def read_embedding(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    """Read a response of embeddings: its tokens, where it tells them."""
    metadata = mapping(body.get("usageMetadata"))
    counted = read_usage(metadata, False, False) if metadata else _counted(body)
    return ResponseFacts(
        model=text_or_none(body.get("modelVersion")),
        usage=counted,
        failure=failure(body.get("error")),
    )


def _counted(body: Mapping[str, Any]) -> Usage:
    """Return the tokens of Vertex's predictions, if it tells those of all."""
    given = [mapping(item.get("embeddings")) for item in _all(body, "predictions")]
    statistics = [mapping(item.get("statistics")) for item in given]
    counts = [tokens for one in statistics if (tokens := count(one, "token_count")) is not None]
    if not counts or len(counts) != len(statistics):
        return Usage()
    return Usage(input_tokens=sum(counts), raw={"statistics": statistics})


# -- images --------------------------------------------------------------------------


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    """Read a request for images or videos: a prompt, and what it starts from."""
    (instance, *_) = _all(body, "instances") or [{}]
    content = list(_shown(instance))
    return RequestFacts(
        model=exchange.model,
        input=[message("user", content)] if content else None,
        parameters={snake(k): v for k, v in mapping(body.get("parameters")).items()},
    )


def _shown(instance: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(prompt := instance.get("prompt"), str):
        yield {"type": "text", "text": prompt}
    for name in ("image", "lastFrame", "video", "mask"):
        if is_mapping(found := instance.get(name)):
            yield from _media(found, "video" if name == "video" else "image")
    for reference in _all(instance, "referenceImages"):
        found = reference.get("referenceImage") or reference.get("image")
        yield from _media(mapping(found), "image")


def _media(found: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the block of an image or a video: its content, or where it is."""
    media_type = text_or_none(found.get("mimeType") or found.get("encoding"))
    data = next((found[name] for name in _BASE64 if found.get(name)), None)
    place = next((found[name] for name in _URIS if found.get(name)), None)
    if data is not None:
        yield {"type": kind, "media_type": media_type or kind, "data": data}
    elif place is not None:
        yield {"type": kind, **({"media_type": media_type} if media_type else {}), "url": place}


def read_image(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    """Read a response of images, which are charged by number."""
    output: list[dict[str, Any]] = []
    made = 0
    for prediction in _all(body, "predictions"):
        content = list(_media(prediction, "image"))
        made += len(content)
        said = message("assistant", content)
        if reason := text_or_none(prediction.get("raiFilteredReason")):
            said["filtered"] = reason
        if revised := text_or_none(prediction.get("prompt")):
            said["revised_prompt"] = revised
        output += [said] if content or len(said) > 2 else []
    return ResponseFacts(
        output=output or None,
        usage=Usage(images=made) if "predictions" in body else Usage(),
        failure=failure(body.get("error")),
    )


# -- videos --------------------------------------------------------------------------


def read_video(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    """Read an operation that makes videos, which are charged by their length.

    It belongs to the request that began it; its videos are there when it is done.
    """
    name, done = text_or_none(body.get("name")), body.get("done") is True
    answer = mapping(body.get("response"))
    answer = mapping(answer.get("generateVideoResponse")) or answer
    made = _all(answer, "videos") or [
        mapping(sample.get("video")) for sample in _all(answer, "generatedSamples")
    ]
    output = [message("assistant", list(_media(video, "video"))) for video in made]
    reasons = answer.get("raiMediaFilteredReasons")
    if reasons:
        output.append({**message("assistant", []), "filtered": reasons})
    return ResponseFacts(
        output=output or None,
        usage=Usage(videos=len(made)) if done and answer else Usage(),
        response_id=name,
        failure=failure(body.get("error")),
        pending=bool(name) and not done,
        background=bool(name),
    )
