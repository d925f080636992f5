"""Which of two model names PostHog prices correctly: the requested or the served one."""

from __future__ import annotations

import re

from .services import PROVIDERS

_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
_APART = re.compile(r"(?:^|/)gpt-(?:4o-2024-05-13|3\.?5-turbo-(?:0301|0613))$")
"""Dated names that PostHog prices differently from the name without the date."""
_CLAUDE = re.compile(r"(?:^|[/.@])claude", re.IGNORECASE)
_NO_CLAUDE = {row.provider for row in PROVIDERS if not row.sells_claude}
_PRICED = {row.provider: row.priced for row in PROVIDERS if row.priced}
_RESPELLED = {row.provider: row.respelled for row in PROVIDERS if row.respelled}
_VERSIONED = re.compile(r"^(text-embedding-ada-002)-v\d+$")
"""Served names whose version has no separate price."""
_PROFILE = re.compile(
    r"application-inference-profile|^(?:openrouter/|@preset/|~|dynamic/|tunedModels/|endpoints/)|^auto$"
)
"""Names that stand for any model: a cloud's profiles, tuned ones, and routers' routes and presets.
"""


def priced_name(
    requested: str | None,
    served: str | None,
    provider: str,
    *,
    aliases: bool = False,
    fast: bool = False,
) -> str | None:
    """Return the name to send as the event's model.

    `aliases`: the requested name may be one that only a gateway knows.
    `fast`: PostHog's price book lists Anthropic's fast mode as a separate model.

    PostHog's price book has the requested name if the served one is a dated snapshot of it. It has
    the served name if the request named a deployment, a profile, an alias or nothing, or named a
    Claude model to a provider that does not sell Claude.
    """
    if not requested or not served:
        name = requested or served
    else:
        first = _PRICED.get(provider) or ("served" if aliases else "requested")
        name = served if _is_alias(requested, served, provider, first == "served") else requested
    if not name:
        return None
    name = _VERSIONED.sub(r"\1", name)
    if other := _RESPELLED.get(provider):
        name = re.sub(*other, name)
    if fast:
        return f"{undated(name).removesuffix('-fast')}-fast"
    # PostHog matches by containment: a dated gpt-5 contains `gpt-5-2`, which is gpt-5.2.
    return undated(name) if re.search(r"(?:^|/)gpt-5(?![.\d])", name) else name


def _is_alias(requested: str, served: str, provider: str, may_be: bool) -> bool:
    """Whether the served name is the real one; `may_be`: the requested one may be any word."""
    if undated(served) == undated(requested):  # a deployment's name may have another date
        return may_be and (_APART.search(served) or _APART.search(requested)) is not None
    if may_be or _PROFILE.search(requested):
        return True
    if _CLAUDE.search(requested) is None or _CLAUDE.search(served):
        return False
    return provider in _NO_CLAUDE


def batch_name(name: str | None) -> str | None:
    """Return the name under which PostHog's price book lists a Claude model's batch price."""
    return f"{undated(name)}:batch" if name else None


def undated(name: str) -> str:
    """Return a model's name without its date."""
    return _DATE.sub("", name)
