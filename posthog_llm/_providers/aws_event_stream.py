"""AWS event streams: binary frames, each with one event of a model's response.

https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html (same encoding)
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Iterator, Mapping

from .._exchange import Failure
from .._narrowing import is_dict
from .parsing import parse
from .sse import Event

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">III")
"""Total length, header length, and the checksum of these two."""
_CRC = struct.Struct(">I")
_CHECKSUM = _CRC.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Header value type → size of its value in bytes; strings and bytes (6, 7) carry their length."""


def intact(body: bytes) -> tuple[bytes, Failure | None]:
    """Return the frames before the first checksum mismatch, and the failure."""
    offset, head = 0, _PRELUDE.size - _CHECKSUM
    while offset + _PRELUDE.size <= len(body):
        total, _, expected = _PRELUDE.unpack_from(body, offset)
        found = zlib.crc32(body[offset : offset + head])
        end = offset + max(total, _PRELUDE.size + _CHECKSUM)
        if found == expected and end <= len(body):
            (expected,) = _CRC.unpack_from(body, end - _CHECKSUM)
            found = zlib.crc32(body[offset : end - _CHECKSUM])
        if found != expected:
            says = f"Checksum mismatch: expected 0x{expected:08x}, calculated 0x{found:08x}"
            return body[:offset], Failure("ChecksumMismatch", says)
        offset = end
    return body, None


def events(body: bytes) -> Iterator[Event]:
    """Yield the end offset and data of each complete frame, whatever its checksums."""
    offset = 0
    while offset + _PRELUDE.size <= len(body):
        total, headers, _ = _PRELUDE.unpack_from(body, offset)
        end, start = offset + total, offset + _PRELUDE.size + headers
        if end > len(body) or start + _CHECKSUM > end:
            return
        data = _data(_headers(body[start - headers : start]), body[start : end - _CHECKSUM])
        if data is not None:
            yield end - 1, data
        offset = end


def _data(headers: Mapping[str, str], payload: bytes) -> bytes | None:
    found = parse(payload)
    found = found if is_dict(found) else {}
    if headers.get(":message-type") in ("exception", "error"):
        kind = headers.get(":exception-type") or headers.get(":error-code")
        message = found.get("message") or headers.get(":error-message")
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    try:
        return base64.b64decode(found["bytes"])
    except (KeyError, TypeError, binascii.Error):
        return None


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers with string values."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode("latin-1"), data[name_end]
            at = name_end + 1
            if kind in _SIZES:
                at += _SIZES[kind]
                continue
            size = int.from_bytes(data[at : at + 2], "big")
            at += 2 + size
            found[name] = data[at - size : at].decode("utf-8", "replace")
    except IndexError:  # truncated: keep what was read
        pass
    return found
