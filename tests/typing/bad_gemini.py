"""What type checkers refuse."""

from posthog_llm.gemini import Client

client = Client(api_key="k", posthog_distinct_idd="u")  # wrong
client.models.generate_content(model="m", contents="x", posthog_distinct_idd="u")  # wrong
client.models.generate_content(model="m", contents="x", posthog_properties=7)  # wrong
client.models.generate_content(contents="x", posthog_distinct_id="u")  # wrong
client.models.count_tokens(model="m", contents="x", posthog_distinct_id="u")  # wrong
client.chats.create(model="m").send_message("x", posthog_trace="t")  # wrong


async def use() -> None:
    await client.aio.models.embed_content(model="m", contents="x", posthog_span="t")  # wrong
