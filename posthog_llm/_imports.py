"""Modules that the program has imported: looked at, and never imported here.

An import takes a while, and what it makes is in `sys.modules` from its first line on. Whoever
touches the attributes of a half-made module, in another thread, fails.
"""

from __future__ import annotations

import sys
from types import ModuleType


def imported(name: str) -> ModuleType | None:
    """Return a module, by its full name, once it and the packages around it are whole."""
    module = sys.modules.get(name)
    if module is None or _is_half_made(module):
        return None
    package = name.rpartition(".")[0]
    while package:
        if (around := sys.modules.get(package)) is not None and _is_half_made(around):
            return None
        package = package.rpartition(".")[0]
    return module


def _is_half_made(module: ModuleType) -> bool:
    # What Python's own `import` asks, before it waits for another thread's; there is no public
    # way. A module that was put there by hand has no spec, or one that says nothing of it.
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True
