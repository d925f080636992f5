"""A fake of the CLI that the Claude Agent SDK runs: it speaks the stream-json protocol.

It plays the turns of a JSON file, one for each prompt: a list of messages, and of what is between
them (`do`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HEARD = Path(__file__).with_name("heard.jsonl")
"""What the CLI was started with, and what it was told."""


def said(**message: Any) -> None:
    print(json.dumps({"session_id": "s-1", "uuid": "u", **message}), flush=True)


def heard() -> dict[str, Any]:
    """Return the next message of the SDK's; its control requests are answered at once."""
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        with HEARD.open("a") as log:
            log.write(line)
        if message["type"] != "control_request":
            return message
        answer = {"subtype": "success", "request_id": message["request_id"], "response": {}}
        said(type="control_response", response=answer)
        if message["request"]["subtype"] == "interrupt":
            return message
    return {}


def play(turn: list[dict[str, Any]]) -> None:
    for message in turn:
        does = message.get("do")
        if does is None:
            said(**message)
        elif does == "sleep":
            time.sleep(message["seconds"])
        elif does == "exit":
            os._exit(message["code"])
        elif does == "wait":  # for an interrupt, or forever
            heard()
        else:  # a request of the CLI's: the answer follows
            said(type="control_request", request_id="r", request=message["request"])
            heard()


if __name__ == "__main__":
    if "-v" in sys.argv:  # older versions of the SDK ask for it
        print("2.9.9 (Claude Code)")
        raise SystemExit
    HEARD.write_text(json.dumps(sys.argv[1:]) + "\n")
    turns = json.loads(Path(__file__).with_name("turns.json").read_text())
    while heard():
        if turns:
            play(turns.pop(0))
