"""What the table of services says of one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request to a gateway names the provider behind it."""

    where: str
    """`host`, `path`, `model`, or the name of a header; of the answer's, after a `<`."""
    pattern: re.Pattern[str]
    """Matches the whole of it. Its group `provider` is a name, `url` an address, and `model`
    what is left of the model's name without them."""
    says: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One service."""

    provider: str | None
    """As PostHog's price book names it; `None`: a gateway that sells nothing of its own."""
    hosts: tuple[str, ...] = ()
    """Host names that it is known by; those below them as well. A `*` is one label, or several."""
    name: str = ""
    """Its name, where that is not the provider's."""
    also: tuple[str, ...] = ()
    """What gateways and LiteLLM call the provider."""
    classes: tuple[str, ...] = ()
    """Classes of clients, less `Async`, that stand for it whatever the host."""
    path: re.Pattern[str] | None = None
    """Path of the base URL, where the host alone does not suffice."""
    headers: tuple[str, ...] = ()
    """Headers of a request, or after a `<` of an answer, by which it is known on hosts that
    nothing is known of."""
    port: int = 0
    """Port of a local engine, on this machine or in a private network."""
    server: str = ""
    """What a local engine's answers have as header `server`."""
    places: tuple[Place, ...] = ()
    """Where the provider stands; the first that names one wins."""
    ran: str = ""
    """A header of the answer that names the model that was run."""
    configured: str = ""
    """A header of the request that lets the gateway's own configuration choose the model."""
    dialect: str | None = None
    """Whose usage it reports, where that is not the provider's."""
    cost: tuple[str, ...] = ()
    """Path in the answer to what it charged, or a header's name after a `<`."""
    also_cost: tuple[tuple[str, ...], ...] = ()
    """Where it stands in answers of other kinds."""
    per_dollar: int = 1
    """Units of that cost to a dollar."""
    cached: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """Headers of an answer from the gateway's own cache, and what they all have then."""
    priced: Literal["requested", "served"] | None = None
    """Which model name is priced; `None`: the requested one, the served one on unknown hosts."""
    sells_claude: bool = False
    """Whether a Claude that is asked for is a Claude; elsewhere that name is an alias."""
    respelled: tuple[str, str] | None = None
    """Names of models that PostHog's book spells otherwise: a pattern, and what stands there."""
    reports_unasked: bool = False
    """Whether its streams report usage without `stream_options.include_usage`."""

    @property
    def title(self) -> str:
        """What the documentation calls it."""
        return self.name or self.provider or ""

    @property
    def is_local(self) -> bool:
        """Whether it is an engine of the caller's own: nobody charges for its tokens."""
        return bool(self.port or self.server)
