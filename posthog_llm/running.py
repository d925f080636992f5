"""Functions of every kind inside a block: plain, async, generators and async generators."""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from typing import Any

OpenBlock = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def inside(open_block: OpenBlock, function: Any, values: ContextVar[Any]) -> Any:
    """Return `function` running inside a block of its own.

    `open_block(args, kwargs)` makes a context manager for one call; `gave(value)` is called on
    it with what the function returns, or with each item that it yields, where it has that.
    A generator's block is as long as the generator runs; what holds inside does not hold for
    its consumer between two items. `values` is the context variable that holds it.
    """
    if inspect.isasyncgenfunction(function):
        return _agenerated(open_block, function, values)
    if inspect.isgeneratorfunction(function):
        return _generated(open_block, function, values)
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


class _Inside:
    """What holds inside a generator's block, put in place while the generator runs."""

    def __init__(self, manager: Any, values: ContextVar[Any]) -> None:
        self._manager, self._values = manager, values
        outer = values.get()
        self._block = manager.__enter__()
        self._inner, self._outer = values.get(), outer
        values.set(outer)

    def __enter__(self) -> None:
        self._outer = self._values.get()
        self._values.set(self._inner)

    def __exit__(self, *exc_info: object) -> None:
        self._inner = self._values.get()
        self._values.set(self._outer)

    def gave(self, item: Any) -> None:
        """Hand what the generator yielded to the block."""
        _noted(self._block, item)

    def end(self, error: BaseException | None = None) -> None:
        """Leave the block; what holds for the consumer goes on holding."""
        outer = self._values.get()
        self._manager.__exit__(type(error) if error else None, error, None)
        self._values.set(outer)


def _generated(open_block: OpenBlock, function: Any, values: ContextVar[Any]) -> Any:
    @functools.wraps(function)
    def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block = _Inside(open_block(args, kwargs), values)
        try:
            with block:
                body = function(*args, **kwargs)
            step, value = body.send, None
            while True:
                with block:
                    item = step(value)
                block.gave(item)
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


def _agenerated(open_block: OpenBlock, function: Any, values: ContextVar[Any]) -> Any:
    @functools.wraps(function)
    async def generated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block = _Inside(open_block(args, kwargs), values)
        try:
            with block:
                body = function(*args, **kwargs)
            step, value = body.asend, None
            while True:
                with block:
                    item = await step(value)
                block.gave(item)
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


class _Holding:
    """A block in which a value holds."""

    def __init__(self, values: ContextVar[Any], held: Any) -> None:
        self._values, self._held, self._outer = values, held, None

    def __enter__(self) -> None:
        self._outer = self._values.get()
        self._values.set(self._held)

    def __exit__(self, *exc_info: object) -> None:
        self._values.set(self._outer)


def bound(function: Any, values: ContextVar[Any]) -> Any:
    """Return `function` with what holds here; see `posthog_llm.bind`."""
    held = values.get()
    runs_later = (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )
    if runs_later:
        return inside(lambda args, kwargs: _Holding(values, held), function, values)
    context = contextvars.copy_context()

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        # A context cannot be entered twice at a time; its copies can.
        return context.copy().run(function, *args, **kwargs)

    return called
