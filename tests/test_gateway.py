"""The real LiteLLM gateway as a process of its own, and programs that end while it works."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

import posthog_llm
from posthog_llm.openai import OpenAI
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

pytest.importorskip("litellm", reason="LiteLLM pins SDKs: it has a nox session")
needs_gateway = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="needs litellm[proxy]"
)
MASTER = "sk-master-123456"
CONFIG = """
model_list:
  - model_name: mine
    litellm_params: {model: openai/gpt-4o, api_base: PROVIDER, api_key: sk-upstream-123456}
  - model_name: mine first
    litellm_params: {model: openai/gpt-4o-mini, api_base: PROVIDER, api_key: sk-2}
  - model_name: vectors
    litellm_params: {model: openai/text-embedding-3-small, api_base: PROVIDER, api_key: sk-1}
litellm_settings:
  callbacks: posthog_llm.litellm.logger
guardrails:
  - guardrail_name: after
    litellm_params: {guardrail: guards.After, mode: post_call}
  - guardrail_name: refuses_answers
    litellm_params: {guardrail: guards.Refuses, mode: post_call}
  - guardrail_name: refuses_questions
    litellm_params: {guardrail: guards.Refuses, mode: pre_call}
  - guardrail_name: refuses_meanwhile
    litellm_params: {guardrail: guards.Refuses, mode: during_call}
router_settings: {num_retries: 1, retry_after: 0, fallbacks: [{"mine first": [mine]}]}
general_settings: {master_key: MASTER}
"""

GUARDS = """
import asyncio, os

import posthog
import posthog_llm
from litellm.integrations.custom_guardrail import CustomGuardrail


class After(CustomGuardrail):
    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        return response


class Refuses(CustomGuardrail):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        raise ValueError("refused")

    async def async_moderation_hook(self, data, user_api_key_dict, call_type):
        await asyncio.sleep(1)  # the model answers first
        raise ValueError("refused")

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        raise ValueError("refused")
"""

SENDING_SOON = """
posthog_llm.configure(
    posthog_client=posthog.Posthog("phc", host=os.environ["POSTHOG_API_URL"], flush_interval=0.1)
)
"""


class Gateway:
    """A `litellm` process, its provider and its PostHog."""

    def __init__(
        self,
        provider: ScriptedProvider,
        receiver: PostHogReceiver,
        folder: Path,
        configured: str = "",
        config: str = CONFIG,
    ) -> None:
        self.provider, self.receiver = provider, receiver
        self.seen = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        file = folder / "config.yaml"
        file.write_text(config.replace("PROVIDER", provider.base_url).replace("MASTER", MASTER))
        (folder / "guards.py").write_text(GUARDS + configured)
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(Path(sys.executable).with_name("litellm"), "--config", file),
                *("--host", "127.0.0.1", "--port", str(self.port)),
            ],
            env={**os.environ, **settings(receiver)},
            stdout=self.log,
            stderr=self.log,
        )

    def wait(self) -> None:
        until = time.monotonic() + 240  # it imports for long where others work, too
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health/liveliness", timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, Path(self.log.name).read_text()[-2000:]
                assert time.monotonic() < until, Path(self.log.name).read_text()[-2000:]
                time.sleep(0.2)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """Ask as curl does; returns the status."""
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {MASTER}", "Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def told(self, count: int) -> list[Any]:
        """Return the events since the last look, which must be `count`."""
        seen, self.seen = self.seen, self.seen + count
        return self.receiver.wait_for(self.seen)[seen:]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def settings(receiver: PostHogReceiver) -> dict[str, str]:
    return {
        "POSTHOG_API_KEY": "phc_test",
        "POSTHOG_API_URL": receiver.url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with ScriptedProvider() as provider, PostHogReceiver() as receiver:
        folder = tmp_path_factory.mktemp("gateway")
        started = Gateway(provider, receiver, folder, SENDING_SOON)
        try:
            started.wait()
            yield started
        finally:
            started.stop()
        assert len(receiver.events) == started.seen


ASK = [{"role": "user", "content": "hi"}]


@needs_gateway
def test_curl(gateway: Gateway) -> None:
    metadata = {"trace_id": "t", "plan": "gold", "user_id": "user-7"}
    body = {"model": "mine", "messages": ASK, "user": "end", "metadata": metadata}
    trace = {"feature": "search"}
    more = {"trace": trace, "session_id": "s"}
    forwarded = {"X-Forwarded-For": "9.9.9.9", "X-Custom": "private"}
    status, _ = gateway.post("/v1/chat/completions", {**body, **more}, **forwarded)
    assert status == 200
    (event,) = gateway.told(1)
    told = event["properties"]
    assert (event["distinct_id"], told["$ai_user"]) == ("user-7", "end")
    assert (told["$ai_trace_id"], told["$ai_session_id"]) == ("t", "s")
    assert (told["plan"], told["feature"]) == ("gold", "search")
    assert told["$ai_model"] == "gpt-4o"
    assert told["posthog_llm_model_group"] == "mine"
    assert told["$ai_input"] == ASK
    assert told["$ai_total_cost_usd"] > 0
    assert told["$ai_input_cost_usd"] > 0
    ours = ("$", "posthog_llm_", "plan", "feature")
    assert not [name for name in told if not name.startswith(ours)]
    text = json.dumps(event)
    leaks = ("9.9.9.9", "private", MASTER, "sk-upstream", "user_api_key", "curl", "Python-urllib")
    assert not [leak for leak in leaks if leak in text]


@needs_gateway
@pytest.mark.parametrize("stream", [False, True])
def test_openai_sdk(gateway: Gateway, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER, max_retries=0)
    answer: Any = (
        client.chat.completions.create(
            model="mine", messages=ASK, stream=stream, stream_options={"include_usage": True}
        )
        if stream
        else client.chat.completions.create(model="mine", messages=ASK)
    )
    if stream:
        assert len(list(answer)) > 1
    (event,) = gateway.told(1)
    told = event["properties"]
    assert told["$ai_stream"] is stream
    assert told["$ai_input_tokens"] == 9
    assert ("$ai_time_to_first_token" in told) is stream
    assert told["$process_person_profile"] is False


@needs_gateway
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_client_that_leaves_amid_a_stream(gateway: Gateway, path: str) -> None:
    if path.endswith("completions"):
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
        delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        slow = Reply.stream([{**chunk, "choices": [delta]}] * 100)
    else:
        piece = {"type": "response.output_text.delta", "item_id": "m", "delta": "word "}
        place = {"output_index": 0, "content_index": 0}
        begun = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o"}
        created = {"type": "response.created", "sequence_number": 0, "response": begun}
        begun |= {"status": "in_progress", "output": [], "parallel_tool_calls": True, "tools": []}
        begun |= {"tool_choice": "auto", "temperature": 1.0, "top_p": 1.0}
        pieces = ({**piece, **place, "sequence_number": n} for n in range(1, 100))
        slow = Reply.stream([created, *pieces])
    slow.delay = 0.05
    gateway.provider.script(path.removeprefix("/v1"), slow)
    body = {"model": "mine", "messages": ASK, "input": "hi", "stream": True}
    request = urllib.request.Request(
        gateway.url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {MASTER}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        for _ in range(10):
            answer.readline()
    (event,) = gateway.told(1)
    told = event["properties"]
    assert "$ai_is_error" not in told
    assert told["posthog_llm_outcome"] == "closed_early"
    invented = ("tokens", "cost_usd", "$ai_usage", "$ai_stop_reason")
    assert not [name for name in told if name.endswith(invented)]


@needs_gateway
def test_retry_and_failure(gateway: Gateway) -> None:
    refused = Reply.json({"error": {"message": "busy"}}, status=500)
    gateway.provider.script("/chat/completions", refused)
    assert gateway.post("/v1/chat/completions", {"model": "mine", "messages": ASK})[0] == 200
    first, second = (e["properties"] for e in gateway.told(2))
    assert (first.get("$ai_is_error", False), second.get("$ai_is_error", False)) == (True, False)
    assert first["$ai_trace_id"] == second["$ai_trace_id"]
    assert second["posthog_llm_retry_number"] == 1
    gateway.provider.script("/chat/completions", refused, refused)
    assert gateway.post("/v1/chat/completions", {"model": "mine", "messages": ASK})[0] == 500
    told = [e["properties"] for e in gateway.told(2)]
    assert [t["$ai_http_status"] for t in told] == [500, 500]
    assert len({t["$ai_span_id"] for t in told}) == 2


@needs_gateway
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_to_another_model(gateway: Gateway, stream: bool) -> None:
    refused = Reply.json({"error": {"message": "busy"}}, status=500)
    gateway.provider.script("/chat/completions", refused, refused)
    body = {"model": "mine first", "messages": ASK, "stream": stream}
    status, answer = gateway.post("/v1/chat/completions", body)
    assert (status, b"hi" in answer) == (200, True)
    told = [event["properties"] for event in gateway.told(3)]
    assert [t["$ai_model"] for t in told] == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4o"]
    assert [t.get("$ai_is_error", False) for t in told] == [True, True, False]
    assert [t["posthog_llm_model_group"] for t in told] == ["mine first", "mine first", "mine"]
    assert told[-1]["posthog_llm_fallback_number"] == 1
    assert len({t["$ai_trace_id"] for t in told}) == 1
    assert told[-1]["$ai_output_tokens"] > 0


@needs_gateway
def test_what_reached_no_provider(gateway: Gateway) -> None:
    bad = {"Authorization": "Bearer wrong"}
    body = {"model": "mine", "messages": ASK}
    assert gateway.post("/v1/chat/completions", body, **bad)[0] >= 400
    named = {**body, "posthog_api_key": "phc_other", "posthog_api_url": "http://127.0.0.1:9"}
    assert gateway.post("/v1/chat/completions", named)[0] >= 400
    assert gateway.post("/v1/chat/completions", {**body, "no-log": True})[0] == 200
    off = {"x-litellm-disable-callbacks": "posthog_llm"}
    assert gateway.post("/v1/chat/completions", body, **off)[0] == 200
    vectors = {"model": "vectors", "input": "a"}
    assert gateway.post("/v1/embeddings", vectors)[0] == 200
    (event,) = gateway.told(1)
    assert event["event"] == "$ai_embedding"


@needs_gateway
def test_a_stream_with_a_guardrail_after_it(gateway: Gateway) -> None:
    body = {"model": "mine", "messages": ASK, "stream": True, "guardrails": ["after"]}
    status, text = gateway.post("/v1/chat/completions", body)
    assert (status, text.strip().endswith(b"[DONE]")) == (200, True)
    (event,) = gateway.told(1)
    told = event["properties"]
    assert told["posthog_llm_outcome"] == "ok"
    assert told["$ai_input_tokens"] > 0
    assert told["$ai_output_tokens"] == 3


@needs_gateway
@pytest.mark.parametrize(
    ("guard", "asked"),
    [("refuses_questions", 0), ("refuses_answers", 1), ("refuses_meanwhile", 1)],
)
def test_a_guardrail_that_refuses(gateway: Gateway, guard: str, asked: int) -> None:
    """What the model answers is an answer of that model, whatever the gateway makes of it."""
    before = len(gateway.provider.requests)
    body = {"model": "mine", "messages": ASK, "guardrails": [guard]}
    assert gateway.post("/v1/chat/completions", body)[0] >= 400
    assert len(gateway.provider.requests) == before + asked
    assert gateway.post("/v1/embeddings", {"model": "vectors", "input": "a"})[0] == 200
    told = [e["properties"] for e in gateway.told(1 + asked) if e["event"] == "$ai_generation"]
    names = ("posthog_llm_outcome", "$ai_model", "$ai_provider")
    assert [tuple(t[name] for name in names) for t in told] == [("ok", "gpt-4o", "openai")] * asked


@needs_gateway
def test_our_client_before_our_gateway(gateway: Gateway) -> None:
    sink = MemorySink()
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER, posthog_client=sink)
    posthog_llm.configure(gateways=["127.0.0.1"])
    try:
        client.chat.completions.create(model="mine", messages=ASK)
    finally:
        posthog_llm.configure(gateways=[])
    sink.wait_for(1)
    client.chat.completions.create(model="mine", messages=ASK)
    sink.wait_for(2)
    (event,) = gateway.told(1)
    assert event["properties"]["$ai_input"] == ASK


@needs_gateway
def test_terminated_after_calls(
    provider: ScriptedProvider, receiver: PostHogReceiver, tmp_path: Path
) -> None:
    gateway = Gateway(provider, receiver, tmp_path)
    receiver.fault, receiver.delay = "slow", 0.5

    def call(number: int) -> int:
        status: int = gateway.post("/v1/embeddings", {"model": "vectors", "input": "a"})[0]
        return status

    try:
        gateway.wait()
        with ThreadPoolExecutor(20) as callers:  # all at once: none is sent before the signal
            assert set(callers.map(call, range(20))) == {200}
    finally:
        ended_at = time.monotonic()
        gateway.stop()
    assert time.monotonic() - ended_at < 10
    assert len(receiver.wait_for(20, timeout=1.0)) == 20


PROGRAM = """
import asyncio, os, sys
import litellm
from posthog_llm.litellm import PostHogLogger

litellm.callbacks = [PostHogLogger()]
place = {"api_base": os.environ["PROVIDER"], "api_key": "k"}
ask = [{"role": "user", "content": "hi"}]

async def one(n, **more):
    answer = await litellm.acompletion(
        "openai/gpt-4o", ask, metadata={"user_id": f"u{n}"}, **place, **more
    )
    if more:
        async for _ in answer:
            pass

async def many(start, count, **more):
    await asyncio.gather(*(one(n, **more) for n in range(start, start + count)))
"""


def run(program: str, provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    source = PROGRAM + textwrap.dedent(program)
    env = {**os.environ, **settings(receiver), "PROVIDER": provider.base_url}
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]


def users(events: list[Any]) -> set[str]:
    return {event["distinct_id"] for event in events}


def test_exit_right_after_the_loop(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    receiver.delay, receiver.fault = 1.0, "slow"
    run("asyncio.run(many(0, 300))", provider, receiver)
    assert users(receiver.wait_for(300)) == {f"u{n}" for n in range(300)}


def test_exit_right_after_streams(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    stream = "stream=True, stream_options={'include_usage': True}"
    run(f"asyncio.run(many(0, 5, {stream})); asyncio.run(one(5))", provider, receiver)
    events = receiver.wait_for(6)
    assert users(events) == {f"u{n}" for n in range(6)}
    for event in events:
        assert event["properties"]["posthog_llm_outcome"] == "ok"
        assert event["properties"]["$ai_output_tokens"] == 3


def test_posthog_is_away_for_seconds(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    receiver.status = 503
    program = """
    import threading, urllib.request
    asyncio.run(many(0, 50))
    print("down", flush=True)
    import time; time.sleep(3)
    asyncio.run(many(50, 1))
    import posthog_llm
    assert posthog_llm.flush(30)
    """
    import threading

    threading.Timer(6, lambda: setattr(receiver, "status", 200)).start()
    run(program, provider, receiver)
    assert users(receiver.wait_for(51)) == {f"u{n}" for n in range(51)}


# -- teams -----------------------------------------------------------------------------------

KEYS = {
    "sk-key-of-search-1": ("team-search", "alice's key"),
    "sk-key-of-search-2": ("team-search", "the indexer's key"),
    "sk-key-of-support": ("team-support", "the bot's key"),
}
TEAMS = f"""
from litellm.proxy._types import UserAPIKeyAuth
from posthog_llm.litellm import PostHogLogger

KEYS = {KEYS!r}
mine = PostHogLogger(groups={{"team": "team_id"}}, properties=["key_alias"])


async def who(request, api_key):
    team, alias = KEYS[api_key]
    return UserAPIKeyAuth(api_key=api_key, team_id=team, key_alias=alias)
"""


@needs_gateway
@pytest.mark.timeout(300)
def test_cost_by_team_and_key(
    tmp_path: Path, provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    config = CONFIG.replace("posthog_llm.litellm.logger", "guards.mine")
    config = config.replace("{master_key: MASTER}", "{master_key: MASTER, custom_auth: guards.who}")
    gateway = Gateway(provider, receiver, tmp_path, TEAMS, config)
    key_of = [list(KEYS)[n % 3] for n in range(60)]

    def ask(number: int) -> int:
        body = {"model": "mine", "messages": ASK, "stream": number % 2 == 0}
        forged = {"team_id": "team-forged", "groups": {"team": "forged"}, "key_alias": "forged"}
        more = {"stream_options": {"include_usage": True}} if body["stream"] else {}
        bearer = {"Authorization": f"Bearer {key_of[number]}"}
        path = "/v1/chat/completions"
        return int(gateway.post(path, {**body, **more, "metadata": forged}, **bearer)[0])

    try:
        gateway.wait()
        with ThreadPoolExecutor(12) as clients:
            assert set(clients.map(ask, range(60))) == {200}
        events = receiver.wait_for(60)
    finally:
        gateway.stop()
    told = [event["properties"] for event in events]
    counted = Counter((t["$groups"]["team"], t["key_alias"]) for t in told)
    assert counted == Counter(KEYS[key] for key in key_of)
    assert all(t["$ai_total_cost_usd"] > 0 and t["$ai_input_tokens"] == 9 for t in told)
    assert "sk-key" not in json.dumps(events)
