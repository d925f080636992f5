"""Embeddings, decisions, images, audio and reranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._exchange import Exchange
from .._narrowing import is_list, is_mapping
from .._record import RequestFacts, ResponseFacts, Usage
from . import usage
from .chat import as_prompt, failure, text_or_none
from .pieces import append, joined
from .sse import Event, Folded, objects

_SAYING = (".delta", ".partial_image", ".completed", ".done")
_CONTENT = frozenset({"model", "input", "prompt", "questions", "instructions", "file", "image"})


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _CONTENT}


def _uploads(exchange: Exchange) -> list[dict[str, Any]]:
    """Return the files of a multipart request by name, type and size."""
    return [
        {
            "type": "file",
            "file": {
                "filename": upload.name,
                "file_data": f"[{upload.media_type or 'binary'}, "
                f"{'unknown' if upload.size is None else upload.size} bytes]",
            },
        }
        for upload in exchange.uploads
    ]


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    """Read a request to any of these endpoints: text, files, or both."""
    prompt = body.get("input", body.get("prompt"))
    files = _uploads(exchange)
    if files:
        words = [{"type": "text", "text": prompt}] if isinstance(prompt, str) else []
        prompt = [{"role": "user", "content": [*words, *files]}]
    else:
        prompt = as_prompt(prompt)
    if body.get("questions"):
        prompt = [*(prompt or []), {"role": "user", "content": body["questions"]}]
    if body.get("instructions"):
        prompt = [{"role": "system", "content": body["instructions"]}, *(prompt or [])]
    return RequestFacts(text_or_none(body.get("model")), prompt, parameters=_parameters(body))


def read_embedding_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    parameters = _parameters(body)
    if parameters.get("encoding_format") == "base64":
        del parameters["encoding_format"]  # the SDK's own default; it returns numbers
    return RequestFacts(text_or_none(body.get("model")), body.get("input"), parameters=parameters)


def read_speech_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    """Read a speech request, which is billed by characters."""
    found, said = read_request(body, exchange), body.get("input")
    found.characters = len(said) if isinstance(said, str) else None
    return found


def read_embedding(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    """Read an embedding response. Vectors are not captured: nobody reads them."""
    answer = _read(body, provider, None)
    if answer.usage.input_tokens is None:
        answer.usage.input_tokens = answer.usage.total_tokens  # all of it is input
    return answer


def read_rerank_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    """Read a rerank request: documents to rank by how well they answer a query."""
    documents = body.get("documents")
    blocks = [{"type": "text", "text": text} for text in (documents or ()) if isinstance(text, str)]
    prompt = [
        {"role": "user", "content": body.get("query")},
        {"role": "user", "content": blocks or documents},
    ]
    taken = {"query", "documents", "input"}
    parameters = {k: v for k, v in _parameters(body).items() if k not in taken}
    return RequestFacts(text_or_none(body.get("model")), prompt, parameters=parameters)


def read_rerank(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    results = body.get("results")
    said = [{"role": "assistant", "content": results}] if is_list(results) else None
    return _read(body, provider, said)


def read_decision(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    answers = body.get("answers")
    said = [{"role": "assistant", "content": answers}] if is_list(answers) else None
    return _read(body, provider, said)


def read_image(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    data = body.get("data")
    images = [i for i in data if is_mapping(i)] if is_list(data) else []
    kind = f"image/{text_or_none(body.get('output_format')) or 'png'}"
    output = [
        {"role": "assistant", "content": [{**_picture(image, kind), **_revised(image)}]}
        for image in images
    ]
    answer = _read(body, provider, output or None)
    counted = answer.usage
    if counted.image_output_tokens is None and counted.text_output_tokens is None:
        counted.image_output_tokens = counted.output_tokens
    return answer


def _picture(image: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if isinstance(encoded := image.get("b64_json"), str):
        return {"type": "image", "media_type": kind, "b64_json": encoded}
    return {"type": "image", "image": image.get("url")}


def _revised(image: Mapping[str, Any]) -> dict[str, Any]:
    revised = image.get("revised_prompt")
    return {"revised_prompt": revised} if revised else {}


def read_speech(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    """Read a speech response: only the size of the audio."""
    answer = _read(body, provider, None)
    answer.sound_bytes = body.get("sound_bytes")
    if answer.usage.audio_output_tokens is None:
        answer.usage.audio_output_tokens = answer.usage.output_tokens
    return answer


def _decoded_size(encoded: str) -> int:
    return len(encoded) * 3 // 4 - encoded.count("=", -2)


def read_transcription(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    text = body.get("text")
    said = [{"role": "assistant", "content": text}] if isinstance(text, str) else None
    answer = _read(body, provider, said)
    counted = answer.usage
    # A transcription billed by tokens reports its duration, too.
    if counted.audio_seconds is None and counted.input_tokens is None:
        counted.audio_seconds = usage.seconds(body.get("duration"))
    return answer


def _read(
    body: Mapping[str, Any], provider: str, output: list[dict[str, Any]] | None
) -> ResponseFacts:
    model = text_or_none(body.get("model"))
    counted = usage.read(body.get("usage"), provider)
    return ResponseFacts(
        model=model,
        output=output,
        usage=counted if is_mapping(body.get("usage")) else Usage(),
        response_id=text_or_none(body.get("id")),
        failure=failure(body.get("error")),
    )


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Fold the streams of images, transcription and speech: deltas, then one `done`."""
    body: dict[str, Any] = {}
    pictures: list[dict[str, Any]] = []
    first: int | None = None
    complete = False
    for offset, event in objects(source):
        kind = str(event.get("type"))
        if event.get("error"):
            body["error"], complete = event["error"], True
        if first is None and kind.endswith(_SAYING) and event.get("delta") != "":
            first = offset
        if kind.endswith(".audio.delta") and isinstance(sound := event.get("audio"), str):
            body["sound_bytes"] = body.get("sound_bytes", 0) + _decoded_size(sound)
        if kind.endswith(".text.delta") and isinstance(event.get("delta"), str):
            append(body, "text", event["delta"])
        elif kind.endswith((".completed", ".done")):
            complete = True
            if "b64_json" in event:
                pictures.append({"b64_json": event["b64_json"]})
            body.update({k: v for k, v in event.items() if k not in ("b64_json", "type")})
    if pictures:
        body["data"] = pictures
    return Folded(joined(body), first, complete)
