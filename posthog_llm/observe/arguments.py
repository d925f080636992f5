"""The `posthog_*` arguments: their names, their checks, and how they travel with a call."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..checks import checked
from ..exchange import Arguments

PREFIX = "posthog_"
NAMES = {PREFIX + f.name: f.name for f in fields(Arguments)}
_NAMES = frozenset(NAMES)
CARRIER = "posthog_llm.call"
"""Key under which arguments ride in a request's query options, and a call in its extensions.

The query options are the one thing that every helper of every SDK version (stream managers,
tool runners, raw accessors) hands on untouched. The seam takes it out again.
"""


def peel(kwargs: dict[str, Any]) -> Arguments | None:
    """Take the `posthog_*` arguments out of `kwargs`; `None` when there are none.

    An unknown name is left in, so that the SDK's own method names it in a `TypeError`.
    Raises `TypeError` for a value of the wrong type.
    """
    if _NAMES.isdisjoint(kwargs):
        return None
    found = {name: kwargs.pop(name) for name in list(kwargs) if name in _NAMES}
    return Arguments(**{NAMES[n]: checked(n, NAMES[n], value) for n, value in found.items()})


def carry(kwargs: dict[str, Any], arguments: Arguments) -> None:
    """Put `arguments` into the query options of an SDK method's `kwargs`."""
    kwargs["extra_query"] = {**(kwargs.get("extra_query") or {}), CARRIER: arguments}


def unload(options: Any) -> Any:
    """Take the carried value out of an SDK's request options; `None` when there is none.

    The caller's own mapping is left as it is.
    """
    params = options.params
    if not params or CARRIER not in params:
        return None
    options.params = {key: value for key, value in params.items() if key != CARRIER}
    return params[CARRIER]
