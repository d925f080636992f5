"""Functions of every kind inside a block: plain, async, generators and async generators."""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from .chain import Chain, Held, Resumed

OpenBlock = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def inside(open_block: OpenBlock, function: Any, chain: Chain) -> Any:
    """Return `function` running inside a block of its own.

    `open_block(args, kwargs)` makes a context manager for one call; `gave(value)` is called on
    it with what the function returns, or with each item that it yields, where it has that.
    A generator's block is as long as the generator runs; what holds inside does not hold for
    its consumer between two items. `chain` is the context variable that says what holds.
    """
    if inspect.isasyncgenfunction(function):
        return _agenerated(open_block, function, chain)
    if inspect.isgeneratorfunction(function):
        return _generated(open_block, function, chain)
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
    gave = getattr(block, "gave", None)
    if gave is not None:
        gave(value)
    return value


def _generated(open_block: OpenBlock, function: Any, chain: Chain) -> Any:
    @functools.wraps(function)
    def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block = Resumed(open_block(args, kwargs), chain)
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
                except GeneratorExit:
                    with block:
                        body.close()
                    raise
                except BaseException as error:
                    step, value = body.throw, error
        except StopIteration as stop:
            block.end()
            return stop.value
        except BaseException as error:
            block.end(error)
            raise

    return generated


def _agenerated(open_block: OpenBlock, function: Any, chain: Chain) -> Any:
    @functools.wraps(function)
    async def generated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block = Resumed(open_block(args, kwargs), chain)
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


def bound(function: Any, chain: Chain) -> Any:
    """Return `function` with what holds here; see `posthog_llm.bind`."""
    held = chain.get()
    runs_later = (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )
    if runs_later:
        return inside(lambda args, kwargs: Held(chain, held), function, chain)
    context = contextvars.copy_context()

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        # A context cannot be entered twice at a time; its copies can.
        return context.copy().run(function, *args, **kwargs)

    return called
