"""What type checkers make of our client of Gemini, beside Google's SDK."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .test_typing import HERE, PACKAGE, run

pytest.importorskip("google.genai", reason="Google's SDK is not installed")
pytest.importorskip("PIL", reason="the SDK's own types need Pillow")
SAMPLES = ("good_gemini.py", "bad_gemini.py")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A user's project of the samples."""
    for name in SAMPLES:
        (tmp_path / name).write_text((HERE / name).read_text())
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def marked() -> set[tuple[str, int]]:
    """Return file and line of what is wrong in the samples."""
    lines = enumerate((HERE / "bad_gemini.py").read_text().splitlines(), 1)
    return {("bad_gemini.py", number) for number, line in lines if line.endswith("  # wrong")}


def test_mypy(samples: Path) -> None:
    assert len(marked()) > 5
    cache = ("--python-version=3.10", f"--cache-dir={PACKAGE.parent / '.mypy_cache'}")
    strict = ("mypy", "--strict", "--config-file=", *cache, "--output=json", *SAMPLES)
    found = [json.loads(line) for line in run(*strict, directory=samples).splitlines()]
    wrong = {(m["file"], m["line"]): m["message"] for m in found if m["severity"] == "error"}
    assert wrong.keys() == marked(), wrong


def test_pyright(samples: Path) -> None:
    command = ("pyright", "--outputjson", "--pythonpath", sys.executable)
    found = json.loads(run(*command, directory=samples))["generalDiagnostics"]
    wrong = {
        (Path(m["file"]).name, m["range"]["start"]["line"] + 1): m["message"]
        for m in found
        # The SDK's own type of a message is not known to strict checkers.
        if m["severity"] == "error" and "list[Unknown] | Unknown" not in m["message"]
    }
    assert wrong.keys() == marked(), wrong
