"""The `posthog-llm` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .._delivery.destinations import environment, is_mock
from .._delivery.lifecycle import shutdown, stats
from .._jobs import Delivery, job
from .._settings import configure
from .connection import Unreachable, app_url, check_project, send

if TYPE_CHECKING:
    from .._delivery.spool_file import Address

_NEEDED = ("OPENAI_API_KEY", "POSTHOG_API_KEY")
_MOST_SECONDS = 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="posthog-llm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="make calls of every kind and show their events")
    demo.add_argument("--json", action="store_true", help="print the events themselves")
    demo.add_argument(
        "--live", action="store_true", help=f"use the real services ({' and '.join(_NEEDED)})"
    )
    check = commands.add_parser(
        "check", help="send one event to the project configured in the environment"
    )
    check.add_argument(
        "--timeout", type=_seconds, default=10.0, help="seconds to wait for PostHog (default: 10)"
    )
    spool = commands.add_parser("spool", help="show or send spooled events of ended processes")
    spool.add_argument("action", choices=("show", "send"))
    spool.add_argument("directory", type=_directory)
    spool.add_argument(
        "--timeout", type=_seconds, default=60.0, help="most seconds to send for (default: 60)"
    )
    options = parser.parse_args(arguments)
    if options.command == "check":
        return _check(options.timeout)
    if options.command == "demo":
        return _demo(options)
    if options.action == "show":
        return _show(options.directory)
    return _send(options.directory, options.timeout)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most {_MOST_SECONDS}")
    return seconds


_seconds.__name__ = "number of seconds"  # as argparse names it in "invalid ... value"


def _directory(path: str) -> str:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is no directory")
    return path


def _show(directory: str) -> int:
    """Print what is in a spool, without sending it."""
    from .._delivery.spool import contents_of

    found = contents_of(directory)
    for address, count in found.events.items():
        place = "an address that cannot be read" if address is None else _named(address)
        print(f"{_events(count)} for {place}")
    if found.oldest is not None:
        print(f"The oldest is of {datetime.fromtimestamp(found.oldest).isoformat(' ', 'seconds')}")
    if not found.events:
        print("No events of ended processes")
    if found.in_use:
        print(f"{found.in_use} more files are of processes that live")
    if found.damaged:
        print(f"{found.damaged} files cannot be read")
    return 0


def _named(address: Address) -> str:
    key = f"{address.project.api_key[:8]}..."
    only = ", through a client with a before_send only" if address.filtered else ""
    return f"{address.project.host}, the project with the key {key}{only}"


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


def _send(directory: str, timeout: float) -> int:
    """Send what ended processes left in a spool."""
    if is_mock():
        print("POSTHOG_MOCK is set, so nothing is sent. Unset it.", file=sys.stderr)
        return 1
    with job(timeout=timeout) as sending:
        configure(spool=directory)
    left, result = stats().spooled, sending.delivery or Delivery()
    print(f"{_events(result.delivered)} delivered")
    for reason, count in result.lost.items():
        print(f"{_events(count)} lost: {reason}", file=sys.stderr)
    shutdown(1)
    if left:
        print(f"{_events(left)} left; `posthog-llm spool show` lists them", file=sys.stderr)
    return 1 if left or result.lost else 0


def _check(timeout: float) -> int:
    """Print whether events would arrive, and if not, why."""
    project, trace_id = environment(), str(uuid.uuid4())
    properties = {
        "$ai_trace_id": trace_id,
        "$ai_span_id": str(uuid.uuid4()),
        "$ai_span_name": "posthog-llm check",
        "$ai_model": "posthog-llm-check",
        "$ai_provider": "posthog-llm",
        "$ai_input": [{"role": "user", "content": "Does this event arrive?"}],
        "$ai_output_choices": [{"role": "assistant", "content": "It does."}],
        "$ai_latency": 0.0,
        "$process_person_profile": False,
        "posthog_llm_check": True,
    }
    try:
        check_project(project)
        if is_mock():
            raise Unreachable("POSTHOG_MOCK is set, so nothing is sent. Unset it.")
        send(project, "$ai_generation", properties, timeout)
    except Unreachable as reason:
        print(f"posthog-llm check: {reason}", file=sys.stderr)
        return 1
    key = f"{project.api_key[:8]}..."
    print(f"{project.host} accepted a test event for the project with the key {key}")
    print(f"Look for it in about a minute: {app_url(project)}/ai-observability/traces/{trace_id}")
    print("or in the activity view, where posthog_llm_check is true")
    return 0


def _demo(options: argparse.Namespace) -> int:
    try:
        from .. import _demo as scenario

        if not (options.json or options.live):
            import rich  # noqa: F401  # pyright: ignore[reportUnusedImport] - before any call
    except ImportError as error:
        print(f"{error}\nThe demo needs: pip install 'posthog-llm[demo]'", file=sys.stderr)
        return 1
    if options.live:
        missing = [name for name in _NEEDED if not os.environ.get(name)]
        if missing:
            print(f"--live needs {' and '.join(missing)} in the environment", file=sys.stderr)
            return 2
        if is_mock():
            print("--live sends nothing while POSTHOG_MOCK is set. Unset it.", file=sys.stderr)
            return 2
        print(f"{scenario.run_live()} events sent; see your PostHog project")
        return 0
    events = scenario.run()
    if options.json:
        print(json.dumps(events, indent=2))
    else:
        _print_table(events)
    return 0


def _print_table(events: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(events)} events arrived")
    columns = ("call", "event", "model", "tokens in", "out", "latency", "first token", "status")
    for name in (*columns, "output"):
        right = name in columns[3:7]
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "output")
    for event in events:
        properties = event["properties"]
        table.add_row(
            str(properties.get("$ai_span_name")),
            event["event"],
            properties.get("$ai_model", ""),
            str(properties.get("$ai_input_tokens", "")),
            str(properties.get("$ai_output_tokens", "")),
            _milliseconds(properties.get("$ai_latency")),
            _milliseconds(properties.get("$ai_time_to_first_token")),
            str(properties.get("$ai_http_status", "")),
            _output(properties),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _output(properties: Mapping[str, Any]) -> str:
    if properties.get("$ai_is_error"):
        return f"error: {properties['posthog_llm_error'].get('code')}"
    if "$ai_input" not in properties:
        return "(withheld)"
    said: list[dict[str, Any]] = properties.get("$ai_output_choices") or [{}]
    return ", ".join(_block(block) for block in said[0].get("content", ()))


def _block(block: Mapping[str, Any]) -> str:
    if block["type"] == "function":
        return f"{block['function']['name']}({block['function']['arguments']})"
    return str(block.get("text", f"[{block['type']}]"))
