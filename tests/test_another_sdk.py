"""An SDK that is built unlike the others needs an adapter, and nothing else of ours changes."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from posthog_llm import instrument, uninstrument
from posthog_llm._observe import seam
from posthog_llm._observe.passing import underway
from posthog_llm._observe.registry import SDKS
from posthog_llm._observe.sdk import Draft, Received, Sent
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


class Client:
    """A client of the standard library alone: no options, no hooks, no response object."""

    def __init__(self, host: str) -> None:
        self.host = host

    def call(self, request: Any) -> Any:
        for _ in range(2):
            status, answer = self.attempt(request)
            if status < 500:
                break
        if status != 200:
            raise RuntimeError(answer)
        return answer

    def attempt(self, request: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        body = json.dumps(request.data).encode()
        connection.request("POST", request.path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.seen = SimpleNamespace(status=response.status, headers=response.headers, raw=content)
        return response.status, json.loads(content)


class Adapter:
    def draft(self, options: Any) -> Draft:
        return Draft("post", options.path, options.data, False)

    def detach(self, options: Any) -> None:
        return None

    def base_url(self, client: Any) -> str:
        return f"http://{client.host}"

    def injector(self, client: Any) -> None:
        return None

    def sent(self, request: Any, options: Any) -> Sent:
        url = SimpleNamespace(path=options.path)
        return Sent({}, url, json.dumps(options.data).encode())

    def received(self, response: Any) -> Received:
        return Received(response.status, response.headers, response.raw)

    def requests_behind(self, source: Any) -> list[Any]:
        return []

    def install(self, module: Any, installer: Any) -> None:
        installer.wrap(module.Client, "call", self._call)
        installer.wrap(module.Client, "attempt", self._attempt, is_below=True)
        installer.set_defaults(module.Client)

    def _call(self, send: Any, client: Any, args: Any, kwargs: Any) -> Any:
        return seam.request(self, client, args[0], lambda: send(*args, **kwargs))

    def _attempt(self, send: Any, client: Any, args: Any, kwargs: Any) -> Any:
        layer = underway(client)
        assert layer is not None
        assert layer.call is not None
        layer.call.sent(None, args[0])
        answer = send(*args, **kwargs)
        layer.call.note_response(client.seen)
        return answer


@pytest.fixture
def client(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    module: Any = ModuleType("another_sdk")
    module.Client = type("Client", (Client,), dict(vars(Client)))
    monkeypatch.setitem(sys.modules, "another_sdk", module)
    monkeypatch.setitem(SDKS, "another_sdk", Adapter())
    yield module.Client(provider.url.partition("//")[2])
    uninstrument()


def test_its_calls_are_captured(
    client: Client, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", Reply.error(503, "busy"), Reply.text("Hello."))
    instrument(sink)
    client.call(SimpleNamespace(path="/chat/completions", data=BODY))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_model"] == "gpt-4o-mini"
    assert event.properties["$ai_input"] == [{"role": "user", "content": "hi"}]
    assert event.properties["$ai_output_choices"][0]["content"][0]["text"] == "Hello."
    assert event.properties["$ai_http_status"] == 200
    assert event.properties["posthog_llm_retries"] == 1


def test_its_errors_are_captured(
    client: Client, provider: ScriptedProvider, sink: MemorySink
) -> None:
    provider.script("/chat/completions", Reply.error(400, "bad model"))
    instrument(sink)
    with pytest.raises(RuntimeError):
        client.call(SimpleNamespace(path="/chat/completions", data=BODY))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_http_status"] == 400


def test_it_is_as_it_was_after_uninstrument(client: Client) -> None:
    cls: Any = type(client)
    before = {name: cls.__dict__[name] for name in ("call", "attempt")}
    instrument()
    assert cls.__dict__["call"] is not before["call"]
    uninstrument()
    assert {name: cls.__dict__[name] for name in before} == before
    assert not hasattr(cls, "_posthog")
