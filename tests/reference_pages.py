"""Writes `docs/reference` from signatures and docstrings, as text that reads by itself.

python -m tests.reference_pages
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

import posthog_llm

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
_WIDEST = 88
"""Characters of a signature that stands on one line."""
_CLIENTS = """\
The clients themselves are in `posthog_llm.openai`, `posthog_llm.anthropic`, `posthog_llm.gemini`
and `posthog_llm.claude_agents`: each is the SDK's class with the [arguments](types.md) of ours.
`posthog_llm.__version__` is the installed version.
"""
_PLAIN = ("object", "Protocol", "TypedDict", "Spans", "_SpanProcessor")
_INTERNAL = ("note_result", "stopping")
"""What has a public name for other modules of ours alone."""
TESTING = (
    *("ScriptedProvider", "Reply", "Received"),
    *("PostHogReceiver", "MemorySink", "CapturedEvent", "reset"),
)


def written() -> dict[Path, str]:
    """Return each page as it is to be."""
    package = griffe.load("posthog_llm", search_paths=[ROOT], resolve_aliases=True)
    public = {*posthog_llm.__all__} - {"__version__"}
    names = sorted(public, key=lambda name: (name.lower(), name))
    found = [_found(package, name) for name in names]
    others = ("litellm.PostHogLogger", "langchain.CallbackHandler", "otel.SpanProcessor")
    callbacks = [package[name] for name in others]
    arguments = package["types"]
    testing = [package["testing"][name].final_target for name in TESTING]
    classes = [c for c in arguments.members.values() if not c.is_alias and c.is_class]
    return {
        REFERENCE / "posthog_llm.md": _page("posthog_llm", _CLIENTS, [*found, *callbacks]),
        REFERENCE / "types.md": _page("posthog_llm.types", _docstring(arguments), classes),
        REFERENCE / "testing.md": _page(
            "posthog_llm.testing", _docstring(package["testing"]), testing
        ),
    }


def _found(package: griffe.Object, name: str) -> griffe.Object:
    """Return what a public name stands for."""
    member = package[name]
    return member.final_target if member.is_alias else member


def _page(title: str, intro: str, members: list[griffe.Object]) -> str:
    parts = [f"# {title}", intro, *(part for one in members for part in _shown(one))]
    text = "\n\n".join(part.strip("\n") for part in parts if part)
    return f"<!-- python -m tests.reference_pages -->\n{text}\n"


def _shown(one: griffe.Object) -> Iterator[str]:
    yield f"## {one.name}"
    if one.is_class:
        bases = [str(base) for base in one.bases if str(base) not in _PLAIN]
        made = one.members.get("__init__")
        if bases and not made:
            yield f"With all of `{'`, `'.join(bases)}`, and:"
        if made:
            yield _signature(one.name, made)
    else:
        yield _signature(one.name, one)
    yield _docstring(one)
    if one.is_class:
        yield from _members(one)


def _members(one: griffe.Object) -> Iterator[str]:
    inherited = () if one.name == "PostHogLogger" else one.inherited_members.values()
    members = [*one.members.values(), *(member.final_target for member in inherited)]
    public = [m for m in members if m.docstring and not m.name.startswith("_")]
    public = [m for m in public if m.name not in _INTERNAL]
    fields = [m for m in public if not m.is_function]
    if fields:
        yield "\n".join(f"- {_field(field)}" for field in fields)
    for method in public:
        if method.is_function:
            yield f"### {one.name}.{method.name}"
            yield _signature(method.name, method)
            yield _docstring(method)


def _field(field: griffe.Object) -> str:
    kind = f": {field.annotation}" if field.annotation else ""
    said = " ".join(_docstring(field).split())
    return f"`{field.name}{kind}`: {said}"


def _signature(name: str, function: griffe.Object) -> str:
    text = function.signature(name=name).replace("= _KEEP", "= ...")
    text = text.removesuffix(" -> None") if function.name == "__init__" else text
    if len(text) > _WIDEST:
        head, inside, end = re.fullmatch(r"([^(]*\()(.*)(\).*?)", text).groups()  # type: ignore[union-attr]
        lines = "".join(f"    {part},\n" for part in _parts(inside))
        text = f"{head}\n{lines}{end}"
    return f"```py\n{text}\n```"


def _parts(parameters: str) -> Iterator[str]:
    """Cut a list of parameters at the commas that are inside of nothing."""
    depth = start = 0
    for at, sign in enumerate(parameters):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            yield parameters[start:at].strip()
            start = at + 1
    yield parameters[start:].strip()


def _docstring(one: griffe.Object) -> str:
    return one.docstring.value if one.docstring else ""


if __name__ == "__main__":
    for page, text in written().items():
        page.write_text(text)
