"""What type checkers must take: every line, with the types that the SDKs themselves have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import posthog
from anthropic import Anthropic as SdkAnthropic
from anthropic import AsyncStream as AsyncMessageStreamOfEvents
from anthropic import Stream as StreamOfEvents
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage
from openai import AsyncStream, Stream
from openai.resources.chat import Completions
from openai.types import CreateEmbeddingResponse, ImagesResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion
from openai.types.responses import ParsedResponse, Response, ResponseStreamEvent
from pydantic import BaseModel
from typing_extensions import Unpack, assert_type

import posthog_llm
from posthog_llm.anthropic import Anthropic, AnthropicBedrock, AnthropicVertex, AsyncAnthropic
from posthog_llm.openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, RateLimitError

if TYPE_CHECKING:
    from posthog_llm.types import CallArguments, Destination

SAY: Any = [{"role": "user", "content": "Hello"}]


class Answer(BaseModel):
    word: str


def redact(text: str) -> str | None:
    return text or None


def chat(client: OpenAI, flag: bool) -> None:
    create = client.chat.completions.create
    plain = create(model="m", messages=SAY, posthog_distinct_id="u", posthog_groups={"company": 1})
    assert_type(plain, ChatCompletion)
    assert_type(
        create(model="m", messages=SAY, stream=True, posthog_trace_id=7),
        Stream[ChatCompletionChunk],
    )
    assert_type(
        create(model="m", messages=SAY, stream=flag, posthog_privacy_mode=True),
        ChatCompletion | Stream[ChatCompletionChunk],
    )
    parsed = client.chat.completions.parse(
        model="m", messages=SAY, response_format=Answer, posthog_span_name="parse"
    )
    assert_type(parsed, ParsedChatCompletion[Answer])
    with client.chat.completions.stream(model="m", messages=SAY, posthog_capture=False) as stream:
        for event in stream:
            assert_type(event.type == "chunk", bool)
    pictures = client.images.generate(prompt="x", posthog_distinct_id="u")
    assert_type(pictures, ImagesResponse)
    with client.audio.speech.with_streaming_response.create(
        input="x", model="m", voice="alloy", posthog_distinct_id="u"
    ) as sound:
        assert_type(sound.read(), bytes)
    vectors = client.embeddings.create(model="m", input="x", posthog_properties={"a": [1]})
    assert_type(vectors, CreateEmbeddingResponse)


def responses(client: OpenAI) -> None:
    assert_type(client.responses.create(model="m", input="x", posthog_session_id="s"), Response)
    assert_type(
        client.responses.create(model="m", input="x", stream=True, posthog_parent_id="p"),
        Stream[ResponseStreamEvent],
    )
    parsed = client.responses.parse(
        model="m", input="x", text_format=Answer, posthog_trace_name="t"
    )
    assert_type(parsed, ParsedResponse[Answer])


def raw(client: OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="m", messages=SAY, posthog_distinct_id="u"
    )
    assert_type(answer.parse(), ChatCompletion)
    stream = client.chat.completions.with_raw_response.create(
        model="m", messages=SAY, stream=True, posthog_distinct_id="u"
    )
    assert_type(stream.parse(), Stream[ChatCompletionChunk])
    below = client.with_raw_response.embeddings.create(
        model="m", input="x", posthog_distinct_id="u"
    )
    assert_type(below.parse(), CreateEmbeddingResponse)
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=SAY, posthog_distinct_id="u"
    ) as response:
        assert_type(response.parse(), ChatCompletion)


async def awaited(client: AsyncOpenAI) -> None:
    create = client.chat.completions.create
    assert_type(await create(model="m", messages=SAY, posthog_distinct_id="u"), ChatCompletion)
    stream = await create(model="m", messages=SAY, stream=True, posthog_distinct_id="u")
    assert_type(stream, AsyncStream[ChatCompletionChunk])
    answer = await client.chat.completions.with_raw_response.create(
        model="m", messages=SAY, posthog_distinct_id="u"
    )
    assert_type(answer.parse(), ChatCompletion)


def messages(client: Anthropic, flag: bool) -> None:
    create = client.messages.create
    assert_type(create(max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"), Message)
    assert_type(
        create(max_tokens=1, model="m", messages=SAY, stream=True, posthog_distinct_id="u"),
        StreamOfEvents[RawMessageStreamEvent],
    )
    assert_type(
        create(max_tokens=1, model="m", messages=SAY, stream=flag, posthog_distinct_id="u"),
        Message | StreamOfEvents[RawMessageStreamEvent],
    )
    raw = client.messages.with_raw_response.create(
        max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"
    )
    assert_type(raw.parse(), Message)
    with client.messages.stream(
        max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"
    ) as stream:
        for text in stream.text_stream:
            assert_type(text, str)
        assert_type(stream.get_final_message().id, str)


async def awaited_messages(client: AsyncAnthropic) -> None:
    create = client.messages.create
    assert_type(
        await create(max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"), Message
    )
    assert_type(
        await create(max_tokens=1, model="m", messages=SAY, stream=True, posthog_distinct_id="u"),
        AsyncMessageStreamOfEvents[RawMessageStreamEvent],
    )


def clients(destination: posthog.Posthog, http_client: Any) -> None:
    client = OpenAI(
        api_key="k",
        max_retries=1,
        posthog_client=destination,
        posthog_redact=redact,
        posthog_stream_usage=False,
        posthog_openrouter=True,
        posthog_request_user=True,
        posthog_distinct_id="u",
    )
    assert_type(client.with_options(timeout=3, posthog_distinct_id="u"), OpenAI)
    assert_type(client.copy(posthog_groups={}), OpenAI)
    assert_type(
        AzureOpenAI(
            azure_endpoint="https://x", api_version="1", posthog_client=posthog
        ).chat.completions.create(model="m", messages=SAY, posthog_distinct_id="u"),
        ChatCompletion,
    )
    AsyncAzureOpenAI(azure_endpoint="https://x", posthog_client=posthog_llm.Project("phc_x"))
    vertex = AnthropicVertex(region="r", project_id="p", posthog_client=destination)
    assert_type(
        vertex.messages.create(max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"),
        Message,
    )
    beta = AnthropicBedrock().beta.messages.create
    assert_type(beta(max_tokens=1, model="m", messages=SAY, posthog_distinct_id="u"), BetaMessage)
    assert_type(Anthropic().with_options(posthog_distinct_id="u"), Anthropic)


def as_the_sdks(client: OpenAI, async_client: AsyncOpenAI, anthropic: Anthropic) -> None:
    sdk: openai.OpenAI = client
    async_sdk: openai.AsyncOpenAI = async_client
    other: SdkAnthropic = anthropic
    completions: Completions = client.chat.completions
    print(sdk, async_sdk, other, completions)


def caught(client: OpenAI) -> str:
    try:
        return client.models.list().data[0].id
    except RateLimitError as error:
        assert_type(error, openai.RateLimitError)
        return str(error.status_code)


def forwarded(client: OpenAI, to: Destination, **posthog: Unpack[CallArguments]) -> ChatCompletion:
    return client.chat.completions.create(model="m", messages=SAY, **posthog)


def by_hand() -> None:
    with posthog_llm.trace("t", distinct_id="u", posthog_client=posthog, input=1) as trace:
        trace.output = "x"
        with posthog_llm.span("s", type="tool"), posthog_llm.context(session_id="c", capture=True):
            made = posthog_llm.capture_generation(model="m", input_tokens=1, latency=0.1)
    assert_type(made, str)
    posthog_llm.capture_feedback(trace.trace_id, "good", distinct_id="u")

    @posthog_llm.trace("decorated")
    def decorated(number: int) -> str:
        return str(number)

    assert_type(decorated(1), str)
