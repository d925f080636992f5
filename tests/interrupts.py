"""Interrupts at chosen places: what Ctrl-C does only now and then."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from typing import Any


def interrupted(number: int, use: Callable[[], object], files: tuple[str, ...]) -> bool:
    """Run `use`, and raise KeyboardInterrupt at the n-th place where a signal may come.

    CPython looks for signals when a function starts, `__exit__` too, and after each call;
    places count in `files`, each the end of a path. Returns whether there were `number`.
    """
    places, last = iter(range(number)), ""

    def look(frame: Any, event: str, arg: Any) -> Any:
        nonlocal last
        if not frame.f_code.co_filename.replace("\\", "/").endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            is_after_call, last = last.startswith("CALL"), opcode_of(frame)
            if is_after_call and next(places, None) is None:
                raise KeyboardInterrupt
        elif event == "call" and next(places, None) is None:
            raise KeyboardInterrupt
        return look

    sys.settrace(look)
    try:
        use()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def opcode_of(frame: Any) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]
