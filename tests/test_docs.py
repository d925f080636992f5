"""Documentation that drifts fails here: every code block runs, every property is described."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import pytest
from posthog import Posthog

import posthog_llm
from posthog_llm import _settings as settings
from posthog_llm import openai, testing
from posthog_llm._cli import main
from posthog_llm._observe.call_arguments import NAMES
from posthog_llm._observe.client_arguments import SETTINGS
from posthog_llm.testing import PostHogReceiver, ScriptedProvider

from .picture import details, events_of, title
from .test_processes import forks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
WITHOUT_EVENTS = ("settings", "testing", "web")
"""Pages whose blocks tell PostHog nothing, or have sinks of their own."""


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text())
    return [_after(code) if name == "diff" else code for name, code in found if name in languages]


def _after(diff: str) -> str:
    """Return what a change leaves."""
    lines = (line for line in diff.splitlines() if not line.startswith("-"))
    return "".join(f"{line[1:]}\n" for line in lines)


def example() -> str:
    """Return the README's example."""
    return blocks(ROOT / "README.md", "python")[0]


@pytest.fixture
def environment(
    provider: ScriptedProvider, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.forget()
    for name, value in {
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": provider.base_url,
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": provider.url,
        "GEMINI_API_KEY": "test-key",
        "GOOGLE_GEMINI_BASE_URL": provider.url,
        "POSTHOG_API_KEY": "phc_docs",
        "POSTHOG_HOST": receiver.url,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_runs(
    page: Path, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if page.stem in ("litellm", "from-litellm"):
        litellm = pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")
        monkeypatch.setattr(litellm, "callbacks", [])
    if page.stem == "gemini":
        pytest.importorskip("google.genai", reason="Google's SDK is not installed")
    monkeypatch.setenv("POSTHOG_API_KEY", f"phc_{page.stem}")
    handler = signal.getsignal(signal.SIGTERM)
    names: dict[str, Any] = {"client": openai.OpenAI()}
    found = blocks(page, "python", "diff")
    for code in found:
        code = code.replace("https://us.i.posthog.com", receiver.url)
        code = code.replace("/var/lib/app/posthog-spool", str(tmp_path))
        run = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(run, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    if "litellm" in page.stem:
        receiver.wait_for(2 if page.stem == "litellm" else 1)  # it calls back in threads of its own
    posthog_llm.flush()
    if isinstance(destination := names.get("posthog"), Posthog):
        destination.flush()  # what the end of the process would do
    signal.signal(signal.SIGTERM, handler)
    calls = any("create(" in code or "completion(" in code for code in found)
    assert (calls and page.stem not in WITHOUT_EVENTS) == bool(receiver.events)


@pytest.mark.usefixtures("environment")
def test_every_other_block_holds(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = (ROOT / "tests" / "test_gateway.py").read_text()
    for page in PAGES:
        assert set(dict(BLOCK.findall(page.read_text()))) <= {
            "python",
            "py",  # a signature
            "diff",
            "sh",
            "yaml",
            "text",
            "json",
            "sql",  # see test_queries.py
        }
        for code in blocks(page, "json"):
            json.loads(code)
        for line in "".join(blocks(page, "sh")).splitlines():
            _check_command(line)
        for code in blocks(page, "yaml"):
            assert all(line.strip() in gateway for line in code.splitlines()), page


def _check_command(line: str) -> None:
    """Run a command of ours; know a session of nox, and what pip is to install."""
    words = shlex.split(line)
    if words[:2] == ["posthog-llm", "spool"]:
        with tempfile.TemporaryDirectory() as directory:
            assert main([*words[1:3], directory]) == 0
            posthog_llm.configure(spool=None)
    elif words[0] == "posthog-llm":
        assert main(words[1:]) == 0
    elif words[0] == "nox":
        assert re.search(rf"^def {words[2]}\(", (ROOT / "noxfile.py").read_text(), re.M), line
    elif "venv" not in line:  # those two are what CI runs
        assert words[:2] == ["pip", "install"]
        extra = re.fullmatch(r"posthog-llm\[(\w+)\]", words[2])
        assert extra is not None, line
        assert f"\n{extra.group(1)} = [" in (ROOT / "pyproject.toml").read_text()


def test_the_picture_shows_the_example() -> None:
    picture = (ROOT / "docs" / "trace.svg").read_text()
    shown = re.findall(r"<text[^>]*>(.*?)</text>", picture)
    properties = {e["event"]: e for e in events_of(example())}
    for event in properties.values():
        assert escape(title(event)) in shown
        said = [part for part in details(event).split(" · ") if not part.endswith(" s")]
        assert any(all(part in text for part in said) for text in shown), said
    assert len(properties) == 3


def test_every_property_is_described() -> None:
    source = ""
    for path in (ROOT / "posthog_llm" / "_event").glob("*.py"):
        source += path.read_text()
    sent = set(re.findall(r'"(\$ai_\w+|posthog_llm_\w+|\$process_\w+|\$session_id)"', source))
    sent -= {"$ai_output", "$ai_instructions"}  # withheld from callers' properties only
    text = (ROOT / "docs" / "properties.md").read_text()
    described = set(re.findall(r"`([$\w]+)`", text))
    assert len(sent) > 40
    assert not sent - described


def test_every_argument_variable_and_public_name_is_described() -> None:
    text = "".join(page.read_text() for page in PAGES)
    arguments = [*NAMES, *SETTINGS]
    variables = set()
    for path in (ROOT / "posthog_llm").rglob("*.py"):
        variables |= set(re.findall(r'environ\.get\("(\w+)"', path.read_text()))
    for name in [*arguments, *variables, *posthog_llm.__all__, *testing.__all__]:
        assert f"{name}" in text, name


def test_every_setting_and_command_is_described() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for name in inspect.signature(posthog_llm.configure).parameters:
        assert f"| `{name}` |" in text, name
    for command in ("demo", "check", "spool show DIRECTORY", "spool send DIRECTORY"):
        assert f"| `posthog-llm {command}` |" in text
    usage = subprocess.run(
        [sys.executable, "-c", "from posthog_llm._cli import main; main(['--help'])"],
        capture_output=True,
        text=True,
    )
    assert "{demo,check,spool}" in usage.stdout


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "posthog_llm.md").read_text()
    listed = set(re.findall(r"^## (\w+)$", text, re.M))
    others = {"PostHogLogger", "CallbackHandler", "SpanProcessor"}
    assert listed == {*posthog_llm.__all__, *others} - {"__version__"}
    text = (ROOT / "docs" / "reference" / "testing.md").read_text()
    assert set(re.findall(r"^## (\w+)$", text, re.M)) == set(testing.__all__)


def test_the_reference_is_what_the_docstrings_say() -> None:
    pytest.importorskip("griffe", reason="the docs session reads the docstrings")
    from .reference_pages import written

    for page, text in written().items():
        assert page.read_text() == text, "write it anew: python -m tests.reference_pages"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r": (\S+\.md)$", text, re.M))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}


def test_the_site_needs_no_network() -> None:
    site = ROOT / "site"
    if not site.exists():
        pytest.skip("the docs session builds it")
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?:[^\"> ]+", page.read_text()
        )
        assert not loaded, f"{page}: {loaded}"


@pytest.mark.once  # LiteLLM has no part in it
def test_demo_prints_a_table_and_json() -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        program = f"from posthog_llm._cli import main; raise SystemExit(main({arguments!r}))"
        process = forks.start(program, {n: os.environ[n] for n in ("PATH", "SSL_CERT_FILE")})
        out, error = process.communicate()
        return process.wait(), out, error

    status, shown, error = run("demo")
    assert (status, error) == (0, "")
    for name in ("streamed chat", "tools", "structured output", "embeddings", "private call"):
        assert name in shown
    events = json.loads(run("demo", "--json")[1])
    assert [e["event"] for e in events].count("$ai_generation") == 7
    assert len(events) == 8
    status, _, error = run("demo", "--live")
    assert status == 2
    assert "OPENAI_API_KEY and POSTHOG_API_KEY" in error


def test_readme_has_two_set_up_commands() -> None:
    commands = [line for code in blocks(ROOT / "README.md", "sh") for line in code.splitlines()]
    set_up = [line for line in commands if "venv" in line]
    assert len(set_up) == 2
    assert set_up[0].endswith("&& posthog-llm demo")
    assert set_up[1].endswith("&& pytest")
