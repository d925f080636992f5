"""`posthog-llm check`: whether events would arrive, and if not, why."""

from __future__ import annotations

import pytest

from posthog_llm.cli import main
from posthog_llm.testing import PostHogReceiver


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
