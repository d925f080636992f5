"""Looks up modules that the program has imported, and never imports any.

An import takes a while, and its module is in `sys.modules` from the first line on. Accessing the
attributes of a partially initialized module from another thread fails.
"""

from __future__ import annotations

import sys
from types import ModuleType

_whole: dict[str, ModuleType] = {}
"""Modules found before: one that is fully initialized stays so."""


def imported(name: str) -> ModuleType | None:
    """Return a module by its full name, once it and its parent packages are fully initialized."""
    module = sys.modules.get(name)
    if module is _whole.get(name):  # most often: `None`, or known
        return module
    if module is None or _is_half_made(module):
        return None
    package = name.rpartition(".")[0]
    while package:
        if (around := sys.modules.get(package)) is not None and _is_half_made(around):
            return None
        package = package.rpartition(".")[0]
    _whole[name] = module
    return module


def _is_half_made(module: ModuleType) -> bool:
    # Python's own `import` checks this before it waits for another thread's import; there is no
    # public way. A module that was added manually has no spec, or a spec without this attribute.
    try:
        return module.__spec__._initializing is True  # type: ignore[union-attr]
    except AttributeError:
        return False
