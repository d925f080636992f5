"""The bytes of a plain answer → its text, as the SDKs read it."""

from __future__ import annotations

import json
import re

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]+)")


def in_utf8(body: bytes) -> bytes:
    """Return JSON in UTF-8; readers of JSON know UTF-16 and UTF-32 by their first bytes."""
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-8"):
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body


def text(kind: str, body: bytes) -> str:
    """Return a bare text, in the charset that its content type names."""
    named = _CHARSET.search(kind)
    try:
        return body.decode(named.group(1) if named else "utf-8", "replace")
    except LookupError:
        return body.decode(errors="replace")
