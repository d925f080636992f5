"""Audio, images and files inside JSON: described by type and size, never sent.

PostHog drops oversized events, and base64 is what makes them so large.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STEP = 2048
_URI = re.compile(r"data:([\w.+/-]*)(?:;[\w.+=/-]+)*;base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]+", re.ASCII)
_TYPE = re.compile(
    r"(?:(?:audio|image|video)(?:/|$))?(?:x-)?"
    r"(?:png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif|svg\+xml|wave?|mp[34]|mpeg|mpga|m4a|ogg|oga"
    r"|opus|flac|aac|webm|pcm|pcm16|l16|g711_[au]law|quicktime|mov|3gpp|matroska|msvideo)?"
    r"|(?:application/)?(?:pdf|json|zip|xml|gzip|tar|rtf|octet-stream|msword|vnd\.ms-[a-z]{4,10}"
    r"|vnd\.openxmlformats-officedocument\.[a-z]{4,20}ml\.(?:document|sheet|presentation))"
    r"|(?:text/)?(?:plain|html|csv|markdown|css|xml|javascript)"
)
"""Known media types, complete or in one word. Anything else may be somebody's text."""
_SAMPLE = 512
_SURE = frozenset({"b64_json", "file_data", "partial_image_b64", "encrypted_content"})
_FORMATS = ("media_type", "mime_type", "mimeType", "format")


def without_blobs(body: bytes) -> bytes:
    """Replace every long base64 string in a JSON text with its description.

    This runs before parsing: searching for quotes skips a megabyte of base64 in microseconds, while
    a JSON parser takes milliseconds. Shorter strings are left to `described`.
    """
    kept: list[bytes] = []
    done = at = 0
    while at + _STEP < len(body):
        if body.find(b'"', at, at + _STEP) >= 0:
            at += _STEP
            continue
        start, end = body.rfind(b'"', done, at) + 1, body.find(b'"', at)
        if end < 0:
            break
        head = body[start : start + _SAMPLE].decode("latin-1")
        text = _blob(head, end - start - body[end - 2 : end].count(b"="))
        if text is not None and start > done:
            kept += (body[done:start], text.encode())
            done = end
        at = end + 1
    return b"".join((*kept, body[done:])) if kept else body


def _blob(head: str, length: int) -> str | None:
    """Describe a string by its first characters; `None` if it is not base64."""
    uri = _URI.match(head)
    if uri and (_BASE64.fullmatch(head, uri.end()) or uri.end() == length):
        known = known_type(uri.group(1))
        # With an unknown type it must look like base64 or be long: it may be a text.
        return description(known, length - uri.end()) if known or length >= _STEP else None
    if length < _STEP or not _BASE64.fullmatch(head) or len(set(head)) < 24:
        return None
    mixed = any(map(str.isdigit, head)) and any(map(str.isupper, head))
    return description("", length) if mixed and any(map(str.islower, head)) else None


def description(media_type: str, base64_length: int) -> str:
    """Return the description of a base64 text with that many characters, without padding.

    `media_type` is a known one, or empty.
    """
    return f"[{media_type or 'binary'}, {base64_length * 3 // 4} bytes]"


def described(text: str) -> str:
    """Return `text`, or its description if it is base64."""
    if len(text) < _STEP and not text.startswith("data:"):
        return text
    return _blob(text[:_SAMPLE], len(text.rstrip("="))) or text


def known_type(said: Any) -> str:
    """Return a media type, or the word for one, unchanged; empty if it is not known.

    It is used in descriptions, which bypass the redactor.
    """
    return said if isinstance(said, str) and _TYPE.fullmatch(said) else ""


def described_field(owner: Mapping[str, Any], key: str, text: str) -> str:
    """Like `described`, for a protocol field that must be base64, however short."""
    if key in _SURE or (key == "data" and any(name in owner for name in _FORMATS)):
        known = next((kind for name in _FORMATS if (kind := known_type(owner.get(name)))), "")
    elif key == "result" and owner.get("type") == "image_generation_call":
        known = known_type(f"image/{owner.get('output_format') or 'png'}")
    elif key == "data" and "transcript" in owner:
        known = "audio"
    else:
        return described(text)
    length = len(text.rstrip("="))
    breaks = text.count("\n") + text.count("\r")
    if (length - breaks) % 4 == 1 or not _BASE64.fullmatch(text):
        return described(text)  # already a description, a data URI with its own type, or a text
    return description(known, length)
