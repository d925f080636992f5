"""A drop-in module for an SDK: our clients, and all other names of the SDK."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def drop_in_for(sdk: ModuleType, name: str) -> None:
    """Make the module `name` a drop-in for `sdk`: names that it does not define are the SDK's.

    Its class is replaced, which is Python's way to intercept assignments to a module:
    `openai.api_key` is a setting that the SDK itself reads.
    https://docs.python.org/3/reference/datamodel.html#customizing-module-attribute-access
    """
    module = sys.modules[name]
    own, theirs = frozenset(vars(module)), frozenset(vars(sdk))

    class DropIn(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") and name not in sdk.__all__:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            return getattr(sdk, name)

        def __setattr__(self, name: str, value: Any) -> None:
            is_theirs = name in theirs or hasattr(sdk, name)
            if name in own or name.startswith("_") or not is_theirs:
                super().__setattr__(name, value)
            else:
                setattr(sdk, name, value)

        def __delattr__(self, name: str) -> None:
            if name in vars(self):
                super().__delattr__(name)
            else:
                delattr(sdk, name)

        def __dir__(self) -> list[str]:
            return sorted({*dir(sdk), *vars(self)})

    module.__class__ = DropIn
