"""The queries of docs/queries.md, run over events of ours by ClickHouse's own engine.

HogQL is ClickHouse's SQL but for how it reads properties, and a few casts: those are written out
here, as PostHog does.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai as openai_sdk
import pytest
from posthog import Posthog

from posthog_llm import Price, configure
from posthog_llm.anthropic import Anthropic
from posthog_llm.openai import OpenAI
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider

chdb = pytest.importorskip("chdb", reason="ClickHouse's engine is in the docs session")
PAGE = Path(__file__).parent.parent / "docs" / "queries.md"
QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
CASTS = {"toFloat": "Float64", "toInt": "Int64"}
COLUMNS = "event String, distinct_id String, timestamp DateTime64(6), properties String"
SAY: Any = [{"role": "user", "content": "hi"}]


def in_clickhouse(query: str) -> str:
    """Write out what HogQL has of its own."""
    raw = r"JSONExtractRaw(properties, '\1')"
    value = rf"replaceRegexpAll(nullIf(nullIf({raw}, ''), 'null'), '^\"|\"$', '')"
    query = re.sub(r"properties\.([$\w]+)", value, query)
    for name, kind in CASTS.items():
        query = re.sub(rf"\b{name}\(", f"accurateCastOrNull_{kind}(", query)
    return query.replace("$group_0", "`$group_0`")


@pytest.fixture
def events(provider: ScriptedProvider, receiver: PostHogReceiver) -> Iterator[list[Any]]:
    """What two customers' calls told: three answered, one streamed, one refused."""
    configure(prices={"gpt-5-mini": Price(input=1, output=2)})
    to = Posthog("phc_queries", host=receiver.url)
    ask = OpenAI(base_url=provider.base_url, api_key="k", max_retries=0, posthog_client=to)
    claude = Anthropic(base_url=provider.url, api_key="k", posthog_client=to)
    acme: Any = {"posthog_groups": {"company": "acme"}, "posthog_properties": {"team": "search"}}
    umbrella: Any = {"posthog_groups": {"company": "umbrella"}}
    ask.chat.completions.create(model="gpt-5-mini", messages=SAY, **acme)
    ask.chat.completions.create(model="gpt-5-mini", messages=SAY, **umbrella)
    claude.messages.create(model="claude-haiku-5-5", max_tokens=9, messages=SAY, **acme)
    list(ask.chat.completions.create(model="gpt-5-mini", messages=SAY, stream=True, **acme))
    provider.script("/chat/completions", Reply.error(429, "slow down"))
    with contextlib.suppress(openai_sdk.RateLimitError):
        ask.chat.completions.create(model="gpt-5-mini", messages=SAY, **umbrella)
    to.flush()
    yield receiver.wait_for(5)
    to.shutdown()


def rows_of(query: str, events: list[Any]) -> list[list[Any]]:
    """Run a query over a table like PostHog's."""
    session = chdb.session.Session()
    try:
        session.query(f"CREATE TABLE events ({COLUMNS}, `$group_0` String) ENGINE = Memory")
        for name, kind in CASTS.items():
            cast = f"(x) -> accurateCastOrNull(x, '{kind}')"
            session.query(f"CREATE FUNCTION accurateCastOrNull_{kind} AS {cast}", name)
        lines = "\n".join(json.dumps(row(event)) for event in events)
        session.query(f"INSERT INTO events FORMAT JSONEachRow\n{lines}")
        answer = session.query(in_clickhouse(query), "JSONCompactEachRow").bytes().decode()
        return [json.loads(line) for line in answer.splitlines()]
    finally:
        session.close()


def row(event: dict[str, Any]) -> dict[str, Any]:
    properties = event["properties"]
    return {
        "event": event["event"],
        "distinct_id": event["distinct_id"],
        "timestamp": event["timestamp"].replace("+00:00", ""),
        "properties": json.dumps(properties),
        "$group_0": properties.get("$groups", {}).get("company", ""),
    }


def test_each_query_answers(events: list[Any]) -> None:
    costs, first_tokens, errors, shares, tokens = (rows_of(query, events) for query in QUERIES)
    assert costs == [["acme", 3e-05, 3, 1], ["umbrella", 1.5e-05, 2, 1]]
    ((model, seconds, streams),) = first_tokens
    assert (model, streams) == ("gpt-5-mini", 1)
    assert 0 < seconds < 60
    assert errors == [["gpt-5-mini", "RateLimitError", "429", 1]]
    assert shares == [["gpt-5-mini", 0.25, 0], ["claude-haiku-5-5", 0, 0]]
    assert tokens == [["search", 27, 9, 0], [None, 9, 3, None]]
