"""The endpoints that run a model, one row each: where they are and how to read them.

A new endpoint needs a row here, an adapter if its format is new, and a fixture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._exchange import Exchange
from .._record import Kind, RequestFacts, ResponseFacts
from . import chat, gemini, gemini_others, interactions, messages, others, responses, sse


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A kind of request that runs a model, or fetches a model's output."""

    name: str
    read_request: Callable[[Mapping[str, Any], Exchange], RequestFacts]
    """Reads a request body."""
    read_response: Callable[[Mapping[str, Any], str], ResponseFacts]
    """Reads a response body; the string names the provider, which determines the usage format."""
    fold: Callable[[Iterable[sse.Event]], sse.Folded] = others.fold
    """Folds a stream's events into the body that a non-streamed response would have had."""
    paths: tuple[str, ...] = ()
    """Paths below the base URL that take POST requests; of Google's, the method in the path."""
    fetches: Mapping[str, str] | None = None
    """Path patterns, by HTTP method, that fetch the output of an earlier request."""
    is_parsed_late: bool = False
    """Whether its SDK parses a plain response after the request has returned."""
    is_background: bool = False
    """Whether all its requests run after they have returned."""
    polls: str = ""
    """The endpoint whose background requests it asks about, and whose name their event has."""
    kind: Kind = "generation"
    provider: str = "openai"
    """The provider to assume for an unknown host."""
    streams_usage: bool = False
    """Whether streams report usage only with `stream_options.include_usage`."""
    names_events: bool = False
    """Whether a stream's events are distinguished by their `event:` line."""
    answers_in_sound: bool = False
    """Whether the response is audio; only its size is kept."""
    answers_in_text: bool = False
    """Whether a response may be plain text instead of JSON."""
    litellm: tuple[str, ...] = ()
    """LiteLLM's names for these calls, without the `a` prefix of its async ones."""
    input_field: str = "input"
    """The request field that holds what LiteLLM calls the input."""


_ROWS = (
    Endpoint(
        "chat",
        *(chat.read_request, chat.read_response, chat.fold),
        paths=("/chat/completions",),
        streams_usage=True,
        litellm=(
            *("completion", "anthropic_messages"),
            *("generate_content", "generate_content_stream"),
        ),
        input_field="messages",
    ),
    Endpoint(
        "completion",
        *(chat.read_request, chat.read_response, chat.fold),
        paths=("/completions",),
        streams_usage=True,
        litellm=("text_completion",),
        input_field="prompt",
    ),
    Endpoint(
        "response",
        *(responses.read_request, responses.read_response, responses.fold),
        paths=("/responses", "/responses/compact"),
        litellm=("responses",),
    ),
    # A background response runs after its request has returned: it is captured when its final
    # result is fetched.
    Endpoint(
        "response_poll",
        *(responses.read_request, responses.read_response, responses.fold),
        fetches={"get": r"/responses/[^/]+", "post": r"/responses/[^/]+/cancel"},
        polls="response",
    ),
    Endpoint("decision", others.read_request, others.read_decision, paths=("/decisions",)),
    Endpoint(
        "embedding",
        *(others.read_embedding_request, others.read_embedding),
        paths=("/embeddings",),
        kind="embedding",
        litellm=("embedding",),
    ),
    Endpoint(
        "image",
        *(others.read_request, others.read_image),
        paths=("/images/generations", "/images/edits", "/images/variations"),
        litellm=("image_generation", "image_edit", "image_variation"),
        input_field="prompt",
    ),
    Endpoint(
        "speech",
        *(others.read_speech_request, others.read_speech),
        paths=("/audio/speech",),
        answers_in_sound=True,
        litellm=("speech",),
    ),
    Endpoint(
        "transcription",
        *(others.read_request, others.read_transcription),
        paths=("/audio/transcriptions", "/audio/translations"),
        answers_in_text=True,
        litellm=("transcription",),
        input_field="prompt",
    ),
    Endpoint(
        "rerank",
        others.read_rerank_request,
        others.read_rerank,
        litellm=("rerank",),
        input_field="query",
    ),
    Endpoint(
        "message",
        *(messages.read_request, messages.read_response, messages.fold),
        paths=("/v1/messages", "/v1/complete"),
        provider="anthropic",
        names_events=True,
    ),
    Endpoint(
        "message_batch",
        *(messages.read_request, messages.read_response, messages.fold),
        fetches={"get": r"/v1/messages/batches/([^/]+)/results"},
        provider="anthropic",
        names_events=True,
    ),
    Endpoint(
        "content",
        *(gemini.read_request, gemini.read_response, gemini.fold),
        paths=(":generateContent", ":streamGenerateContent"),
        is_parsed_late=True,
        provider="gemini",
    ),
    Endpoint(
        "embed_content",
        *(gemini_others.read_embedding_request, gemini_others.read_embedding),
        paths=(":embedContent", ":batchEmbedContents", ":predictEmbedding"),
        kind="embedding",
        is_parsed_late=True,
        provider="gemini",
    ),
    Endpoint(
        "predict_image",
        *(gemini_others.read_request, gemini_others.read_image),
        paths=(":predict",),
        is_parsed_late=True,
        provider="gemini",
    ),
    # An operation runs after its request has returned, as a background response does.
    Endpoint(
        "predict_video",
        *(gemini_others.read_request, gemini_others.read_video),
        paths=(":predictLongRunning",),
        is_background=True,
        provider="gemini",
    ),
    Endpoint(
        "video_poll",
        *(gemini_others.read_request, gemini_others.read_video),
        paths=(":fetchPredictOperation",),
        fetches={"get": r"/models/[^/]+/operations/[^/]+"},
        polls="predict_video",
        provider="gemini",
    ),
    Endpoint(
        "interaction",
        *(interactions.read_request, interactions.read_response, interactions.fold),
        paths=("/interactions",),
        provider="gemini",
    ),
    Endpoint(
        "interaction_poll",
        *(interactions.read_request, interactions.read_response, interactions.fold),
        fetches={"get": r"/interactions/[^/]+", "post": r"/interactions/[^/]+/cancel"},
        polls="interaction",
        provider="gemini",
    ),
)
ENDPOINTS = {row.name: row for row in _ROWS}
_POSTS = {path: row for row in _ROWS for path in row.paths}
_FETCHES = [
    (method, re.compile(pattern), row)
    for row in _ROWS
    for method, pattern in (row.fetches or {}).items()
]
_OF_LITELLM = {name: row for row in _ROWS for name in row.litellm}
_AREAS = sorted({path.split("/")[1] for path in _POSTS if path[0] == "/"} - {"v1"})
_ABSOLUTE = re.compile(
    rf"https?://[^/]+(?:/[^?]*?)?(?=/(?:{'|'.join(_AREAS)}|v1/messages|v1/complete)\b)"
)


def endpoint_of(method: str, url: str) -> Endpoint | None:
    """Return the endpoint that a request goes to, or `None` if it runs no model.

    `url` is the one passed to the SDK: a path below the base URL, or an absolute URL.
    """
    post = method in ("post", "POST")
    if post and url in _POSTS:
        return _POSTS[url]
    path = _ABSOLUTE.sub("", url.split("?", 1)[0].rstrip("/"))
    path = path if path.startswith("/") else f"/{path}"
    if post and path in _POSTS:
        return _POSTS[path]
    found = (row for m, pattern, row in _FETCHES if m == method.lower() and pattern.fullmatch(path))
    return next(found, None)


def litellm_endpoint(call_type: str) -> Endpoint | None:
    """Return the endpoint of a LiteLLM call, or `None` if it runs no model."""
    return _OF_LITELLM.get(call_type) or _OF_LITELLM.get(call_type.removeprefix("a"))


def batch_of(url: str) -> str:
    """Return the id of the batch whose results are at `url`."""
    found = re.search(r"/v1/messages/batches/([^/]+)/results", url)
    return found.group(1) if found else ""
