"""Texts inside texts: JSON in JSON, percent-encoding and HTML, also partly and several times over.

A text is made plainer layer by layer, each in one pass; so what stands in it is found whatever
stands for its characters. No expression here has an open repetition.
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

HIDDEN = "[redacted]"
DEPTH = 4
"""Layers that are looked through."""
_TOKEN = re.compile(
    r"(?P<bytes>(?:%[0-9A-Fa-f]{2})+)|\\{1,16}u(?P<unit>[0-9A-Fa-f]{4})"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});",
    re.ASCII,
)
_BREAK = re.compile(r"\\{1,16}[nrt]")
_BARE = re.compile(r"\\{1,16}(?!u[0-9A-Fa-f]{4})")
_NAMED = frozenset("\"&<>'/+=:;,.!?@#$%()[]{}*_-|~^`")
_ESCAPES = ("%", "\\", "&")
_PART = 32 << 10
"""Characters that are looked at without letting another thread run."""
_CUT = re.compile(r"[ \n\t,\"'<>]")
"""Where a text may be cut: no escape has one of these in it, and hardly a secret."""


def plainer(text: str) -> str:
    """Return a text with one layer of escapes undone."""
    if not any(escape in text for escape in _ESCAPES):
        return text
    return "".join(
        _TOKEN.sub(_plain, _BARE.sub("", _BREAK.sub("\n", part))) for part in _parts(text)
    )


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts, cut between words.

    One pass over a long one would keep the interpreter from every other thread for as long.
    """
    start = 0
    while cut := _CUT.search(text, start + _PART):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def layers(text: str) -> Iterator[str]:
    """Yield a text with one layer of escapes undone, with two, and so on, while there are any."""
    for _ in range(DEPTH):
        before, text = text, plainer(text)
        if text == before:
            return
        yield text


def _plain(match: re.Match[str]) -> str:
    if encoded := match["bytes"]:
        return bytes.fromhex(encoded.replace("%", "")).decode("utf-8", "replace")
    if unit := match["unit"]:
        code = int(unit, 16)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    return html.unescape(match[0])


def without_escaped(text: str, secrets: Sequence[str]) -> str:
    """Return a text without secrets whose characters are escaped in it.

    Where one is there that is not found in place, for its escapes are of several kinds, the text
    goes as a whole.
    """
    for layer in layers(text) if secrets else ():
        for secret in secrets:
            if any(form in layer for form in _plainer_forms(secret)):
                found = in_any_form(secret)
                parts = (text,) if _CUT.search(secret) else _parts(text)
                shown = "".join(found.sub(HIDDEN, part) for part in parts)
                return HIDDEN if shown == text else without_escaped(shown, secrets)
    return text


@lru_cache(maxsize=256)
def _plainer_forms(secret: str) -> set[str]:
    """Return a secret as it may look in a layer; what is no escape in it may be undone there."""
    return {form for form in (secret, secret.replace("\\", ""), *layers(secret)) if len(form) > 3}


@lru_cache(maxsize=256)
def in_any_form(secret: str) -> re.Pattern[str]:
    """Return what finds a secret each of whose characters may be itself or an escape for it."""
    return re.compile("".join(map(_forms, secret.replace("\\", ""))))


@lru_cache(maxsize=256)
def _names(char: str) -> list[str]:
    """Return the names that HTML has for a character of a credential."""
    if char not in _NAMED:
        return []
    return [name[:-1] for name, c in html.entities.html5.items() if c == char and name[-1] == ";"]


def _forms(char: str) -> str:
    code = ord(char)
    quoted = "".join(map(_percent, char.encode("utf-8", "surrogatepass")))
    named = "".join(f"|{name}" for name in _names(char))
    number = f"{_either('#')}(?:0{{0,4}}{code}|x0{{0,4}}{code:x})"
    begin, end = _either("&"), _either(";")
    entity = f"{begin}(?:amp{end}){{0,{DEPTH}}}(?:{number}{named}){end}"
    return f"{_either(chr(92))}{{0,16}}(?:{re.escape(char)}|(?i:{quoted}|u{code:04x}|{entity}))"


def _either(mark: str) -> str:
    """Match the mark of an escape, which may be percent-encoded itself."""
    return f"(?i:{re.escape(mark)}|{_percent(ord(mark))})"


def _percent(byte: int) -> str:
    return f"%(?:25){{0,{DEPTH}}}{byte:02x}"
