"""Documentation that drifts fails here: every code block runs, every property is described."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from posthog import Posthog

import posthog_llm
from posthog_llm import openai, settings
from posthog_llm.observe.arguments import NAMES
from posthog_llm.observe.client import _CLIENT_ONLY
from posthog_llm.testing import PostHogReceiver, ScriptedProvider

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(page.read_text()) if name == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_runs(
    page: Path,
    provider: ScriptedProvider,
    receiver: PostHogReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if page.stem == "litellm":
        litellm = pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")
        monkeypatch.setattr(litellm, "callbacks", [])
    monkeypatch.setattr(settings, "_settings", None)
    handler = signal.getsignal(signal.SIGTERM)
    for name, value in {
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": provider.base_url,
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": provider.url,
        "POSTHOG_API_KEY": f"phc_{page.stem}",
        "POSTHOG_HOST": receiver.url,
    }.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"client": openai.OpenAI()}
    found = blocks(page, "python")
    for code in found:
        code = code.replace("https://us.i.posthog.com", receiver.url)
        code = code.replace("/var/lib/app/posthog-spool", str(tmp_path))
        run = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(run, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    if page.stem == "litellm":
        receiver.wait_for(2)  # it calls back in threads of its own
    posthog_llm.flush()
    if isinstance(destination := names.get("posthog"), Posthog):
        destination.flush()  # what the end of the process would do
    signal.signal(signal.SIGTERM, handler)
    assert bool(found) == bool(receiver.events)


def test_every_property_is_described() -> None:
    source = ""
    for room in ("event", "litellm"):
        for path in (ROOT / "posthog_llm" / room).glob("*.py"):
            source += path.read_text().replace('"posthog_llm_attempt"', "")
    sent = set(re.findall(r'"(\$ai_\w+|posthog_llm_\w+|\$process_\w+|\$session_id)"', source))
    sent -= {"$ai_output", "$ai_instructions"}  # withheld from callers' properties only
    text = (ROOT / "docs" / "properties.md").read_text()
    described = set(re.findall(r"`([$\w]+)`", text))
    assert len(sent) > 40
    assert not sent - described


def test_every_argument_variable_and_public_name_is_described() -> None:
    text = "".join(page.read_text() for page in PAGES)
    arguments = [*NAMES, *_CLIENT_ONLY]
    variables = set()
    for path in (ROOT / "posthog_llm").rglob("*.py"):
        variables |= set(re.findall(r'environ\.get\("(\w+)"', path.read_text()))
    from posthog_llm import testing

    for name in [*arguments, *variables, *posthog_llm.__all__, *testing.__all__]:
        if name not in ("Received", "CapturedEvent", "__version__"):
            assert f"{name}" in text, name


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_demo_prints_a_table_and_json() -> None:
    command = [sys.executable, "-c", "from posthog_llm.cli import main; raise SystemExit(main())"]
    environment = {"PATH": os.environ["PATH"]}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, env=environment
        )

    shown = run("demo")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    for name in ("streamed chat", "tools", "structured output", "embeddings", "private call"):
        assert name in shown.stdout
    import json

    events = json.loads(run("demo", "--json").stdout)
    assert [e["event"] for e in events].count("$ai_generation") == 7
    assert len(events) == 8
    live = run("demo", "--live")
    assert live.returncode == 2
    assert "OPENAI_API_KEY and POSTHOG_API_KEY" in live.stderr


def test_readme_has_two_set_up_commands() -> None:
    commands = [line for code in blocks(ROOT / "README.md", "sh") for line in code.splitlines()]
    set_up = [line for line in commands if "venv" in line]
    assert len(set_up) == 2
    assert set_up[0].endswith("&& posthog-llm demo")
    assert set_up[1].endswith("&& pytest")
