"""One trace across several services: headers out, headers in.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ._context import ambient, around, context, continued
from ._exchange import Arguments
from ._narrowing import is_dict, is_list, is_sequence
from ._weighing import size_of
from .types import ContextArguments

_TRACE = "x-posthog-llm-trace-id"
_PARENT = "x-posthog-llm-parent-id"
_SESSION = "x-posthog-llm-session-id"
_REPLAY = "x-posthog-session-id"
"""PostHog's own header, sent by posthog-js: the id of the session replay."""
_WHO = "x-posthog-distinct-id"
_W3C = "traceparent"
_SAMPLING = "x-posthog-llm-sampling"
"""The number drawn for the trace, so that either every service keeps it or none does."""
_GROUPS = "x-posthog-llm-groups"
_PROPERTIES = "x-posthog-llm-properties"
_PRIVACY = "x-posthog-llm-privacy"
_PRIVATE = "1"
_MOST = {_GROUPS: 1024, _PROPERTIES: 4096}
"""Maximum characters of JSON in these headers: servers reject requests with longer ones."""
_WEIGHT = 10
"""Approximate maximum bytes of memory per character of such JSON."""
_DEEPEST = 4
"""Maximum nesting depth of a property that is accepted."""
_NUMBER = re.compile(r"0\.[0-9]{1,9}")
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII
)
_NOTHING = ("0" * 32, "0" * 16)
_LONGEST = 200
"""Maximum characters of a header that is used as an id."""
_UNFIT = re.compile(r"[^\x21-\x7e]")
_REPLAY_PROPERTY = "$session_id"


def trace_headers() -> dict[str, str]:
    """Return the headers that let another service continue the current trace; may be empty.

        httpx.post(url, headers=posthog_llm.trace_headers())

    - `x-posthog-llm-trace-id`, `x-posthog-llm-parent-id`, `x-posthog-llm-session-id`,
      `X-POSTHOG-DISTINCT-ID` and `X-POSTHOG-SESSION-ID` (of a session replay): each if it is known
      and fits into a header.
    - `x-posthog-llm-groups` and `x-posthog-llm-properties`: JSON of at most 1,024 and 4,096
      characters; beyond that, the longest values are left out.
    - `x-posthog-llm-privacy`: if content is withheld.
    - `x-posthog-llm-sampling`: by which either every service keeps the trace or none does.
    - `traceparent`: of the active OpenTelemetry span, else with the trace and parent ids if they
      are UUIDs, or ids derived from them.

    Send them only to your own services: they identify the user.
    """
    link, theirs = around(), ambient()
    values: Arguments = link.values
    replay = theirs.session_id or (values.properties or {}).get(_REPLAY_PROPERTY)
    found = {
        _TRACE: values.trace_id,
        _PARENT: values.parent_id,
        _SESSION: values.session_id,
        _WHO.upper(): values.distinct_id or theirs.distinct_id,
        _REPLAY.upper(): replay,
    }
    sent = {name: text for name, value in found.items() if (text := _header_text(value))}
    for name, mapping in ((_GROUPS, values.groups), (_PROPERTIES, values.properties)):
        if mapping and (text := _json(mapping, _MOST[name])):
            sent[name] = text
    if values.privacy_mode or theirs.privacy_mode:
        sent[_PRIVACY] = _PRIVATE
    if link.root is not None:
        sent[_SAMPLING] = f"{link.root.draw.number:.9f}"
    if theirs.otel:
        sent[_W3C] = "00-{:032x}-{:016x}-01".format(*theirs.otel)
    elif values.trace_id:
        sent[_W3C] = (
            f"00-{_hex(values.trace_id, 32)}-{_hex(values.parent_id or values.trace_id, 16)}-01"
        )
    return sent


def _header_text(value: Any) -> str | None:
    """Return an id as a header value; `None` if there is none, or it does not fit into a header."""
    text = _text(value)
    return text if text and len(text) <= _LONGEST and not _UNFIT.search(text) else None


def _json(given: Mapping[Any, Any], most: int) -> str | None:
    """Return a mapping as JSON of at most `most` characters, without its longest values.

    Values that are not JSON are left out: only the worker converts them.
    """
    texts: dict[str, str] = {}
    for key, value in given.items():
        # PostHog has a header of its own for the replay's id.
        if type(key) is str and key != _REPLAY_PROPERTY and size_of(value) < most * _WEIGHT:
            with contextlib.suppress(TypeError, ValueError, RecursionError):
                texts[key] = json.dumps({key: value}, allow_nan=False, separators=(",", ":"))[1:-1]
    left = sum(map(len, texts.values())) + len(texts) + 1 - most
    for key in sorted(texts, key=lambda key: -len(texts[key])):
        if left <= 0:
            break
        left -= len(texts.pop(key)) + 1
    return "{" + ",".join(texts.values()) + "}" if texts else None


def _hex(identity: str, length: int) -> str:
    """Return an id as `length` hexadecimal digits: a UUID's own, or a digest."""
    with contextlib.suppress(ValueError):
        digits = uuid.UUID(identity).hex[-length:]
        if digits not in _NOTHING:
            return digits
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=length // 2)
    return digest.hexdigest()


def continue_trace(headers: Mapping[str, str] | Iterable[tuple[Any, Any]]) -> context:
    """Return a `context` with the trace and the identity from a request's headers.

        with posthog_llm.continue_trace(request.headers):
            ...

    Takes a mapping, or pairs of str or bytes, in any case. Reads the headers of `trace_headers`; in
    a request without them, W3C's `traceparent`. Invalid ids are ignored.
    """
    return continued(*read_headers(headers))


def read_headers(headers: Any) -> tuple[ContextArguments, float | None]:
    """Return the arguments from a request's headers, and the number drawn for its trace."""
    found = _lowered(headers)
    properties = _read(found.get(_PROPERTIES))
    if _REPLAY in found:
        properties = {**(properties or {}), _REPLAY_PROPERTY: found[_REPLAY]}
    values: ContextArguments = {
        "trace_id": found.get(_TRACE),
        "parent_id": found.get(_PARENT),
        "session_id": found.get(_SESSION),
        "distinct_id": found.get(_WHO),
        "properties": properties,
        "groups": _read(found.get(_GROUPS)),
        "privacy_mode": True if _PRIVACY in found else None,
    }
    if values["trace_id"] is None and (ids := _traceparent(found.get(_W3C, ""))):
        values["trace_id"], values["parent_id"] = ids[0], values["parent_id"] or ids[1]
    number = found.get(_SAMPLING, "")
    return values, float(number) if _NUMBER.fullmatch(number) else None


def _read(text: str | None) -> dict[str, Any] | None:
    """Return the groups or properties in a header; `None` if there are none.

    PostHog's own properties (`$ai_total_cost_usd`) are ignored, and so is anything deeply nested.
    """
    try:
        found: Any = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    if not is_dict(found) or not all(key.isprintable() for key in found):
        return None
    kept = {k: v for k, v in found.items() if k[:1] != "$" and _is_flat(v, _DEEPEST)}
    return kept or None


def _is_flat(value: Any, levels: int) -> bool:
    if is_dict(value):
        return levels > 0 and all(_is_flat(item, levels - 1) for item in value.values())
    if is_list(value):
        return levels > 0 and all(_is_flat(item, levels - 1) for item in value)
    return True


def _traceparent(value: str) -> tuple[str, str] | None:
    parts = _TRACEPARENT.fullmatch(value)
    if parts is None:
        return None
    version, trace_id, parent_id, more = parts.groups()
    if trace_id in _NOTHING or parent_id in _NOTHING or (version == "00" and more):
        return None
    return trace_id, parent_id


def _lowered(headers: Any) -> dict[str, str]:
    """Return the headers that may be ids, by their names in lower case."""
    pairs: Any = headers.items() if hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    for pair in pairs if hasattr(pairs, "__iter__") else ():
        if is_sequence(pair) and len(pair) == 2:
            name, value = _text(pair[0]).lower(), _text(pair[1]).strip(" \t")
            if 0 < len(value) <= _MOST.get(name, _LONGEST) and value.isprintable():
                found[name] = value
    return found


def _text(value: Any) -> str:
    """Return an id as text; empty if it is not an id."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, (str, int, uuid.UUID)) or isinstance(value, bool):
        return ""
    try:
        return str(value)
    except ValueError:  # an int with thousands of digits
        return ""
