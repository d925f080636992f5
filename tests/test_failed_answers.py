"""Answers with status 200 that say of themselves that the call failed."""

from __future__ import annotations

import contextlib
from typing import Any

import openai
import pytest

from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import QUESTION, Driver

HEAD = {"id": "c-1", "object": "chat.completion", "created": 0, "model": "m"}
ERROR = {"code": 502, "message": "Provider returned error"}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "par"}}
DELTA = {"index": 0, "delta": {"role": "assistant", "content": "par"}}
SAID = {
    "of the answer": ({"error": ERROR}, {}, ERROR["message"], "502"),
    "of a choice": ({}, {"finish_reason": "error", "error": ERROR}, ERROR["message"], "502"),
    "as a stop reason": ({}, {"finish_reason": "error"}, "APIError: 200", None),
    "groq": ({"x_groq": {"id": "r", "error": "over capacity"}}, {}, "over capacity", None),
    "minimax": (
        {"base_resp": {"status_code": 1004, "status_msg": "login fail"}},
        {},
        "login fail",
        "1004",
    ),
    "vllm": ({"object": "error", "message": "no", "code": 400}, {}, "no", "400"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", list(SAID))
def test_it_is_an_error_wherever_it_is_said(
    drive: Driver, provider: ScriptedProvider, sink: MemorySink, where: str, stream: bool
) -> None:
    more, of_choice, message, code = SAID[where]
    choice: Any = {**(DELTA if stream else MESSAGE), **of_choice}
    body = {**HEAD, "choices": [choice], **more}
    reply = Reply.stream([body]) if stream else Reply.json(body)
    provider.script("/chat/completions", reply)
    client = drive.ours(posthog_client=sink)
    asked = {**QUESTION, "stream": stream}
    call = lambda: client.chat.completions.create(**asked)  # noqa: E731
    with contextlib.suppress(openai.APIError):  # the SDK raises what stands in `error` of a stream
        drive.collect(call) if stream else drive.call(call)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "error"
    assert event.properties["$ai_is_error"] is True
    found = event.properties["posthog_llm_error"]
    assert (event.properties["$ai_error"], found.get("code")) == (message, code)


def test_no_error_is_none(drive: Driver, provider: ScriptedProvider, sink: MemorySink) -> None:
    more = {"base_resp": {"status_code": 0, "status_msg": "success"}, "error": None}
    choice = {**MESSAGE, "finish_reason": "stop", "error": None}
    provider.script("/chat/completions", Reply.json({**HEAD, "choices": [choice], **more}))
    drive.ask(drive.ours(posthog_client=sink))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "ok"
