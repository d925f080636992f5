"""Which provider serves a request: lookups in the service table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from .gateways import GATEWAYS, ROWS
from .row import Place, Row
from .services import LOCAL, PROVIDERS

_BY_HOST: dict[str, list[Row]] = defaultdict(list)
_BY_PATTERN: list[tuple[re.Pattern[str], Row]] = []
for _row in ROWS:
    for _host in _row.hosts:
        if "*" in _host:
            _glob = re.escape(_host).replace(r"\*", r"[\w.-]+")
            _BY_PATTERN.append((re.compile(rf"(?:.+\.)?{_glob}"), _row))
        else:
            _BY_HOST[_host].append(_row)
_CLASSES = {name: row.provider for row in PROVIDERS for name in row.classes}
_NAMES = {name: row.provider for row in ROWS for name in row.also if row.provider}
_KNOWN = {row.provider: row for row in (*LOCAL, *PROVIDERS) if row.provider}
_BY_HEADER = [row for row in GATEWAYS if row.headers]
_AREAS = {"us": "us", "eu": "europe", "global": "global"}
_NEAR = re.compile(r"[^.]+|.+\.(?:local|localhost|lan|internal|home\.arpa)")
"""Hosts that are this machine, its containers or its local network."""
_SHARED = ip_network("100.64.0.0/10")
"""Addresses used by networks such as Tailscale's; they are never on the public Internet."""
_ENGINES = {row.provider for row in LOCAL}
_PLACE = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\])(?::\d{0,5})?")
"""A host and its port. Anything else may be a password with a `/` in it."""
_NOWHERE = SplitResult("", "", "", "", "")
_HOSTED = re.compile(r"[:-]cloud$")
"""Models that a local Ollama runs in Ollama's cloud: https://docs.ollama.com/cloud"""


@dataclass(frozen=True, slots=True)
class Route:
    """The provider that a request reached, and its name for the model."""

    provider: str
    model: str | None = None
    """The requested model's name at the provider behind a gateway, if it differs."""
    dialect: str | None = None
    """The provider whose usage format applies, if it is another one."""
    aliases: bool = False
    """Whether the requested name may be an alias that only this gateway knows."""
    is_local: bool = False
    """Whether the caller's own engine answered, which is free of charge."""
    gateway: Row | None = None
    """The gateway, if only the response may name the provider behind it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a request and its response reveal about where they went."""

    url: str
    model: str | None = None
    sent: Mapping[str, Any] | None = None
    """Headers of the request."""
    got: Mapping[str, Any] | None = None
    """Headers of the response."""

    def header(self, name: str) -> str:
        """Return a request header; after a `<`, a response header."""
        headers = self.got if name[0] == "<" else self.sent
        value = headers.get(name.removeprefix("<")) if headers else None
        return value if isinstance(value, str) else ""


def route_of(seen: Seen, unknown: str = "openai") -> Route:
    """Return the provider that a request reached; `unknown` if neither host nor headers name one.

    A proxy's host reveals nothing: name the provider with `posthog_provider_override`.
    """
    parts = _split(seen.url) or _NOWHERE
    host = (parts.hostname or "").lower().removesuffix(".")
    row = _row_of(host, parts) or _row_by_header(seen)
    if row is not None:
        return _through(row, seen, host, parts.path, unknown)
    engine = _engine(host, parts, seen)
    if engine is None:
        return Route(unknown, aliases=True)
    hosted = _HOSTED.search(seen.model or "")
    return Route(engine.provider or unknown, is_local=not hosted)


def provider_of(base_url: str, unknown: str = "openai") -> str:
    """Return the provider behind `base_url`, as far as the address alone reveals it."""
    return route_of(Seen(base_url), unknown).provider


def _row_of(host: str, parts: SplitResult) -> Row | None:
    labels = host.split(".")
    for start in range(len(labels) - 1):
        for row in _BY_HOST.get(".".join(labels[start:]), ()):
            if row.path is None or row.path.fullmatch(parts.path):
                return row
    return next((row for pattern, row in _BY_PATTERN if pattern.fullmatch(host)), None)


def _row_by_header(seen: Seen) -> Row | None:
    if not seen.sent and not seen.got:
        return None
    return next((row for row in _BY_HEADER if any(map(seen.header, row.headers))), None)


def _through(row: Row, seen: Seen, host: str, path: str, unknown: str) -> Route:
    """Follow a row to the provider that it names, or that the request names."""
    texts = {"host": host, "path": path, "model": seen.model or ""}
    provider = model = None
    is_local = False
    for place in row.places:
        text = texts.get(place.where)
        text = seen.header(place.where) if text is None else text
        named, name = _named(place, text)
        model = model or name
        if provider is None and named is not None:
            provider = named
            is_local = _reaches_engine(provider, place, text, host)
    # Not only up to the first: the model's own name stands in a place of its own.
    run = _run(row, seen) or model
    found = provider or row.provider
    chosen = bool(row.configured and seen.header(row.configured))
    return Route(
        provider=found or unknown,
        model=run,
        dialect=row.dialect,
        aliases=row.priced == "served" or found is None or chosen,
        is_local=is_local and not _HOSTED.search(run or seen.model or ""),
        gateway=row if row.places and (provider is None or chosen) else None,
    )


def _reaches_engine(provider: str, place: Place, text: str, host: str) -> bool:
    """Whether a gateway forwards to a local engine: by its address, or in its own network."""
    if provider not in _ENGINES:
        return False
    return route_of(Seen(text)).is_local if "url" in place.pattern.groupindex else _is_near(host)


def _run(row: Row, seen: Seen) -> str | None:
    """Return the model that ran according to the response headers, without a provider prefix."""
    name = seen.header(f"<{row.ran}") if row.ran else ""
    prefix, slash, rest = name.partition("/")
    return (rest if slash and _spelled(prefix) else name) or None


def reported_provider(gateway: Row, upstream: str | None, served: str | None) -> str | None:
    """Return the provider named in a gateway's response: in a field, or in the model's name."""
    places = [place for place in gateway.places if place.where == "model"]
    found = [_spelled(upstream or ""), *(_named(place, served or "")[0] for place in places)]
    return next(filter(None, found), None)


def _named(place: Place, text: str) -> tuple[str | None, str | None]:
    """Return the provider at a place, if it is known, and the model's own name."""
    match = place.pattern.fullmatch(text)
    groups = match.groupdict() if match else {}
    if url := groups.get("url"):
        return provider_of(url, "") or None, None
    return _spelled(groups.get("provider") or ""), groups.get("model")


def _spelled(name: str) -> str | None:
    name = name.lower()
    return name if name in _KNOWN else _NAMES.get(name)


# -- local engines -------------------------------------------------------------------


def _engine(host: str, parts: SplitResult, seen: Seen) -> Row | None:
    server = seen.header("<server")
    near = _is_near(host)
    for row in LOCAL:
        if (row.server and row.server == server) or (
            near and row.port and row.port == _port(parts.netloc)
        ):
            return row
    return None


@lru_cache(maxsize=256)
def _is_near(host: str) -> bool:
    """Whether a host is this machine or in its private network."""
    try:
        address = ip_address(host)
        return address.is_private or address in _SHARED
    except ValueError:
        return _NEAR.fullmatch(host) is not None


def _port(netloc: str) -> int:
    digits = netloc.rpartition(":")[2]
    return int(digits) if digits.isdecimal() else 0


# -- names ---------------------------------------------------------------------------


@lru_cache(maxsize=256)
def reports_usage_unasked(base_url: str) -> bool:
    """Whether streams from `base_url` are known to report usage without being asked to."""
    row = _KNOWN.get(provider_of(base_url))
    return row is not None and row.reports_unasked


def provider_of_class(client: Any) -> str | None:
    """Return the provider that a client's class stands for; `None` means the host decides.

    Google's client is one class for both of its services.
    """
    if getattr(client, "vertexai", None) is True:
        return "vertex"
    return next((_CLASSES[name] for name in _names(client) if name in _CLASSES), None)


def _names(client: Any) -> Iterator[str]:
    return (cls.__name__.removeprefix("Async") for cls in type(client).__mro__)


def provider_named(name: str) -> str:
    """Return our name for a provider that LiteLLM, PostHog or a router names differently."""
    return _spelled(name) or name


def regional(provider: str, region: str | None) -> str:
    """Return the provider's name with its region, if PostHog has regional prices for it.

    https://cloud.google.com/vertex-ai/generative-ai/pricing: a region costs more than `global`.
    """
    if provider != "vertex" or not region:
        return provider
    area = next((a for start, a in _AREAS.items() if region.startswith(start)), None)
    return f"google-vertex-{area}" if area else provider


def bare_url(base_url: str) -> str | None:
    """Return scheme, host and path of a URL, without credentials, query or fragment.

    `None` if it is not a URL: then nothing tells a host in it from a password.
    """
    parts = _split(base_url)
    if parts is None or not parts.netloc:
        return None
    place = parts.netloc.rpartition("@")[2]
    has_port = ":" in place.rpartition("]")[2]
    if not _PLACE.fullmatch(place) or (has_port and "@" in parts.path):
        return None
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
