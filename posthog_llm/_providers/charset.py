"""The bytes of a non-streamed response → its text, as the SDKs read it."""

from __future__ import annotations

import json
import re

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]+)")


def in_utf8(body: bytes) -> bytes:
    """Return JSON as UTF-8; JSON parsers detect UTF-16 and UTF-32 by the first bytes."""
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-8"):
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body


def text(kind: str, body: bytes) -> str:
    """Decode plain text in the charset that its content type names."""
    named = _CHARSET.search(kind)
    try:
        return body.decode(named.group(1) if named else "utf-8", "replace")
    except LookupError:
        return body.decode(errors="replace")
