"""What type checkers must refuse: each line that ends in `# wrong`, and no other."""

from __future__ import annotations

from typing import Any

import posthog_llm
from posthog_llm.anthropic import Anthropic, AsyncAnthropic
from posthog_llm.litellm import PostHogLogger
from posthog_llm.openai import AsyncOpenAI, OpenAI

SAY: Any = [{"role": "user", "content": "Hello"}]

client = OpenAI()
create = client.chat.completions.create
raw = client.chat.completions.with_raw_response
streaming = client.chat.completions.with_streaming_response

create(model="m", messages=SAY, posthog_distinctid="u")  # wrong
create(model="m", messages=SAY, posthog_distinct_id=1.5)  # wrong
create(model="m", messages=SAY, posthog_privacy_mode="yes")  # wrong
create(model="m", messages=SAY, posthog_properties=["a"])  # wrong
create(model="m", messages=SAY, posthog_client="phc_key")  # wrong
create(model="m", messages=SAY, posthog_redact=str)  # wrong
create(model="m", message=SAY, posthog_distinct_id="u")  # wrong
create(model="m", posthog_distinct_id="u")  # wrong
client.responses.create(model="m", input="x", posthog_group={})  # wrong
client.embeddings.create(model="m", input="x", posthog_session_id=[])  # wrong
raw.create(model="m", messages=SAY, posthog_distinctid="u")  # wrong
raw.create(model="m", messages=SAY, posthog_distinct_id=1.5)  # wrong
streaming.create(model="m", messages=SAY, posthog_distinctid="u")  # wrong
client.with_options(posthog_distinctid="u")  # wrong
client.models.list(posthog_distinct_id="u")  # wrong
client.webhooks.verify_signature("x", {}, posthog_distinct_id="u")  # wrong
OpenAI(posthog_stream_usage="no")  # wrong
OpenAI(posthog_api_key="phc_key")  # wrong
AsyncOpenAI(posthog_redact="x")  # wrong
Anthropic(posthog_distinct_id={})  # wrong
Anthropic().messages.create(max_tokens=1, model="m", messages=SAY, posthog_user="u")  # wrong
Anthropic().messages.stream(max_tokens=1, model="m", messages=SAY, posthog_user="u")  # wrong
AsyncAnthropic().messages.create(model="m", messages=SAY, posthog_distinct_id="u")  # wrong

PostHogLogger(posthog_distinctid="u")  # wrong
posthog_llm.context(distinctid="u")  # wrong
posthog_llm.trace("t", span_id="s")  # wrong
posthog_llm.capture_generation(model="m", input_token=1)  # wrong
posthog_llm.capture_generation(input_tokens=1)  # wrong
posthog_llm.generation(span_name="s")  # wrong
posthog_llm.capture_generation(model="m", latency="1 s")  # wrong
posthog_llm.capture_feedback("t", "x", score=1)  # wrong
