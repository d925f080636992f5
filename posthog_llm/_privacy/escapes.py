"""Text inside text: JSON in JSON, percent-encoding and HTML, also partial or repeated.

A text is unescaped layer by layer, each in one pass, so that its content is found however it is
escaped. No pattern here has an open repetition, except of one kind of escape. Each begins with a
literal, which is searched for much faster than any other beginning.
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from .._turns import let_others_run

HIDDEN = "[redacted]"
DEPTH = 4
"""Number of layers to undo."""
_TOKEN = re.compile(
    r"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*|\\\\{0,15}u(?P<unit>[0-9A-Fa-f]{4})"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});",
    re.ASCII,
)
_BREAK = re.compile(r"\\\\{0,15}[nrt]")
_BARE = re.compile(r"\\\\{0,15}(?!u[0-9A-Fa-f]{4})")
_NAMED = frozenset("\"&<>'/+=:;,.!?@#$%()[]{}*_-|~^`")
_PART = 4 << 10
"""Characters processed at a time: mostly, there is an escape in few of them."""
_CUT = re.compile(r"[ \n\t,\"'<>]")
"""Where a text may be split: no escape contains these characters, and hardly any secret does."""


def plainer(text: str) -> str:
    """Return a text with one layer of escapes undone."""
    return "".join(map(_plainer_part, _parts(text))) if _may_be_escaped(text) else text


def _may_be_escaped(text: str) -> bool:
    return "\\" in text or "%" in text or "&" in text


def _plainer_part(part: str) -> str:
    if "\\" in part:
        part = _BARE.sub("", _BREAK.sub("\n", part))
    return _TOKEN.sub(_plain, part) if _may_be_escaped(part) else part


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts, split between words.

    One pass over a long text would block every other thread of the interpreter meanwhile.
    """
    start = 0
    while cut := _CUT.search(text, start + _PART):
        yield text[start : cut.start()]
        start = cut.start()
        let_others_run()
    yield text[start:]


def layers(text: str) -> Iterator[str]:
    """Yield a text with one layer of escapes undone, then two, and so on while there are any."""
    for _ in range(DEPTH):
        before, text = text, plainer(text)
        if text == before:
            return
        yield text


def _plain(match: re.Match[str]) -> str:
    if match[0][0] == "%":
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")
    if unit := match["unit"]:
        code = int(unit, 16)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    return html.unescape(match[0])


def without_escaped(text: str, secrets: Sequence[str]) -> str:
    """Return a text without secrets that are written with escapes.

    If a secret is there but cannot be located, because its escapes are of several kinds, the whole
    text is replaced.
    """
    for layer in layers(text) if secrets and _may_be_escaped(text) else ():
        for secret in secrets:
            if any(form in layer for form in _plainer_forms(secret)):
                found = in_any_form(secret)
                parts = (text,) if _CUT.search(secret) else _parts(text)
                shown = "".join(found.sub(HIDDEN, part) for part in parts)
                return HIDDEN if shown == text else without_escaped(shown, secrets)
    return text


@lru_cache(maxsize=256)
def _plainer_forms(secret: str) -> set[str]:
    """Return the forms a secret may have in a layer, where parts of it may look like escapes."""
    return {form for form in (secret, secret.replace("\\", ""), *layers(secret)) if len(form) > 3}


@lru_cache(maxsize=256)
def in_any_form(secret: str) -> re.Pattern[str]:
    """Return a pattern for a secret in which each character may be escaped."""
    return re.compile("".join(map(_forms, secret.replace("\\", ""))))


@lru_cache(maxsize=256)
def _names(char: str) -> list[str]:
    """Return the HTML entity names of a credential's character."""
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
    """Match an escape mark, which may itself be percent-encoded."""
    return f"(?i:{re.escape(mark)}|{_percent(ord(mark))})"


def _percent(byte: int) -> str:
    return f"%(?:25){{0,{DEPTH}}}{byte:02x}"
