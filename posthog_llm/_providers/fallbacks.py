"""Which of the models that a request lists responded: that one is charged.

https://openrouter.ai/docs/guides/routing/model-fallbacks: "priced using the model that was
ultimately used", https://vercel.com/docs/ai-gateway/models-and-providers/model-fallbacks
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .._narrowing import is_list, is_mapping
from .._record import RequestFacts
from .gateways import ROWS
from .model_name import undated

_PATHS = {row.dialect or row.provider: row.fallbacks for row in ROWS if row.fallbacks}


def responded(request: RequestFacts, served: str | None, service: str) -> str | None:
    """Return the model that responded in place of the requested one; `None`: the latter did.

    It is named as the request lists it: a service may report another spelling, for which there is
    no price.
    """
    listed = [*_listed(request.parameters, service)]
    if not listed or not served:
        return None
    names = [request.model, *listed] if request.model else listed
    for same in (str.lower, _variant, _plain, _words):
        if found := _first(names, served, same):
            return None if found == request.model else found
    kin = [name for name in names if _author(name) == _author(served)]
    if request.model in kin:
        return None  # a spelling of its own
    return kin[0] if len(kin) == 1 else served


def _listed(parameters: Any, service: str) -> Iterator[str]:
    for path in _PATHS.get(service, ()):
        found = parameters
        for name in path:
            found = found.get(name) if is_mapping(found) else None
        yield from (name for name in (found if is_list(found) else ()) if isinstance(name, str))


def _first(names: list[str], served: str, same: Callable[[str], Any]) -> str | None:
    return next((name for name in names if same(name) == same(served)), None)


def _variant(name: str) -> str:
    """Return a model's name without its date: `:free` and the like have prices of their own."""
    base, colon, variant = name.lower().partition(":")
    return undated(base) + colon + variant


def _plain(name: str) -> str:
    """Return a model's name without its author, its variant (`:free`) and its date."""
    return undated(name.lower().rpartition("/")[2].partition(":")[0])


def _words(name: str) -> list[str]:
    """OpenRouter serves `claude-4.5-sonnet-20250929` for `claude-sonnet-4.5`."""
    return sorted(re.split(r"[-.]", _plain(name)))


def _author(name: str) -> str:
    return name.lower().partition("/")[0]
