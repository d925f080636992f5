"""The public names and their signatures: a change to them must be told in the changelog.

python -m tests.test_public_api    # accept what has changed, once CHANGELOG.md tells of it
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import posthog_llm
from posthog_llm import testing, types

ROOT = Path(__file__).parent.parent
HELD = Path(__file__).parent / "public_api.txt"
ACCEPT = "python -m tests.test_public_api"
CHANGELOG = ROOT / "CHANGELOG.md"


def public() -> str:
    """Return a line for each public name, with its signature or its type."""
    lines = [*_of(posthog_llm), *_of(testing), *_types(), *_statements()]
    return "".join(f"{line}\n" for line in lines)


def _of(module: Any) -> Iterator[str]:
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if name != "__version__":
            yield from _described(f"{module.__name__}.{name}", value)


def _described(name: str, value: Any) -> Iterator[str]:
    yield f"{name}{inspect.signature(value)}"
    if inspect.isclass(value):
        for member in sorted(dir(value)):
            found = inspect.getattr_static(value, member)
            if member[0] != "_" and (inspect.isfunction(found) or isinstance(found, classmethod)):
                yield f"{name}.{member}{inspect.signature(getattr(value, member))}"
        for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
            yield f"{name}.{field.name}: {field.type}"


def _types() -> Iterator[str]:
    for name, value in sorted(vars(types).items()):
        if name.endswith("Arguments"):
            for argument, kind in value.__annotations__.items():
                yield f"posthog_llm.types.{name}.{argument}: {kind.__forward_arg__}"


def _statements() -> Iterator[str]:
    """Return the classes that stand in modules which need an SDK."""
    modules = ("gemini/__init__", "langchain", "litellm", "openai/__init__", "otel")
    for module in ("anthropic/__init__", "claude_agents", *modules):
        tree = ast.parse((ROOT / "posthog_llm" / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                yield f"posthog_llm.{module.partition('/')[0]}.{node.name}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def held() -> tuple[str, str, str]:
    """Return the names, the changelog's digest when they were accepted, and the seal of both."""
    head, _, names = HELD.read_text().partition("\n")
    _, _, changelog, _, seal = head.split()
    return names, changelog, seal


def test_public_names_and_signatures() -> None:
    names, changelog, seal = held()
    assert public() == names, "tell it in CHANGELOG.md, then: python -m tests.test_public_api"
    assert seal == digest(names + changelog), (
        "do not edit it by hand: python -m tests.test_public_api"
    )


def accept() -> int:
    names, changelog = public(), digest(CHANGELOG.read_text())
    if HELD.exists():
        before, properties, _ = held()
        if names == before:
            return 0
        if properties == changelog:
            print("CHANGELOG.md does not tell of the change yet", file=sys.stderr)
            return 1
    HELD.write_text(f"# changelog {changelog} seal {digest(names + changelog)}\n{names}")
    return 0


if __name__ == "__main__":
    raise SystemExit(accept())
