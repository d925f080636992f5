"""One trace through several services."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_llm import (
    ASGIMiddleware,
    WSGIMiddleware,
    context,
    continue_trace,
    headers,
    span,
    trace,
)
from posthog_llm.context import current
from posthog_llm.testing import MemorySink


def test_there_and_back(sink: MemorySink) -> None:
    with (
        context(posthog_client=sink),
        trace("t", distinct_id="user-7", session_id="chat-1"),
        span("call") as s,
    ):
        sent = headers()
    assert sent["x-posthog-llm-trace-id"] == s.trace_id
    assert sent["X-POSTHOG-DISTINCT-ID"] == "user-7"
    assert re.fullmatch(r"00-[\da-f]{32}-[\da-f]{16}-01", sent["traceparent"])
    assert sent["traceparent"].split("-")[1] == s.trace_id.replace("-", "")
    for form in (sent, list(sent.items()), [(k.encode(), v.encode()) for k, v in sent.items()]):
        with continue_trace(form):
            here = current()
            assert (here.trace_id, here.parent_id) == (s.trace_id, s.id)
            assert (here.session_id, here.distinct_id) == ("chat-1", "user-7")
            assert headers() == sent


def test_nothing_to_say() -> None:
    assert headers() == {}
    with continue_trace({}):
        assert headers() == {}


def test_posthogs_own_headers(sink: MemorySink) -> None:
    with (
        context(posthog_client=sink),
        continue_trace({"X-POSTHOG-SESSION-ID": "replay", "X-PostHog-Distinct-Id": "user-7"}),
        span("s"),
    ):
        assert headers()["X-POSTHOG-SESSION-ID"] == "replay"
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "user-7"
    assert event.properties["$session_id"] == "replay"


def test_traceparent_alone() -> None:
    one, two = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with continue_trace({"traceparent": f"00-{one}-{two}-01"}):
        assert (current().trace_id, current().parent_id) == (one, two)
    for odd in ("", "00", f"00-{'0' * 32}-{two}-01", f"zz-{one}-{two}-01", "x" * 1000):
        with continue_trace({"traceparent": odd}):
            assert current().trace_id is None


def test_what_fits_no_header_stays() -> None:
    with context(distinct_id="böse\r\nSet-Cookie: x", trace_id="a b"):
        sent = headers()
    assert set(sent) == {"traceparent", "x-posthog-llm-sampling"}


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.binary() | st.none() | st.integers()))
def test_any_headers(found: dict[str, Any]) -> None:
    with continue_trace(found):
        for name, value in headers().items():
            assert f"{name}{value}".isascii()
            assert value.isprintable()


def test_asgi() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current().trace_id)

    async def main() -> None:
        wrapped = ASGIMiddleware(app)
        found = [(b"x-posthog-llm-trace-id", b"t")]
        await wrapped({"type": "http", "headers": found}, None, None)
        await wrapped({"type": "websocket", "headers": found}, None, None)
        await wrapped({"type": "http", "headers": []}, None, None)
        await wrapped({"type": "lifespan"}, None, None)

    asyncio.run(main())
    assert seen == ["t", "t", None, None]


@pytest.mark.parametrize("streams", [False, True])
def test_wsgi(streams: bool) -> None:
    seen: list[Any] = []
    closed: list[Any] = []

    class Stream:
        def __iter__(self) -> Any:
            for piece in (b"a", b"b"):
                seen.append(current().trace_id)
                yield piece

        def close(self) -> None:
            closed.append(current().trace_id)

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(current().trace_id)
        return Stream() if streams else [b"a", b"b"]

    body = WSGIMiddleware(app)({"HTTP_X_POSTHOG_LLM_TRACE_ID": "t", "REQUEST_METHOD": "GET"}, None)
    assert list(body) == [b"a", b"b"]
    body.close()  # type: ignore[attr-defined]
    assert seen == ["t"] * (3 if streams else 1)
    assert closed == (["t"] if streams else [])
    assert current().trace_id is None
