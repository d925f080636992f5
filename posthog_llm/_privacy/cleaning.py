"""Any value → what may be sent: JSON types, described media, no credentials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from .._faults import interrupts
from .._media import described, described_field
from .._narrowing import is_dict
from .._turns import let_others_run
from .credentials import address_without_credentials, without_credentials
from .escapes import HIDDEN, without_escaped
from .plain import TOO_MUCH, opened
from .restriction import WITHHELD, is_word
from .structure import FREE, KNOWN, LISTED, is_field, is_protocol, is_structure, place_below

_DEPTH = 64
_MOST_NODES = 30_000
"""Maximum number of nested values in one event. A value takes at least two bytes, and PostHog
accepts no event with more."""
_MOST_CHARACTERS = 32 << 20
"""Total characters of the texts kept in full; a text counts once per place where it appears."""
_LONG = 256 << 10
"""Characters of a text that are searched for a secret without a pause."""
_SHORT = 200
"""Characters kept of each text beyond that."""
_MOST_SECONDS = 5.0
"""Maximum seconds per event, excluding the caller's redactor."""
_LONGEST_OWN = 256 << 10
"""Maximum characters of a text that an object returns for itself."""
_LARGEST = 1 << 1000
"""Most JSON parsers cannot read numbers beyond this."""
_CREDENTIALS = frozenset(
    {"authorization", "proxy-authorization", "api_key", "apikey", "api-key", "x-api-key"}
    | {"access_token", "refresh_token", "client_secret", "password", "authorization_token"}
    | {"x-goog-api-key", "secret_key", "private_key", "cookie", "set-cookie"}
)
_SERVER_SECRETS = frozenset({"authorization", "headers"})
"""Fields of an MCP tool that hold credentials, whatever they look like."""
_LONGEST_KEY = 1000
_ADDRESSES = frozenset({"server_url", "url"})
Redact = Callable[[str], "str | None"]


class How(NamedTuple):
    """How to clean a value."""

    redact: Redact | None
    """The redactor for its texts."""
    place: int
    """The kind of place that it is in: see `structure`."""
    named: bool = False
    """Whether a field name can mark its text as a credential."""
    own: bool = False
    """Whether it is the caller's own property, where media and tools are not looked for."""


class Withheld(Exception):
    """The caller's redactor failed: the text for it must not be sent."""


class Cleaner:
    """Makes the values of one event fit to send.

    `redact` is the caller's function from text to text, or to `None` to drop the text. It sees only
    the texts of content. Whatever exceeds the limits of one event is replaced by a mark.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        redact: Redact | None = None,
        longest: int | None = None,
        *,
        keep_media: bool = False,
    ) -> None:
        self._keep_media = keep_media
        self._longest = longest
        """Maximum characters of one text; `None` means no limit."""
        self.cut = 0
        """Characters cut out of texts so far, plus values left out."""
        self._secrets = list(secrets)
        self._plain_below = min([_LONGEST_KEY, *map(len, self._secrets)])
        """A key shorter than this holds no secret and is not too long."""
        self._redact = redact
        self._around: set[int] = set()
        """Ids of the containers around the current value."""
        self._nodes = _MOST_NODES
        self._characters = _MOST_CHARACTERS
        self._until = time.monotonic() + _MOST_SECONDS

    def content(self, value: Any) -> Any:
        """Clean messages, outputs and tools. Raises `Withheld` if the redactor fails."""
        return self._clean(value, "", None, _DEPTH, How(self._redact, LISTED))

    def parameter(self, name: str, value: Any) -> Any:
        """Clean a parameter that may hold the caller's texts. Raises as `content` does."""
        place = FREE if name in ("metadata", "logit_bias") else KNOWN
        return self._clean(value, "", None, _DEPTH, How(self._redact, place, named=True))

    def free(self, value: Any) -> Any:
        """Clean content that follows no protocol, such as a step's. Raises as `content` does."""
        return self._clean(value, "", None, _DEPTH, How(self._redact, FREE))

    def plain(self, value: Any) -> Any:
        """Clean a value that is not content, such as a property of the caller's."""
        return self._clean(value, "", None, _DEPTH, How(None, FREE, own=True))

    def provider(self, value: Any) -> Any:
        """Clean words and numbers: open parameters, and provider data other than content."""
        return self._clean(value, "", None, _DEPTH, How(self.label, FREE, named=True))

    def properties(self, given: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the caller's properties by name, each cleaned separately."""
        pairs = opened(given, self._nodes, self._until)
        for name, value in pairs.items() if is_dict(pairs) else ():
            yield self._key(_as_key(name), None), self.plain(value)

    def label(self, text: str) -> str:
        """Clean a code, a reason or a name; the redactor sees it unless it is a plain word."""
        text = self.text(text)
        try:
            return text if is_word(text) else self._redacted(text, self._redact)
        except Withheld:
            return WITHHELD

    def text(self, text: str) -> str:
        """Remove credentials from a text by a provider or an exception."""
        return without_credentials(self._without_secrets(text))

    def identity(self, text: str) -> str:
        """Remove the request's own credentials from an id of the caller's."""
        return self._without_secrets(text)

    def address(self, url: str) -> str:
        """Remove credentials from a URL without its query."""
        return address_without_credentials(self._without_secrets(url))

    def error(self, text: str) -> str:
        """Clean an error text: it may contain a credential or echo the prompt."""
        return self._redacted(self.text(text), self._redact)

    def _clean(self, value: Any, key: str, owner: Any, depth: int, how: How) -> Any:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            return self._string(value, key, owner, how)
        if value is None or kind is bool:
            return value
        if kind is int:
            fits = -_LARGEST < value < _LARGEST
            return value if fits else f"[integer, {value.bit_length()} bits]"
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if depth == 0:
            return "[nested too deep]"
        if id(value) in self._around:
            return "[circular]"
        if self._nodes <= 0 or time.monotonic() > self._until:
            self.cut += 1
            return TOO_MUCH
        self._around.add(id(value))
        try:
            if kind is dict:
                return self._mapping(value, depth - 1, how)
            if kind is list or kind is tuple:
                return self._items(value, key, owner, depth - 1, how)
            return self._object(value, key, owner, depth, how)
        except RecursionError:  # the thread's stack was nearly full already
            return "[nested too deep]"
        finally:
            self._around.discard(id(value))

    def _object(self, value: Any, key: str, owner: Any, depth: int, how: How) -> Any:
        shown = opened(value, self._nodes, self._until)
        if type(shown) is dict:
            return self._mapping(shown, depth - 1, how)  # pyright: ignore[reportUnknownArgumentType]
        if type(shown) is list:
            return self._items(shown, key, owner, depth - 1, how)  # pyright: ignore[reportUnknownArgumentType]
        if shown is TOO_MUCH:
            self.cut += 1
        if isinstance(shown, str):
            shown = self._shortened(shown, _LONGEST_OWN)
        return self._clean(shown, key, owner, depth - 1, how)

    def _taken(self, count: int) -> int:
        """Take up to `count` values from the remaining budget, and return how many."""
        kept = min(count, self._nodes)
        self._nodes -= kept
        self.cut += count - kept
        return kept

    def _items(self, value: Any, key: str, owner: Any, depth: int, how: How) -> list[Any]:
        kept = self._taken(count := len(value))
        cleaned = [self._clean(item, key, owner, depth, how) for item in value[:kept]]
        return cleaned if kept == count else [*cleaned, TOO_MUCH]

    def _mapping(self, value: dict[Any, Any], depth: int, how: How) -> dict[str, Any]:
        redact = how.redact
        known = is_protocol(value, how.place)
        cleaned: dict[str, Any] = {}
        same: dict[str, int] = {}
        pairs = list(value.items())  # its owner may still be writing to it
        kept = self._taken(len(pairs))
        for name, item in pairs[:kept]:
            if type(item) is not str and issubclass(type(item), str):
                item = str.__str__(item)
            key = name if type(name) is str else _as_key(name)
            shown, below = key, self._below(key, item, how, known)
            if redact is not None or len(key) >= self._plain_below:
                shown = self._key(key, None if known and is_field(key) else redact)
            base = shown
            while shown in cleaned:
                same[base] = same.get(base, 1) + 1
                shown = f"{base} ({same[base]})"
            if _is_credential(key, item, value, how):
                cleaned[shown] = HIDDEN
            elif key in _ADDRESSES and not how.own and type(item) is str and _is_server(key, value):
                cleaned[shown] = self._redacted(self.address(item.partition("?")[0]), below.redact)
            else:
                cleaned[shown] = self._clean(item, key, value, depth, below)
        if kept < len(pairs):
            cleaned[TOO_MUCH] = len(pairs) - kept
        return cleaned

    @staticmethod
    def _below(key: str, item: Any, how: How, known: bool) -> How:
        """Return how to clean the value of a field."""
        place = place_below(key) if known else FREE
        if how.redact is not None and known and type(item) is str and is_structure(key, item):
            return how._replace(redact=None, place=place)
        return how if place == how.place else how._replace(place=place)

    def _key(self, key: str, redact: Redact | None) -> str:
        if len(key) > _LONGEST_KEY:
            key = self._shortened(key, _LONGEST_KEY)
        return self._redacted(self._without_secrets(key), redact)

    def _string(self, text: str, key: str, owner: Any, how: How) -> str:
        if not (self._keep_media or how.own):
            text = _shown(text, key, owner)
        text = self._redacted(self._without_secrets(text), how.redact)
        if self._longest is not None:
            text = self._shortened(text, self._longest)
        self._characters -= len(text)
        return text if self._characters >= 0 else self._shortened(text, _SHORT)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            if len(text) <= _LONG or _is_in(secret, text):
                text = text.replace(secret, HIDDEN)
        return without_escaped(text, self._secrets)

    def _shortened(self, text: str, longest: int) -> str:
        """Cut the middle out of a text that is too long."""
        if len(text) <= longest:
            return text
        half, gone = longest // 2, len(text) - longest
        self.cut += gone
        return f"{text[:half]}[{gone} characters cut]{text[-half:]}"

    def _redacted(self, text: str, redact: Redact | None) -> str:
        if redact is None or not text:
            return text
        began = time.monotonic()
        try:
            answer: Any = redact(text)
        except BaseException as error:  # even `sys.exit`: the text must not be sent
            if interrupts(error):
                raise
            raise Withheld(type(error).__name__) from None
        finally:
            self._until += time.monotonic() - began
        if answer is None:
            return WITHHELD
        if not isinstance(answer, str):
            raise Withheld(f"redactor returned {type(answer).__name__}")
        return answer


def _is_in(secret: str, text: str) -> bool:
    for start in range(0, len(text), _LONG):
        if text.find(secret, start, start + _LONG + len(secret)) >= 0:
            return True
        let_others_run()
    return False


def _shown(text: str, key: str, owner: Any) -> str:
    return described(text) if owner is None else described_field(owner, key, text)


def _is_credential(key: str, item: Any, owner: Mapping[Any, Any], how: How) -> bool:
    if how.named and key.lower() in _CREDENTIALS and type(item) is str:
        return bool(item)
    if item is None or key not in _SERVER_SECRETS or how.own:
        return False
    return "server_url" in owner


def _is_server(key: str, owner: Mapping[Any, Any]) -> bool:
    """Whether a URL is an MCP server's: its query may hold a credential."""
    return key == "server_url" or (owner.get("type") == "url" and "name" in owner)


def _as_key(name: Any) -> str:
    try:
        return str(name.value if isinstance(name, Enum) else name)
    except Exception:  # its own code failed, or it is a number with thousands of digits
        return f"[{type(name).__name__}]"
