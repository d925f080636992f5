"""Which requests run a model, by their path. Every other path passes untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..record import Kind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of request that runs a model."""

    name: str
    kind: Kind = "generation"
    streams_usage: bool = False
    """Whether its streams report usage only with `stream_options.include_usage`."""


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("chat", streams_usage=True),
        Endpoint("completion", streams_usage=True),
        Endpoint("response"),
        Endpoint("response_poll"),
        Endpoint("decision"),
        Endpoint("embedding", kind="embedding"),
        Endpoint("image"),
        Endpoint("speech"),
        Endpoint("transcription"),
        Endpoint("message"),
        Endpoint("message_batch"),
    )
}
_POSTS = {
    "/chat/completions": ENDPOINTS["chat"],
    "/completions": ENDPOINTS["completion"],
    "/responses": ENDPOINTS["response"],
    "/responses/compact": ENDPOINTS["response"],
    "/decisions": ENDPOINTS["decision"],
    "/embeddings": ENDPOINTS["embedding"],
    "/images/generations": ENDPOINTS["image"],
    "/images/edits": ENDPOINTS["image"],
    "/images/variations": ENDPOINTS["image"],
    "/v1/messages": ENDPOINTS["message"],
    "/v1/complete": ENDPOINTS["message"],
    "/audio/speech": ENDPOINTS["speech"],
    "/audio/transcriptions": ENDPOINTS["transcription"],
    "/audio/translations": ENDPOINTS["transcription"],
}
# A background response runs after its request was answered: it is told when it is fetched.
_POLL = {
    "get": re.compile(r"/responses/[^/]+"),
    "post": re.compile(r"/responses/[^/]+/cancel"),
}
_BATCH = re.compile(r"/v1/messages/batches/([^/]+)/results")
_ABSOLUTE = re.compile(
    r"https?://[^/]+(?:/[^?]*?)?"
    r"(?=/(?:chat|completions|responses|decisions|embeddings|images|audio|v1/messages|v1/complete)\b)"
)


def batch_of(url: str) -> str:
    """Return the id of the batch whose results are at `url`."""
    found = _BATCH.search(url)
    return found.group(1) if found else ""


def endpoint_of(method: str, url: str) -> Endpoint | None:
    """Return the endpoint that a request goes to, or `None` where it runs no model.

    `url` is what the SDK was asked for: a path below the base URL, or an absolute URL.
    """
    post = method in ("post", "POST")
    if post and url in _POSTS:
        return _POSTS[url]
    path = _ABSOLUTE.sub("", url.split("?", 1)[0].rstrip("/"))
    path = path if path.startswith("/") else f"/{path}"
    if post and path in _POSTS:
        return _POSTS[path]
    if method.lower() == "get" and _BATCH.fullmatch(path):
        return ENDPOINTS["message_batch"]
    poll = _POLL.get(method.lower())
    return ENDPOINTS["response_poll"] if poll and poll.fullmatch(path) else None
