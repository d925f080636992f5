"""What programs are tested with: the provider says what was scripted, in each API's own format."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from posthog_llm.testing import Reply, ScriptedProvider

ASK: Any = [{"role": "user", "content": "Weather in Paris?"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
RESPONSE_TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA}
CLAUDE_TOOL: Any = {"name": "weather", "input_schema": SCHEMA}
CALLED: Any = {"city": "Weather in Paris?", "days": 7}


class Model:
    """One API, asked until the model calls no tool any more."""

    path: str
    none: Any = "none"

    def __init__(self, provider: ScriptedProvider, streamed: bool) -> None:
        self.streamed = streamed
        self.openai = openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0)

    def turn(self, messages: list[Any], **more: Any) -> tuple[str, str | None, Any]:
        """Return what the model said, which tool it called, and with what."""
        raise NotImplementedError

    def result(self, messages: list[Any], text: str) -> list[Any]:
        """Return the conversation with the tool's result at its end."""
        raise NotImplementedError


class Chat(Model):
    path = "/chat/completions"

    def turn(self, messages: list[Any], **more: Any) -> tuple[str, str | None, Any]:
        given: Any = {"model": "m", "messages": messages, "tools": [CHAT_TOOL], **more}
        if self.streamed:
            with self.openai.chat.completions.stream(**given) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = self.openai.chat.completions.create(**given).choices[0].message
        self.last: Any = message.model_dump(exclude_none=True)
        function = message.tool_calls[0].function if message.tool_calls else None
        called = function.name if function else None
        return message.content or "", called, json.loads(function.arguments) if function else None

    def result(self, messages: list[Any], text: str) -> list[Any]:
        return [*messages, self.last, {"role": "tool", "tool_call_id": "call_1", "content": text}]


class Responses(Model):
    path = "/responses"

    def turn(self, messages: list[Any], **more: Any) -> tuple[str, str | None, Any]:
        given: Any = {"model": "m", "input": messages, "tools": [RESPONSE_TOOL], **more}
        if self.streamed:
            with self.openai.responses.stream(**given) as stream:
                answer: Any = stream.get_final_response()
        else:
            answer = self.openai.responses.create(**given)
        (item,) = answer.output
        if item.type != "function_call":
            return answer.output_text, None, None
        self.last = {"type": item.type, "call_id": item.call_id, "name": item.name}
        self.last["arguments"] = item.arguments
        return "", item.name, json.loads(item.arguments)

    def result(self, messages: list[Any], text: str) -> list[Any]:
        output = {"type": "function_call_output", "call_id": "call_1", "output": text}
        return [*messages, self.last, output]


class Messages(Model):
    path = "/messages"
    none: Any = {"type": "none"}  # noqa: RUF012

    def turn(self, messages: list[Any], **more: Any) -> tuple[str, str | None, Any]:
        given: Any = {"model": "m", "max_tokens": 9, "messages": messages, **more}
        given["tools"] = [CLAUDE_TOOL]
        if self.streamed:
            with self.anthropic.messages.stream(**given) as stream:
                answer = stream.get_final_message()
        else:
            answer = self.anthropic.messages.create(**given)
        block: Any = answer.content[0]
        self.last = {"role": "assistant", "content": [block.model_dump(exclude_none=True)]}
        if block.type == "text":
            return block.text, None, None
        return "", block.name, block.input

    def result(self, messages: list[Any], text: str) -> list[Any]:
        block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": text}
        return [*messages, self.last, {"role": "user", "content": [block]}]


@pytest.fixture(params=[Chat, Responses, Messages])
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def model(api: Callable[..., Model], provider: ScriptedProvider, request: Any) -> Model:
    return api(provider, request.param)


def test_a_tool_loop_ends(model: Model) -> None:
    assert model.turn(ASK) == ("", "weather", CALLED)
    assert model.turn(model.result(ASK, "Sunny")) == ("You said: Sunny", None, None)


def test_no_tool_is_called_where_none_may_be(model: Model) -> None:
    assert model.turn(ASK, tool_choice=model.none) == ("You said: Weather in Paris?", None, None)


def test_scripted_texts_and_tool_calls(model: Model, provider: ScriptedProvider) -> None:
    call = Reply.tool_call("weather", {"city": "Paris"})
    provider.script(model.path, call, Reply.text("Sunny."), Reply.text("Bye."))
    assert model.turn(ASK) == ("", "weather", {"city": "Paris"})
    assert model.turn(model.result(ASK, "sun")) == ("Sunny.", None, None)
    assert model.turn(ASK) == ("Bye.", None, None)
    assert model.turn(ASK) == ("", "weather", CALLED)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [(429, "RateLimitError", "rate_limit_error"), (500, "InternalServerError", "api_error")],
)
def test_scripted_errors(
    model: Model, provider: ScriptedProvider, status: int, error: str, kind: str
) -> None:
    provider.script(model.path, Reply.error(status, "too much", code="busy"))
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
        model.turn(ASK)
    assert type(raised.value).__name__ == error
    properties: Any = raised.value.body
    properties = properties.get("error", properties)
    assert properties == {"message": "too much", "type": kind, "param": None, "code": "busy"}


def test_misuse_is_captured(provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match=r"'/embeddings'.*script a Reply\.json"):
        provider.script("/embeddings", Reply.text("no"))
    with pytest.raises(ValueError, match=r"status must be that of an error"):
        Reply.error(200)


def test_errors_of_gemini_are_in_its_format(provider: ScriptedProvider) -> None:
    import json
    import urllib.error
    import urllib.request

    path = "/models/gemini-2.5-flash:generateContent"
    provider.script(path, Reply.error(429, "slow down"), Reply.json({"error": "mine"}, 429))
    told = []
    for _ in range(2):
        asked = urllib.request.Request(f"{provider.url}/v1beta{path}", b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        told.append(json.loads(refused.value.read())["error"])
    named = {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}
    assert told == [named, "mine"]
