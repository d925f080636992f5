"""The rows of the service table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request to a gateway names the provider behind it."""

    where: str
    """`host`, `path`, `model`, or a header name; after a `<`, a response header."""
    pattern: re.Pattern[str]
    """Matches the complete text. The group `provider` is a name, `url` an address, and `model` the
    rest of the model's name without them."""
    says: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One service."""

    provider: str | None
    """As in PostHog's price book; `None`: a gateway that sells no models of its own."""
    hosts: tuple[str, ...] = ()
    """Its host names, subdomains included. A `*` stands for one or more labels."""
    name: str = ""
    """Its name, if it is not the provider's."""
    also: tuple[str, ...] = ()
    """Other names for the provider, used by gateways and LiteLLM."""
    classes: tuple[str, ...] = ()
    """Client classes, without `Async`, that imply the provider whatever the host."""
    path: re.Pattern[str] | None = None
    """Path of the base URL, if the host alone is not enough."""
    headers: tuple[str, ...] = ()
    """Request headers, or response headers after a `<`, that identify it on unknown hosts."""
    port: int = 0
    """Port of a local engine, on this machine or in a private network."""
    server: str = ""
    """The `server` header in a local engine's responses."""
    places: tuple[Place, ...] = ()
    """Where the provider is named; the first match wins."""
    ran: str = ""
    """A response header that names the model that ran."""
    configured: str = ""
    """A request header that lets the gateway's own configuration choose the model."""
    dialect: str | None = None
    """The provider whose usage format it reports in, if it is another one."""
    cost: tuple[str, ...] = ()
    """Path to the cost in a response, or a header name after a `<`."""
    also_cost: tuple[tuple[str, ...], ...] = ()
    """Paths to the cost in other kinds of responses."""
    per_dollar: int = 1
    """Units of that cost in one dollar."""
    cached: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """Headers of a response from the gateway's own cache, and the patterns they all match."""
    priced: Literal["requested", "served"] | None = None
    """Which model name is priced; `None`: the requested one, the served one on unknown hosts."""
    sells_claude: bool = False
    """Whether a requested Claude model is really one; elsewhere that name is an alias."""
    fallbacks: tuple[tuple[str, ...], ...] = ()
    """Paths in a request to lists of models that may respond in place of the requested one."""
    respelled: tuple[str, str] | None = None
    """Model names that PostHog's price book spells differently: a pattern and its replacement."""
    reports_unasked: bool = False
    """Whether its streams report usage without `stream_options.include_usage`."""

    @property
    def title(self) -> str:
        """The name in the documentation."""
        return self.name or self.provider or ""

    @property
    def is_local(self) -> bool:
        """Whether it is the caller's own engine, whose tokens are free of charge."""
        return bool(self.port or self.server)
