"""The SDKs' own definitions, read as text: modules, their classes, and what names stand for."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SDKS = ("openai", "anthropic")
RESPONSES = ("WithRawResponse", "WithStreamingResponse", "WithStreamedResponse")
Function = ast.FunctionDef | ast.AsyncFunctionDef
RESOURCES = {"SyncAPIResource", "AsyncAPIResource"}


@dataclass(frozen=True)
class Name:
    """What a name of a module stands for: another module, or something of one."""

    module: str
    name: str | None = None

    def as_(self, local: str) -> str:
        given = self.name or self.module
        return given if given == local else f"{given} as {local}"


class Source:
    """A module of the SDK, as text."""

    def __init__(self, module: str) -> None:
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        self.module = module
        self.package = spec.parent or ""
        self.tree = ast.parse(Path(spec.origin).read_text())
        self.classes = {n.name: n for n in self.tree.body if isinstance(n, ast.ClassDef)}
        self.names = dict(self._imported())
        self.defined = {
            target.id
            for statement in self.tree.body
            for target in getattr(statement, "targets", [getattr(statement, "target", None)])
            if isinstance(target, ast.Name)
        }

    def _imported(self) -> Iterator[tuple[str, Name]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or module, Name(module)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.util.resolve_name(
                    "." * node.level + (node.module or ""), self.package
                )
                for alias in node.names:
                    found = Name(module, alias.name)
                    if is_module(f"{module}.{alias.name}"):
                        found = Name(f"{module}.{alias.name}")
                    yield alias.asname or alias.name, found

    def find(self, node: ast.AST | None) -> Class | None:
        """Return the class that an expression names, if it is one of the SDK's."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self.names.get(node.value.id)
            return class_of(module.module, node.attr) if module and not module.name else None
        return class_of(self.module, node.id) if isinstance(node, ast.Name) else None

    def used(self, node: ast.AST) -> Iterator[Name]:
        """Return what the names of an annotation stand for."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in self.names:
                yield self.names[part.id]
            elif isinstance(part, ast.Name) and part.id in {*self.classes, *self.defined}:
                yield Name(self.module, part.id)
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module = self.names.get(part.value.id)
                if module is not None and module.name is None:
                    yield Name(module.module, part.attr)


@dataclass(frozen=True)
class Class:
    """A class of the SDK, where it is defined."""

    source: Source
    node: ast.ClassDef

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def wraps_responses(self) -> bool:
        """Whether it stands behind `with_raw_response` or `with_streaming_response`."""
        return self.name.endswith(RESPONSES)

    @property
    def is_changed(self) -> bool:
        """Whether ours differs from it."""
        bases = {base.id for base in self.node.bases if isinstance(base, ast.Name)}
        is_resource = not bases.isdisjoint(RESOURCES)
        return self.wraps_responses or is_resource or any(base.is_changed for base in self.bases)

    @property
    def bases(self) -> list[Class]:
        """Its own bases, as far as they are the SDK's classes."""
        return [found for base in self.node.bases if (found := self.source.find(base))]

    def functions(self) -> dict[str, list[Function]]:
        return functions(self.node)


def functions(cls: ast.ClassDef) -> dict[str, list[Function]]:
    """Return the functions of each name in a class: several where there are overloads."""
    found = defaultdict(list)
    for node in cls.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name].append(node)
    return found


@functools.cache
def is_module(name: str) -> bool:
    if name.partition(".")[0] not in SDKS:
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


source = functools.cache(Source)


@functools.cache
def class_of(module: str, name: str) -> Class | None:
    """Find a class where it is defined, through the modules that hand it on."""
    here = source(module)
    if name in here.classes:
        return Class(here, here.classes[name])
    found = here.names.get(name)
    if found is None or found.name is None or found.module.partition(".")[0] not in SDKS:
        return None
    return class_of(found.module, found.name)


class Oldest:
    """The oldest SDKs that are supported, in a directory: what names they have."""

    def __init__(self, directory: Path) -> None:
        for sdk in SDKS:
            if not (directory / sdk).is_dir():
                raise FileNotFoundError(f"{directory} has no {sdk} in it")
        self._directory = directory
        self.has = functools.cache(self._has)

    def _has(self, name: Name) -> bool:
        """Tell whether a name that a module of the newest SDK uses stands for something."""
        if name.module.partition(".")[0] not in SDKS:
            return not name.module.startswith("httpx2")
        path = self._directory / Path(*name.module.split("."))
        found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
        if name.name is None or not found:
            return bool(found)
        return name.name in self._names(found[0]) or self._has(Name(f"{name.module}.{name.name}"))

    @staticmethod
    @functools.cache
    def _names(file: Path) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
        return found


def type_variable(name: Name) -> ast.Assign | None:
    """Return the definition of a type variable of the SDK; `None` for anything else."""
    if name.name is None or name.module.partition(".")[0] not in SDKS:
        return None
    for node in source(name.module).tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node).startswith(f"{name.name} = TypeVar("):
            return node
    return None
