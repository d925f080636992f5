"""The direction of the arrows: a room imports only rooms to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "posthog_llm"
ROOMS = [
    {"exchange", "faults", "checks", "encoding", "media", "running", "settings"},
    {"record"},
    {"context", "privacy", "providers", "sampling"},
    {"identity"},
    {"observe", "event"},
    {"delivery"},
    {"instrumentation", "manual", "propagation", "tracing"},
    {"feedback"},
    {"openai", "anthropic", "litellm", "testing", "__init__"},
    {"demo"},
    {"cli"},
]
AWAITING = ("destinations", "propagation", "running")  # what they wrap is async itself
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (level, dotted name) of everything a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [(node.level, f"{node.module or ''}.{a.name}".strip(".")) for a in node.names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    room = room_of(path)
    depth = len(path.relative_to(PACKAGE).parts)
    for level, name in imports(path):
        if level == depth and level:
            target = name.split(".")[0]
            target = target if target in RANK else "__init__"
            assert target == room or RANK[target] < RANK[room], f"{room} imports {target}"
        if level == 0:
            package = name.split(".")[0]
            assert package not in ("httpx", "httpx2")
            assert package not in ("openai", "anthropic") or room == package
            assert package != "posthog" or room in ("delivery", "demo")


def test_property_names_are_written_in_event_alone() -> None:
    for path in FILES:
        if room_of(path) not in ("event", "cli", "testing"):
            assert '"$ai_' not in path.read_text(), path


def test_files_and_functions_stay_short() -> None:
    for path in FILES:
        if room_of(path) == "testing":
            continue
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}:{node.name}"
                assert len(node.args.args + node.args.kwonlyargs) <= 7, f"{path}:{node.name}"


def test_await_is_written_in_observe_alone() -> None:
    for path in FILES:
        awaits = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Await)]
        # `AsyncPosthog.flush` must be awaited where the client is wrapped.
        assert not awaits or room_of(path) == "observe" or path.stem in AWAITING, path
