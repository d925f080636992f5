"""The SDKs' own definitions, read as text: modules, their classes, and what names stand for."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from posthog_llm._providers.endpoints import endpoint_of

SDKS = ("openai", "anthropic")
RESPONSES = ("WithRawResponse", "WithStreamingResponse", "WithStreamedResponse")
Function = ast.FunctionDef | ast.AsyncFunctionDef
RESOURCES = {"SyncAPIResource", "AsyncAPIResource"}
HELPERS = {"parse", "stream", "thread", "tool_runner"}
"""Methods that run a model by another function or class, where theirs runs one itself."""


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


@dataclass(frozen=True, eq=False)
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
    def wraps_methods(self) -> bool:
        """Whether one that wraps responses has methods, and not only other such classes."""
        body = ast.unparse(self.functions()["__init__"][0])
        return "_wrapper(" in body

    @functools.cached_property
    def runs_model(self) -> frozenset[str]:
        """The methods that send to a path that runs a model, and the helpers beside them."""
        found = {name for name, nodes in self.functions().items() if _sends(nodes[-1])}
        for node in self.node.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                lender = self.source.find(node.value.value)
                if lender is not None and node.value.attr in lender.runs_model:
                    found.add(node.value.attr)
        helpers = HELPERS if found else {"results"} if self.name.endswith("Batches") else set()
        takers = {name for name, nodes in self.functions().items() if takes_query(nodes[-1])}
        return frozenset(found | helpers & takers)

    @functools.cached_property
    def is_changed(self) -> bool:
        """Whether ours differs from it: it runs a model, or leads to a class that does."""
        if self.wraps_responses:
            wrapped = self.functions()["__init__"][0].args.args[1].annotation
            found = self.source.find(wrapped)
            return found is not None and found.is_changed
        return bool(self.runs_model) or any(c.is_changed for c in (*self.bases, *self._parts()))

    def _parts(self) -> Iterator[Class]:
        for node in self.node.body:
            if isinstance(node, ast.FunctionDef) and is_property(node):
                found = self.source.find(node.returns)
            elif isinstance(node, ast.AnnAssign):
                found = self.source.find(node.annotation)
            else:
                continue
            if found is not None and not found.wraps_responses and found.node is not self.node:
                yield found

    @property
    def bases(self) -> list[Class]:
        """Its own bases, as far as they are the SDK's clients and resources."""
        found = [self.source.find(base) for base in self.node.bases]
        return [base for base in found if base is not None and base.name not in RESOURCES]

    def functions(self) -> dict[str, list[Function]]:
        return functions(self.node)


def functions(cls: ast.ClassDef) -> dict[str, list[Function]]:
    """Return the functions of each name in a class: several where there are overloads."""
    found = defaultdict(list)
    for node in cls.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name].append(node)
    return found


def is_property(node: Function) -> bool:
    return any(ast.unparse(decorator) == "cached_property" for decorator in node.decorator_list)


def takes_query(node: Function) -> bool:
    """Whether a public method takes query options, in which our arguments ride."""
    given = {argument.arg for argument in node.args.args + node.args.kwonlyargs}
    return "extra_query" in given and node.name[0] != "_" and node.name != "connect"


def _sends(node: Function) -> bool:
    """Whether a method's body sends to a path that runs a model."""
    return takes_query(node) and any(
        endpoint_of(call.func.attr[1:], path) is not None
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("_get", "_post")
        for path in _paths(call.args[0])
    )


def _paths(node: ast.expr) -> Iterator[str]:
    """Return the paths that an expression may be, with a letter for each thing that varies."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield re.sub(r"\{[^}]*\}", "x", part.value)


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
