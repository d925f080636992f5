"""Writes the table of `docs/gateways.md` from the code's.

python -m tests.gateways_page
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from posthog_llm._providers.gateways import ROWS
from posthog_llm._providers.row import Row

PAGE = Path(__file__).parent.parent / "docs" / "gateways.md"
_BEGIN, _END = "<!-- table: python -m tests.gateways_page -->\n", "<!-- end of the table -->\n"


def written() -> str:
    """Return the page with the table as it is now."""
    head, _, rest = PAGE.read_text().partition(_BEGIN)
    return head + _BEGIN + "".join(f"{line}\n" for line in table()) + _END + rest.partition(_END)[2]


def table() -> Iterator[str]:
    yield "| Service | Known by | `$ai_provider` | Name that is priced | Cost that it reports |"
    yield "|---|---|---|---|---|"
    for row in ROWS:
        cells = row.title, _known_by(row), _provider(row), _name(row), _cost(row)
        yield f"| {' | '.join(cells)} |"


def _known_by(row: Row) -> str:
    local = [f"port {row.port}, nearby"] if row.port else []
    local += [f"header `server: {row.server}`"] if row.server else []
    headers = [
        f"header `{name.removeprefix('<')}`{' of the answer' if name[0] == '<' else ''}"
        for name in row.headers
    ]
    classes = [f"class `{name}`" for name in row.classes]
    return ", ".join([*(f"`{host}`" for host in row.hosts), *headers, *classes, *local])


def _provider(row: Row) -> str:
    own = [f"`{row.provider}`"] if row.provider else []
    return ", else ".join([*(place.says for place in row.places), *own])


def _name(row: Row) -> str:
    if row.priced:
        properties = f"header `{row.ran}`, else " if row.ran else ""
        return f"{properties}{row.priced}"
    return "requested" if row.provider else "requested; served where no provider is named"


def _cost(row: Row) -> str:
    if row.is_local:
        return "0: nobody charges"
    if not row.cost:
        return ""
    if row.cost[0][0] == "<":
        return f"header `{row.cost[0][1:]}`"
    return f"`{'.'.join(row.cost)}`"


if __name__ == "__main__":
    PAGE.write_text(written())
