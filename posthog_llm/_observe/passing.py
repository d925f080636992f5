"""What one of our layers passes to the next, past the SDK and all user hooks.

Between two layers a user's subclass, event hook, transport or middleware may serialize what it
receives, replace it with a copy, or make calls of its own. So nothing of ours is visible to
them: it is in a context variable.

Tasks and connections that start meanwhile copy the context and keep it as long as they live.
So a layer that has returned holds nothing, and has no effect on code that runs in such a copy.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._exchange import Arguments
    from .call import Call


class _Layer:
    """A context manager around what the SDK does below one layer, for sync and async alike."""

    __slots__ = ("_outer", "client")

    def __init__(self, client: Any) -> None:
        self.client: Any = client
        self._outer: _Layer | None = None

    def __enter__(self) -> Self:
        self._outer = _nearest.get()
        try:
            _nearest.set(self)
            return self
        except BaseException as error:  # a signal handler raised between these instructions
            self.leave(error)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, tb: Any) -> None:
        try:
            self.leave(error)
        except BaseException:  # as above
            self.leave(error)
            raise

    def leave(self, error: BaseException | None) -> None:
        """Release everything. Idempotent.

        Code that uses `with` also calls this if it raised: an interrupt may come before the first
        line of `__exit__`, which cannot guard against that itself.
        """
        self.client = None
        if _nearest.get() is self:  # else: a coroutine that was closed in another context
            _nearest.set(self._outer)
        self._outer = None  # last; a context that was copied inside lives on, and holds this layer


_nearest: ContextVar[_Layer | None] = ContextVar("posthog_llm_nearest_layer", default=None)


class Path(str):
    """A path that holds its request's arguments: a subclass may send it in another thread, where
    no context variable helps. It looks like text to other code."""

    given: Given

    @classmethod
    def of(cls, given: Given, path: str) -> Path:
        made = cls(path)
        made.given = given
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Path:
        return self  # some clients deep-copy their options

    def __reduce__(self) -> Any:
        return str, (str(self),)


class Given(_Layer):
    """Between a resource's method and the client's `request`: the arguments of the call."""

    __slots__ = ("_arguments", "_path")

    def __init__(self, client: Any, path: str, arguments: Arguments | None) -> None:
        super().__init__(client)
        self._path = path
        self._arguments = arguments

    def leave(self, error: BaseException | None) -> None:
        self._arguments = None
        super().leave(error)

    def arguments(self, client: Any, url: str) -> Arguments | None:
        """Return the arguments of a request, unless a hook made it on the side.

        A user's `post` may send through a copy of the client, and prefix the path.
        """
        same = type(client) is type(self.client) and url.endswith(self._path)
        return self._arguments if same else None


def _what(options: Any) -> tuple[str, str] | None:
    """Return the method and URL; `None` if the SDK has not built options yet."""
    method = getattr(options, "method", None)
    return None if method is None else (method, options.url)


class Underway(_Layer):
    """Between the client's `request` and what it sends: the observed call, if there is one.

    Every request has its own layer, so that a request inside a hook never takes the outer call.
    Leaving it ends the call, unless its body is still streaming.
    """

    __slots__ = ("begun", "call", "options")

    def __init__(self, client: Any, options: Any) -> None:
        super().__init__(client)
        self.options = options
        self.begun = False
        """Whether it has been decided if there is a call."""
        self.call: Call | None = None

    def leave(self, error: BaseException | None) -> None:
        if self.call is not None:
            self.call.returned(error)  # only the first end of a call counts
        self.call = self.options = None
        super().leave(error)

    def is_about(self, options: Any) -> bool:
        """Whether a request is the one that this layer has begun.

        Another library between two of our layers may pass on a copy of the options. A hook's own
        request through the SDK's methods has a pending layer above it, as this one had.
        """
        if not self.begun or self.options is options:
            return self.begun
        outer, mine = self._outer, self.options
        stood_by = isinstance(outer, Underway) and outer.client is self.client and not outer.begun
        return stood_by and _what(mine) == _what(options) is not None

    def begin(self, call: Call | None) -> None:
        self.call = call
        self.begun = True

    def goes_on_without_usage(self, error: Exception) -> bool:
        return self.call is not None and self.call.goes_on_without_usage(error, self.options)


def is_given() -> bool:
    """Whether the nearest layer holds arguments, which a call without its own must not take."""
    return isinstance(_nearest.get(), Given)


def arguments_of(client: Any, url: str) -> Arguments | None:
    """Return the arguments of a request; `None` if there are none."""
    layer = _nearest.get()
    if layer is None and isinstance(url, Path):
        layer = url.given
    return layer.arguments(client, url) if isinstance(layer, Given) else None


def is_underway() -> bool:
    """Whether the caller is below a request that we observe, or left out."""
    layer = _nearest.get()
    return isinstance(layer, Underway) and layer.begun and layer.client is not None


def underway(client: Any) -> Underway | None:
    """Return the layer of the request that `client` is sending; `None` if there is none."""
    layer = _nearest.get()
    return layer if isinstance(layer, Underway) and layer.client is client else None
