"""`posthog-llm check`: whether events would arrive, and if not, why."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from posthog_llm._cli import main
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider


@pytest.fixture
def project(receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch) -> PostHogReceiver:
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_secret_of_the_project")
    monkeypatch.setenv("POSTHOG_HOST", receiver.url)
    return receiver


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["check", *arguments])
    printed = capsys.readouterr()
    return status, printed.out if status == 0 else printed.err


def test_it_arrives(project: PostHogReceiver, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(capsys)
    (event,) = project.wait_for(1)
    assert status == 0
    assert event["event"] == "$ai_generation"
    assert event["properties"]["posthog_llm_check"] is True
    assert event["properties"]["$process_person_profile"] is False
    assert not [name for name in event["properties"] if name.endswith(("tokens", "cost_usd"))]
    assert f"/ai-observability/traces/{event['properties']['$ai_trace_id']}" in text
    assert "phc_secret_of" not in text


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("POSTHOG_API_KEY", "", "POSTHOG_API_KEY is not set"),
        ("POSTHOG_API_KEY", "phx_1234567890", "personal API key"),
        ("POSTHOG_API_KEY", "phs_1234567890", "secure key"),
        ("POSTHOG_API_KEY", "sk-proj-1234567890", "provider's key"),
        ("POSTHOG_HOST", "us.i.posthog.com", "is no URL"),
        ("POSTHOG_HOST", "ftp://us.i.posthog.com", "is no URL"),
        ("POSTHOG_HOST", "http://[::1", "is no URL"),
        ("POSTHOG_HOST", "http://127.0.0.1:9", "cannot be reached"),
        ("POSTHOG_HOST", "http://nowhere.invalid", "cannot be reached"),
        ("POSTHOG_MOCK", "true", "POSTHOG_MOCK is set"),
    ],
)
def test_what_is_wrong(
    project: PostHogReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(variable, value)
    status, text = said(capsys)
    assert status == 1
    assert words in text
    assert project.events == []


@pytest.mark.parametrize(("code", "words"), [(401, "does not know this key"), (502, "HTTP 502")])
def test_refused(
    project: PostHogReceiver, capsys: pytest.CaptureFixture[str], code: int, words: str
) -> None:
    project.status = code
    status, text = said(capsys)
    assert (status, words in text) == (1, True), text


def test_key_that_no_project_has(
    project: PostHogReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    project.unknown_keys = True
    status, text = said(capsys)
    assert (status, "does not know this key" in text) == (1, True), text


def test_slow(project: PostHogReceiver, capsys: pytest.CaptureFixture[str]) -> None:
    project.fault = "hang"
    status, text = said(capsys, "--timeout", "0.3")
    assert (status, "did not answer in time" in text) == (1, True), text


def test_proxy(
    project: PostHogReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTHOG_HOST", "https://posthog.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    status, text = said(capsys)
    assert (status, "proxy" in text) == (1, True), text


def test_tls(
    project: PostHogReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTHOG_HOST", project.url.replace("http://", "https://"))
    status, text = said(capsys)
    assert (status, "No TLS connection" in text) == (1, True), text


PAGE = Reply([b"<html>Please log in</html>"], headers={"content-type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (PAGE, "but not as a PostHog does (text/html instead of JSON"),
        (Reply.json({"ok": True}), "but not as a PostHog does"),
        (Reply([b""]), "but not as a PostHog does (no content type"),
        (Reply([b"<html>" + b"x\n" * 5000], 502), "answered with HTTP 502"),
        (Reply(status=302, headers={"location": "/login"}), "/login, and the event is lost"),
    ],
    ids=["website", "another API", "nothing", "long page", "redirect to a login page"],
)
def test_something_else_answers(
    provider: ScriptedProvider,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: Reply,
    words: str,
) -> None:
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_test")
    monkeypatch.setenv("POSTHOG_HOST", provider.url)
    provider.script("/batch/", answer)
    provider.script("/login", PAGE)
    status, text = said(capsys)
    assert (status, words in text) == (1, True), text
    assert len(text) < 800


def test_a_redirect_that_keeps_the_event(
    project: PostHogReceiver,
    provider: ScriptedProvider,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTHOG_HOST", provider.url)
    there = {"location": f"{project.url}/batch/"}
    provider.script("/batch/", Reply(status=308, headers=there))
    assert said(capsys)[0] == 0
    project.wait_for(1)


def command(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "-c", "from posthog_llm._cli import main; raise SystemExit(main())", name],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": os.environ["PATH"],
            "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
            **environment,
        },
    )


def test_it_prints_its_own_lines_alone(
    project: PostHogReceiver, provider: ScriptedProvider
) -> None:
    key = {"POSTHOG_API_KEY": "phc_test"}
    arrived = command("check", POSTHOG_HOST=project.url, **key)
    assert (arrived.returncode, arrived.stderr) == (0, "")
    assert len(arrived.stdout.splitlines()) == 3
    provider.script("/batch/", PAGE)
    refused = command("check", POSTHOG_HOST=provider.url, **key)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("posthog-llm check: ")
    assert len(refused.stderr.splitlines()) == 1


NOBODY = "http://127.0.0.1:9"
SURROUNDINGS = {
    "proxies": {"HTTP_PROXY": NOBODY, "https_proxy": NOBODY, "ALL_PROXY": "socks5://127.0.0.1:9"},
    "settings for real services": {
        "POSTHOG_MOCK": "true",
        "POSTHOG_API_KEY": "phc_real",
        "POSTHOG_HOST": NOBODY,
        "POSTHOG_LLM_SPOOL": "/proc/nowhere",
        "OPENAI_BASE_URL": NOBODY,
        "OPENAI_API_KEY": "sk-real",
        "SSL_CERT_FILE": "/nowhere.pem",
        "HOME": "/proc/nowhere",
    },
}


@pytest.mark.parametrize("surroundings", list(SURROUNDINGS))
def test_the_demo_runs_anywhere(surroundings: str) -> None:
    shown = command("demo", **SURROUNDINGS[surroundings])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "8 events arrived" in shown.stdout


def test_the_live_demo_says_that_nothing_would_be_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "POSTHOG_API_KEY", "POSTHOG_MOCK"):
        monkeypatch.setenv(name, "true")
    assert main(["demo", "--live"]) == 2
    assert "POSTHOG_MOCK is set" in capsys.readouterr().err


def test_fakes_are_reached_where_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import posthog

    from posthog_llm.openai import OpenAI

    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, NOBODY)
    monkeypatch.setenv("no_proxy", "intranet.example")
    with ScriptedProvider() as provider, PostHogReceiver() as receiver:
        assert os.environ["no_proxy"] == "intranet.example,127.0.0.1"
        client = OpenAI(
            base_url=provider.base_url,
            api_key="k",
            max_retries=0,
            posthog_client=posthog.Posthog("phc_test", host=receiver.url, sync_mode=True),
        )
        client.embeddings.create(model="m", input="x")
        receiver.wait_for(1)
    assert os.environ["no_proxy"] == "intranet.example"


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon"])
def test_timeouts_that_are_none(capsys: pytest.CaptureFixture[str], given: str) -> None:
    with pytest.raises(SystemExit):
        main(["check", f"--timeout={given}"])
    assert "argument --timeout: " in capsys.readouterr().err
