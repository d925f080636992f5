"""What the table of the README says of us and of others: each cell is what happened here.

`posthog.ai` comes with the `posthog` package, LiteLLM's own logger with LiteLLM. What a service
does (OpenRouter's Broadcast) cannot be run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai as openai_sdk
import posthog
import posthog.ai.anthropic
import posthog.ai.openai
import pytest

import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm import _faults as faults
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider

from .driving import use_callbacks

try:
    import litellm
    from litellm.litellm_core_utils import litellm_logging
except ImportError:  # it is in the gateway session
    litellm = litellm_logging = None

SAY: Any = [{"role": "user", "content": "hi"}]
WHO: Any = {"posthog_distinct_id": "user-7"}
QUESTION: Any = {"model": "gpt-5-mini", "messages": SAY}
ASK: Any = {**QUESTION, **WHO}
CHAT = "A plain call"
PARSE = "Structured answers (`parse`)"
RAW = "`with_raw_response`"
HELPERS = "`.stream()` helpers"
IMAGES = "Images"
AUDIO = "Speech"
OPTIONS = "Clients of `with_options()`"
BETA = "Anthropic's `beta.messages`"
TYPE = "A stream is the SDK's own object"
USAGE = "A stream's tokens, without another chunk for you"
FIRST_TOKEN = "Time to first token"
DROPPED = "A stream that is abandoned unread"
CANCELLED = "A cancelled call is recorded, not as an error"
BROKEN_OFF = "A stream that breaks off is an error"
RETRIES = "The SDK's retries are counted"
LIFETIMES = "Cache writes by lifetime (5 minutes, 1 hour)"
RAISES = "A broken PostHog client cannot break your call"
ECHO = "Privacy mode withholds error texts that echo the prompt"
UNREACHED = "A request that reaches nobody is an error"
NAMED = "`user` and `session_id` of a request to OpenRouter"
CHARGED = "What OpenRouter charged"
UNKNOWN = "Unknown token counts are absent, not 0"
BROKEN = Reply(
    (b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',),
    headers={"content-type": "text/event-stream"},
    cut=True,
)
REFUSAL = Reply.json({"error": {"message": "bad input: my diagnosis"}}, 400)
OLD_POSTHOG = tuple(map(int, posthog.VERSION.split(".")[:2])) < (7, 91)
OURS = (posthog_llm.openai, posthog_llm.anthropic)
POSTHOG_AI = (posthog.ai.openai, posthog.ai.anthropic)


class Try:
    """One library's clients, and the events that a real PostHog client delivered of them."""

    def __init__(
        self, modules: tuple[Any, Any], provider: ScriptedProvider, receiver: PostHogReceiver
    ) -> None:
        self._modules, self.provider, self._receiver = modules, provider, receiver
        self._posthog = posthog.Posthog("phc_compared", host=receiver.url)

    def client(self, name: str = "OpenAI", destination: Any = None, url: str = "") -> Any:
        module = self._modules["Anthropic" in name]
        url = url or (self.provider.url if "Anthropic" in name else self.provider.base_url)
        to = destination or self._posthog
        return getattr(module, name)(base_url=url, api_key="k", max_retries=1, posthog_client=to)

    def events(self) -> list[dict[str, Any]]:
        gc.collect()
        time.sleep(0.05)
        self._posthog.flush()
        return [e["properties"] for e in self._receiver.events]

    def people(self) -> list[str]:
        return [event["distinct_id"] for event in self._receiver.events]

    def close(self) -> None:
        self._posthog.shutdown()


def is_one_error(events: list[dict[str, Any]]) -> bool:
    return [bool(event.get("$ai_is_error")) for event in events] == [True]


def is_one_without_error(events: list[dict[str, Any]]) -> bool:
    return len(events) == 1 and not events[0].get("$ai_is_error")


def tells_no_tokens(events: list[dict[str, Any]]) -> bool:
    return all("$ai_input_tokens" not in event for event in events)


def is_one_without_the_prompt(events: list[dict[str, Any]]) -> bool:
    return len(events) == 1 and "diagnosis" not in str(events)


def one_event(use: Callable[..., Any], client: str = "OpenAI") -> Callable[[Try], bool]:
    def tried(library: Try) -> bool:
        try:
            use(library.client(client), **WHO)
        except TypeError:  # it does not take the arguments there
            use(library.client(client))
        return len(library.events()) == 1

    return tried


def stream_is_the_sdks(library: Try) -> bool:
    stream = library.client().chat.completions.create(stream=True, **ASK)
    list(stream)
    return isinstance(stream, openai_sdk.Stream)


def usage_unseen(library: Try) -> bool:
    chunks = list(library.client().chat.completions.create(stream=True, **ASK))
    (event,) = library.events()
    return "$ai_output_tokens" in event and all(chunk.usage is None for chunk in chunks)


def first_token(library: Try) -> bool:
    list(library.client().chat.completions.create(stream=True, **ASK))
    (event,) = library.events()
    return "$ai_time_to_first_token" in event


def dropped(library: Try) -> bool:
    stream = library.client().chat.completions.create(stream=True, **ASK)
    del stream
    return len(library.events()) == 1


def cancelled_is_no_error(library: Try) -> bool:
    async def run() -> None:
        client = library.client("AsyncOpenAI")
        task = asyncio.ensure_future(client.chat.completions.create(**ASK))
        while not library.provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    library.provider.script("/chat/completions", Reply((b"{}",), delay=5.0))
    asyncio.run(run())
    return is_one_without_error(library.events())


def broken_stream_is_an_error(library: Try) -> bool:
    library.provider.script("/chat/completions", BROKEN)
    with contextlib.suppress(Exception):
        list(library.client().chat.completions.create(stream=True, **ASK))
    return is_one_error(library.events())


def unreached(library: Try) -> bool:
    with contextlib.suppress(openai_sdk.APIConnectionError):
        library.client(url="http://127.0.0.1:9/v1").chat.completions.create(**ASK)
    return is_one_error(library.events())


def of_openrouter(library: Try) -> dict[str, Any]:
    """Return the event of a request that OpenRouter answered, as its documents show it."""
    said = {"role": "assistant", "content": "Hi"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "cost": 0.25}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    body = {"id": "gen-1", "object": "chat.completion", "created": 0, "model": "m/m"}
    answer = Reply.json({**body, "choices": [choice], "usage": usage})
    library.provider.script("/chat/completions", answer)
    library.client().chat.completions.create(
        **QUESTION,
        user="user-9",
        extra_body={"session_id": "chat-9"},
        posthog_provider_override="openrouter",
    )
    return library.events()[0]


def named(library: Try) -> bool:
    found = of_openrouter(library)
    return found.get("$ai_session_id") == "chat-9" and library.people() == ["user-9"]


def charged(library: Try) -> bool:
    return of_openrouter(library).get("$ai_total_cost_usd") == 0.25


def unknown_is_absent(library: Try) -> bool:
    library.provider.script("/chat/completions", REFUSAL)
    with contextlib.suppress(openai_sdk.BadRequestError):
        library.client().chat.completions.create(**ASK)
    return tells_no_tokens(library.events())


def retries_told(library: Try) -> bool:
    library.provider.script("/chat/completions", Reply.json({"error": {"message": "x"}}, 503))
    library.client().chat.completions.create(**ASK)
    (event,) = library.events()
    return any("retries" in name and value == 1 for name, value in event.items())


def lifetimes_of_cache_writes(library: Try) -> bool:
    usage = {
        "input_tokens": 5,
        "output_tokens": 3,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-5-5"}
    body = {**message, "content": [], "stop_reason": "end_turn", "usage": usage}
    library.provider.script("/messages", Reply.json(body))
    library.client("Anthropic").messages.create(max_tokens=9, **ASK)
    (event,) = library.events()
    return 20 in event.values() and 10 in event.values()


class Broken:
    """A PostHog client that is broken."""

    privacy_mode = False

    def capture(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("telemetry is down")


def capture_that_raises(library: Try) -> bool:
    client = library.client(destination=Broken())
    try:
        return bool(client.chat.completions.create(**ASK).choices)
    except RuntimeError:
        return False


def error_echo_withheld(library: Try) -> bool:
    library.provider.script("/chat/completions", REFUSAL)
    with contextlib.suppress(openai_sdk.BadRequestError):
        library.client().chat.completions.create(posthog_privacy_mode=True, **ASK)
    found = library.events()
    return is_one_without_the_prompt(found)


ROWS: dict[str, Callable[[Try], bool]] = {
    CHAT: one_event(lambda c, **who: c.chat.completions.create(**QUESTION, **who)),
    PARSE: one_event(
        lambda c, **who: c.beta.chat.completions.parse(
            response_format={"type": "json_object"}, **QUESTION, **who
        )
    ),
    RAW: one_event(lambda c, **who: c.chat.completions.with_raw_response.create(**QUESTION, **who)),
    HELPERS: one_event(
        lambda c, **who: c.chat.completions.stream(**QUESTION, **who).__enter__().until_done()
    ),
    IMAGES: one_event(lambda c, **who: c.images.generate(model="m", prompt="x", **who)),
    AUDIO: one_event(
        lambda c, **who: c.audio.speech.create(model="m", input="x", voice="alloy", **who)
    ),
    OPTIONS: one_event(
        lambda c, **who: c.with_options(timeout=9).chat.completions.create(**QUESTION, **who)
    ),
    BETA: one_event(
        lambda c, **who: c.beta.messages.create(max_tokens=9, **QUESTION, **who), "Anthropic"
    ),
    TYPE: stream_is_the_sdks,
    USAGE: usage_unseen,
    FIRST_TOKEN: first_token,
    DROPPED: dropped,
    CANCELLED: cancelled_is_no_error,
    BROKEN_OFF: broken_stream_is_an_error,
    RETRIES: retries_told,
    LIFETIMES: lifetimes_of_cache_writes,
    RAISES: capture_that_raises,
    NAMED: named,
    CHARGED: charged,
    UNREACHED: unreached,
    UNKNOWN: unknown_is_absent,
    ECHO: error_echo_withheld,
}


class LiteTry(Try):
    """LiteLLM with one callback, and the events that arrived."""

    def __init__(
        self, callbacks: list[Any], provider: ScriptedProvider, receiver: PostHogReceiver
    ) -> None:
        self.provider, self._receiver = provider, receiver
        self._callbacks = callbacks

    def ask(self, function: str = "acompletion", use: str = "read", **given: Any) -> None:
        """Make a call of LiteLLM's in a loop of its own; what it raises is of no interest."""
        place = {"api_base": self.provider.base_url, "api_key": "k", "max_retries": 0}
        if function == "acompletion":
            given = {"model": "openai/gpt-4o", "messages": SAY, **given}

        async def call() -> None:
            answer = await getattr(litellm, function)(**{**place, **given})
            if use == "read" and hasattr(answer, "__aiter__"):
                [piece async for piece in answer]

        async def run() -> None:
            task = asyncio.ensure_future(call())
            if use == "cancel":
                while not self.provider.requests:
                    await asyncio.sleep(0.01)
                task.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await task
            del task
            gc.collect()
            await asyncio.sleep(0.3)  # LiteLLM calls back in tasks of its own
            for callback in litellm_logging._in_memory_loggers:
                if hasattr(callback, "flush_queue"):
                    await callback.flush_queue()

        use_callbacks(litellm, self._callbacks)
        asyncio.run(run())

    def events(self) -> list[dict[str, Any]]:
        gc.collect()
        time.sleep(0.3)
        posthog_llm.flush()
        return [e["properties"] for e in self._receiver.events]

    def close(self) -> None:
        litellm.callbacks = []


def lite(function: str = "acompletion", **given: Any) -> Callable[[LiteTry], bool]:
    def tried(library: LiteTry) -> bool:
        library.ask(function, **given)
        return len(library.events()) == 1

    return tried


def lite_first_token(library: LiteTry) -> bool:
    library.ask(stream=True)
    return "$ai_time_to_first_token" in library.events()[0]


def lite_cancelled(library: LiteTry) -> bool:
    library.provider.script("/chat/completions", Reply((b"{}",), delay=5.0))
    library.ask(use="cancel")
    return is_one_without_error(library.events())


def lite_broken(library: LiteTry) -> bool:
    library.provider.script("/chat/completions", BROKEN)
    library.ask(stream=True)
    return is_one_error(library.events())


def lite_unreached(library: LiteTry) -> bool:
    library.ask(api_base="http://127.0.0.1:9/v1")
    return is_one_error(library.events())


def lite_unknown_is_absent(library: LiteTry) -> bool:
    library.provider.script("/chat/completions", REFUSAL)
    library.ask()
    return tells_no_tokens(library.events())


def lite_echo_withheld(library: LiteTry) -> bool:
    library.provider.script("/chat/completions", REFUSAL)
    litellm.turn_off_message_logging = True
    try:
        library.ask()
        found = library.events()
    finally:
        litellm.turn_off_message_logging = False
    return is_one_without_the_prompt(found)


LITELLM_ROWS: dict[str, Callable[[LiteTry], bool]] = {
    CHAT: lite(),
    IMAGES: lite("aimage_generation", model="openai/gpt-image-1", prompt="x"),
    AUDIO: lite("aspeech", model="openai/tts-1", input="x", voice="alloy"),
    FIRST_TOKEN: lite_first_token,
    DROPPED: lite(stream=True, use="drop"),
    CANCELLED: lite_cancelled,
    BROKEN_OFF: lite_broken,
    UNREACHED: lite_unreached,
    UNKNOWN: lite_unknown_is_absent,
    ECHO: lite_echo_withheld,
}


def table() -> dict[str, list[str]]:
    """Return the README's table: the cells of each row, by its title."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    lines = re.findall(r"^\| (.+) \|$", text, re.M)
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in rows if len(row) == 5}


def said(cell: str) -> bool:
    assert cell in ("yes", "no")
    return cell == "yes"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("library", ["posthog-llm", "posthog.ai"])
def test_the_table_tells_what_happens(
    row: str, library: str, provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    ours = library == "posthog-llm"
    if not ours and OLD_POSTHOG:
        pytest.skip("the table tells of posthog 7.91 and newer")
    tried = Try(OURS if ours else POSTHOG_AI, provider, receiver)
    cell = table()[row][0 if ours else 1]
    try:
        assert ROWS[row](tried) == said(cell)
    finally:
        tried.close()
        if ours and row == RAISES:
            posthog_llm.flush()
            faults.counts.clear()  # it was the point


@pytest.mark.parametrize("row", LITELLM_ROWS)
@pytest.mark.parametrize("library", ["posthog-llm", "LiteLLM's logger"])
def test_the_table_tells_what_happens_with_litellm(
    row: str,
    library: str,
    provider: ScriptedProvider,
    receiver: PostHogReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")
    from posthog_llm.litellm import PostHogLogger

    monkeypatch.setenv("POSTHOG_API_KEY", "phc_compared")
    monkeypatch.setenv("POSTHOG_API_URL", receiver.url)
    monkeypatch.setattr(litellm_logging, "_in_memory_loggers", [])
    ours = library == "posthog-llm"
    callbacks = [PostHogLogger()] if ours else ["posthog"]
    tried = LiteTry(callbacks, provider, receiver)
    try:
        assert LITELLM_ROWS[row](tried) == said(table()[row][0 if ours else 2])
    finally:
        tried.close()


def test_the_table_has_a_test_for_each_cell() -> None:
    rows = table()
    assert rows.keys() >= ROWS.keys()
    for title, cells in rows.items():
        if title in ROWS:
            assert (cells[2] in ("yes", "no")) == (title in LITELLM_ROWS), title
            assert cells[3] in ("-", "yes*", "no*"), title  # its documents, not a test
