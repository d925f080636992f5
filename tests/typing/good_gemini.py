"""What strict type checkers accept of our client of Gemini."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from google import genai
from typing_extensions import assert_type

from posthog_llm.gemini import Client, types

client = Client(api_key="k", posthog_distinct_id="u", posthog_redact=lambda text: text)
same: genai.Client = client
Answer = types.GenerateContentResponse
models, source = client.models, types.GenerateVideosSource(prompt="x")
assert_type(models.generate_content(model="m", contents="x", posthog_distinct_id="u"), Answer)
stream = models.generate_content_stream(model="m", contents="x", posthog_trace_id="t")
assert_type(stream, Iterator[Answer])
vectors = models.embed_content(model="m", contents="x", posthog_capture=False)
assert_type(vectors, types.EmbedContentResponse)
assert_type(models.count_tokens(model="m", contents="x"), types.CountTokensResponse)
models.generate_videos(model="m", source=source, posthog_properties={"a": 1})
chat = client.chats.create(model="m", config={"temperature": 0.5})
assert_type(chat.send_message("x", posthog_session_id="s"), Answer)
client.caches.create(model="m")
client.files.upload(file="a")


async def use() -> None:
    models = client.aio.models
    answer = await models.generate_content(model="m", contents="x", posthog_groups={"a": "b"})
    assert_type(answer, Answer)
    stream = await models.generate_content_stream(model="m", contents="x")
    assert_type(stream, AsyncIterator[Answer])
    chat = client.aio.chats.create(model="m")
    assert_type(await chat.send_message("x", posthog_span_name="s"), Answer)
    await models.generate_images(model="m", prompt="x", posthog_distinct_id="u")
