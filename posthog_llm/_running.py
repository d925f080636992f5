"""Functions of every kind inside a block: plain, async, generators and async generators."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ._chain import Chain, Held, Resumed, here

OpenBlock = Callable[[tuple[Any, ...], dict[str, Any]], Any]
Where = Callable[[], Chain]
"""Returns the context variable of the blocks. A function, because it can be pickled: Ray and Dask
send decorated functions to other processes."""


async def in_thread(loop: Any, function: Callable[[], Any]) -> Any:
    """Return what `function` returns in a thread of its own, without blocking asyncio's `loop`.

    Not in the loop's executor: the application's own jobs may occupy all of its threads. Raises
    `RuntimeError` if no thread can start.
    """
    waiting = loop.create_future()

    def finish(result: Any, error: Exception | None) -> None:
        if waiting.done():
            return  # nobody waits any more
        if error is None:
            waiting.set_result(result)
        else:
            waiting.set_exception(error)

    def run() -> None:
        result = error = None
        try:
            result = function()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="posthog-llm-wait", daemon=True).start()
    return await waiting


def inside(open_block: OpenBlock, function: Any, where: Where) -> Any:
    """Return `function` running inside its own block.

    `open_block(args, kwargs)` makes a context manager for one call; its `note_result(value)`, if it
    has one, is called with what the function returns, or with each item that it yields. A
    generator's block lasts as long as the generator runs; the values inside do not apply to its
    consumer between two items.
    """
    if inspect.isasyncgenfunction(function):
        return _agenerated(open_block, function, where)
    if inspect.isgeneratorfunction(function):
        return _generated(open_block, function, where)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with open_block(args, kwargs) as block:
                return _noted(block, await function(*args, **kwargs))

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with open_block(args, kwargs) as block:
            return _noted(block, function(*args, **kwargs))

    return called


def _noted(block: Any, value: Any) -> Any:
    note_result = getattr(block, "note_result", None)
    if note_result is not None:
        note_result(value)
    return value


def _generated(open_block: OpenBlock, function: Any, where: Where) -> Any:
    @functools.wraps(function)
    def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block = Resumed(open_block(args, kwargs), where())
        try:
            with block:
                body = function(*args, **kwargs)
            step, value = body.send, None
            while True:
                with block:
                    item = step(value)
                _noted(block.block, item)
                step, value = body.send, None
                try:
                    value = yield item
                except GeneratorExit as closed:
                    with block:
                        returned: Any = body.close()  # `None` before Python 3.13
                    if returned is None:
                        raise
                    block.end(closed)
                    return returned
                except BaseException as error:
                    step, value = body.throw, error
        except StopIteration as stop:
            block.end()
            return stop.value
        except BaseException as error:
            block.end(error)
            raise

    return generated


def _agenerated(open_block: OpenBlock, function: Any, where: Where) -> Any:
    @functools.wraps(function)
    async def generated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block = Resumed(open_block(args, kwargs), where())
        try:
            with block:
                body = function(*args, **kwargs)
            step, value = body.asend, None
            while True:
                with block:
                    item = await step(value)
                _noted(block.block, item)
                step, value = body.asend, None
                try:
                    value = yield item
                except GeneratorExit:
                    with block:
                        await body.aclose()
                    raise
                except BaseException as error:
                    step, value = body.athrow, error
        except StopAsyncIteration:
            block.end()
        except BaseException as error:
            block.end(error)
            raise

    return generated


def bound(function: Any, where: Where) -> Any:
    """Return `function` with the current values; see `posthog_llm.propagate_context`."""
    held = here(where())
    runs_later = (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )
    if runs_later:
        return inside(lambda args, kwargs: Held(where(), held), function, where)
    context = _Context(contextvars.copy_context())

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        # A context cannot be entered twice at the same time; its copies can.
        return context.values.copy().run(function, *args, **kwargs)

    return called


class _Context:
    """The context of a bound function, within one process."""

    def __init__(self, values: contextvars.Context) -> None:
        self.values = values

    def __reduce__(self) -> Any:
        raise TypeError(
            "a context from posthog_llm.propagate_context cannot be sent to another process: send "
            "posthog_llm.trace_headers(), and use posthog_llm.continue_trace there"
        )
