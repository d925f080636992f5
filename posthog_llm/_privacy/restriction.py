"""What privacy mode keeps of a value that someone else influenced: words and numbers.

A provider may put the prompt into any field of its response. A single word does not reveal whether
it was in the prompt; a sentence is withheld.
"""

from __future__ import annotations

import re
from typing import Any

from .._narrowing import is_dict, is_list

WITHHELD = "[withheld]"
_WORD = re.compile(r"[A-Za-z0-9_][\w.:/+-]{0,63}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][\w.:/@+=~-]{0,255}", re.ASCII)
_KEY = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)
_TWO_WORDS = frozenset({"Amazon Bedrock", "Google AI Studio", "Google Vertex"})
"""Names of providers behind a router that are more than one word."""
_MOST = 100
"""Maximum fields of a mapping or items of a list; larger ones are withheld."""


def is_word(text: str) -> bool:
    """Whether a text is one word, such as the name of a code, a class or a model."""
    return _NAME.fullmatch(text) is not None


def restricted(value: Any, *, is_name: bool = False) -> Any:
    """Return what of a cleaned value may be sent in privacy mode; a mark replaces the rest.

    `is_name`: it names a model, a request or a response, which may be longer.
    """
    if isinstance(value, str):
        shape = _NAME if is_name else _WORD
        return value if shape.fullmatch(value) or value in _TWO_WORDS else WITHHELD
    if is_dict(value):
        if len(value) > _MOST:
            return WITHHELD
        return {key: restricted(item) for key, item in value.items() if _KEY.fullmatch(key)}
    if is_list(value):
        return [restricted(item) for item in value] if len(value) <= _MOST else WITHHELD
    return value
