"""What a destination may be, and do: objects of the user's own, subclasses, mocks, slow ones."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from posthog import Posthog

import posthog_llm
from posthog_llm import _settings as settings
from posthog_llm.testing import PostHogReceiver

from .test_delivery import uuids_of


def capture(destination: Any, count: int = 1, **values: Any) -> list[str]:
    return [
        posthog_llm.capture_generation(model="m", posthog_client=destination, **values)
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", [Mock, MagicMock])
def test_mock_gets_what_every_object_gets(kind: Any) -> None:
    destination = kind()
    capture(destination)
    assert posthog_llm.flush(10)
    assert (destination.capture.call_count, destination.capture_ai.call_count) == (1, 0)


class Silent(Posthog):
    """Its `capture` tells nothing."""

    def capture(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        super().capture(*args, **kwargs)


class Forgetful(Posthog):
    def capture(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync_mode"])
def test_subclass_that_tells_nothing_is_believed(
    receiver: PostHogReceiver, sync_mode: bool
) -> None:
    uuids = capture(Silent("phc_test", host=receiver.url, sync_mode=sync_mode), 2)
    assert posthog_llm.flush(10)
    assert uuids_of(receiver) == uuids
    stats = posthog_llm.stats()
    assert (stats.delivered, stats.dropped) == (2, {})


def test_what_a_subclass_does_not_queue_is_counted(receiver: PostHogReceiver) -> None:
    capture(Forgetful("phc_test", host=receiver.url))
    assert posthog_llm.flush(10)
    assert posthog_llm.stats().dropped == {"unconfirmed": 1}


@pytest.mark.parametrize("arguments", [(), (1.0,), "keyword"])
@pytest.mark.undelivered
def test_flush_of_the_client_takes_its_time_once(receiver: PostHogReceiver, arguments: Any) -> None:
    given: list[float] = []

    class Noting(Posthog):
        def _flush_lanes(self, timeout_seconds: float) -> None:
            given.append(timeout_seconds)

    if not hasattr(Posthog, "_flush_lanes"):
        pytest.skip("the flush of this posthog client has no limit")
    free = threading.Event()
    destination = Noting("phc_test", host=receiver.url)

    def slow(event: dict[str, Any]) -> dict[str, Any]:
        free.wait(0.5)
        return event

    posthog_llm.configure(before_capture=slow)
    capture(destination)
    if arguments == "keyword":
        destination.flush(timeout_seconds=1.0)
    else:
        destination.flush(*arguments)
    most = 10.0 if arguments == () else 1.0
    assert given
    assert given[0] <= most - 0.3


@pytest.mark.faulty
@pytest.mark.parametrize("raised", [asyncio.CancelledError, GeneratorExit, SystemExit])
def test_whatever_a_sink_raises_fails_its_event_once(raised: type[BaseException]) -> None:
    seen: list[str] = []

    class Sink:
        def capture(self, event: str, uuid: str) -> None:
            seen.append(uuid)
            raise raised

    uuids = capture(Sink(), 2)
    assert posthog_llm.flush(10)
    assert seen == uuids
    assert posthog_llm.stats().dropped == {"capture_failed": 2}


def test_spool_stays_where_it_was_configured(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    posthog_llm.configure(spool="spool")
    monkeypatch.chdir(tmp_path / "other")
    assert settings.settings().spool == posthog_llm.Spool(str(tmp_path / "spool"))
    monkeypatch.setenv("POSTHOG_LLM_SPOOL", "of-environment")
    settings.forget()
    place = settings.settings().spool
    assert place is not None
    assert place.path == os.path.join(os.getcwd(), "of-environment")
