"""The credentials that a call itself carried: known, whatever they look like."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .._exchange import Exchange

_LEAST = 6
"""A shorter text is too common to be removed everywhere."""
_NAMES = (
    *("api_key", "admin_api_key", "_azure_ad_token", "auth_token", "access_token"),
    *("webhook_key", "aws_access_key", "aws_secret_key", "aws_session_token"),
)
_PLACEHOLDERS = frozenset(
    {"not-needed", "not-required", "no-key", "no-key-required", "sk-no-key-required", "ollama"}
    | {"lm-studio", "lmstudio", "litellm", "placeholder", "api-key", "api_key", "apikey", "dummy"}
    | {"dummy-key", "fake-key", "unused", "ignored", "anything", "default", "openai", "anthropic"}
    | {"bearer", "token", "secret", "string", "EMPTY", "empty"}
)
"""Keys given to servers that need none: they are words that also occur in texts."""
_SECRET_NAMES = re.compile(
    r"auth(?!or\b)|key|token|secret|cookie|credential|passw|signature|jwt|hmac|assertion"
    r"|(?<![a-z])(?:sig|sid|pwd|pass)(?![a-z])",
    re.IGNORECASE,
)
_NO_SECRETS = frozenset({"idempotency-key", "x-stainless-idempotency-key", "sec-websocket-key"})
_CERTAIN = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key"}
)


def credentials_of(exchange: Exchange) -> list[str]:
    """Return the credentials of a call's client and request, longest first.

    One may be part of another.
    """
    known = (*_of_client(exchange.client), *_of_request(exchange))
    found = {s for s in known if len(s) >= _LEAST and s not in _PLACEHOLDERS}
    found |= {secret.replace(" ", "+") for secret in found}  # as forms encode it
    return sorted(found, key=lambda secret: (-len(secret), secret))


def _of_client(client: Any) -> Iterator[str]:
    for name in _NAMES:
        if isinstance(secret := getattr(client, name, None), str):
            yield secret
    if isinstance(more := getattr(client, "posthog_llm_secrets", None), tuple):
        yield from more  # pyright: ignore[reportUnknownVariableType]


def _of_request(exchange: Exchange) -> Iterator[str]:
    for headers, url in ((exchange.sent, exchange.url), *exchange.resent):
        given: Iterable[tuple[Any, Any]] = () if headers is None else headers.items()
        for name, value in given:
            if _is_secret(name := str(name).lower()):
                yield from _of_header(name, str(value))
        yield from _of_url(str(url or ""))
    yield from _of_url(str(exchange.base_url or ""))


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return name not in _NO_SECRETS and _SECRET_NAMES.search(name) is not None


def _of_header(name: str, value: str) -> Iterator[str]:
    scheme, _, rest = value.partition(" ")
    if name in _CERTAIN:
        yield value
        yield rest
        yield rest.rstrip("=")
        if scheme.lower() == "basic":
            yield from _of_basic(rest)
    else:
        for text in (value, rest):  # after `Bearer`, in a gateway's own header
            if _is_unlikely_a_word(text):
                yield text
    for part in re.split(r"[\s;,]+", value):  # of a cookie, or of a scheme such as Digest
        own = part.partition("=")[2].strip('"')
        if _is_unlikely_a_word(own):
            yield own


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        plain = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield plain
    yield plain.partition(":")[2]


@lru_cache(maxsize=64)
def _of_url(url: str) -> tuple[str, ...]:
    return tuple(_parts_of_url(url))


def _parts_of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        password = parts.password or parts.username or ""
    except ValueError:
        return
    yield unquote(password)
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    if parts.password:
        yield base64.b64encode(user.encode("utf-8", "replace")).decode().rstrip("=")
    for name, value in parse_qsl(parts.query):
        if _SECRET_NAMES.search(name) or name.lower() in ("sig", "code"):
            yield value


def _is_unlikely_a_word(value: str) -> bool:
    """Whether a value in a header of such a name is a secret rather than a word or two."""
    if len(value) < 8:
        return False
    plain = value.replace("-", "").replace(" ", "")
    return len(value) > 16 or not plain.isalpha() or not (plain.islower() or plain.istitle())
