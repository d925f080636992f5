"""A module of ours that stands in for an SDK's: our clients, and all its other names."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def drop_in_for(
    sdk: ModuleType, own: dict[str, Any]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of the module whose names are `own`."""

    def find(name: str) -> Any:
        if name.startswith("__") and name not in sdk.__all__:
            raise AttributeError(f"module {own['__name__']!r} has no attribute {name!r}")
        return getattr(sdk, name)

    return find, lambda: sorted({*dir(sdk), *own})
