"""JSON → Python, with the SDKs' own fast parser where there is one.

`jiter` reads a subset of what `json` reads, to the same values, up to ten times as fast. Whatever
it refuses is left to `json`: `NaN`, a lone surrogate, a byte order mark, more than 200 levels.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .._imports import imported
from .._turns import let_others_run

_DECODER = json.JSONDecoder(parse_constant=str)
_LONG = 256 << 10
"""Bytes whose parsing takes a while."""
_GAP = r"[ \t\r\n]*"
_FIELD = rf'"[^"\\]*"{_GAP}:{_GAP}(?:"[^"\\]*"|[a-z]+|[-+.eE0-9]+){_GAP},{_GAP}'
_VECTORS = re.compile(rf'{_GAP}\{{{_GAP}(?:{_FIELD})*"data"{_GAP}:{_GAP}\[{_GAP}'.encode())
"""The beginning of an embedding response: fields without an object or a list, then its vectors."""
_VALUES = re.compile(rf'"values"{_GAP}:{_GAP}\[[-+.eE0-9, \t\r\n]*\]'.encode())
"""A vector of Google's embeddings."""
_BETWEEN = re.compile(rf"{_GAP}(?:,{_GAP}(?=\{{)|(?P<end>\]))".encode())


def parse(data: bytes) -> Any:
    """Parse JSON; `None` if it is invalid. Numbers that JSON does not have become their names."""
    if len(data) > _LONG:
        let_others_run()  # no parser does, before its end
    jiter: Any = imported("jiter")
    if jiter is not None:
        try:
            # Only keys are cached: its cache outlives the call, and texts are the caller's.
            return jiter.from_json(data, allow_inf_nan=False, cache_mode="keys")
        except Exception:  # whatever a version of it raises, `json` decides
            pass
    try:
        return _DECODER.decode(data.decode("utf-8-sig", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def without_vectors(body: bytes) -> bytes:
    """Return an embedding response without its vectors, which nobody reads.

    The response is unchanged unless they are a list of valid objects with no object inside. One is
    parsed at a time: all of them would hold the interpreter for long.
    """
    head = _VECTORS.match(body)
    if head is None:
        return _VALUES.sub(b'"values":[]', body) if b'"values"' in body else body
    start = at = head.end()
    while (end := body.find(b"}", at)) >= 0:
        if not isinstance(parse(body[at : end + 1]), dict):
            break
        between = _BETWEEN.match(body, end + 1)
        if between is None:
            break
        if between["end"]:
            return body[:start] + body[between.start("end") :]
        at = between.end()
        let_others_run()
    return body
