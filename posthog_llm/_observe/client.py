"""Client mixins: one seam, the SDK's own `request`, for every endpoint and helper.

A client class is `class OpenAI(SyncClient, sdk.OpenAI)`. The mixin comes first, calls the
SDK for everything, and returns the SDK's own objects.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from . import resources, seam, stainless
from .call_queue import call_queue
from .client_arguments import ClientSettings, extract_for_client, signature
from .stainless import SDK

if TYPE_CHECKING:

    class _SdkClient:
        """What the mixin needs from the SDK's client, which follows it in the MRO."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def copy(self, **kwargs: Any) -> Any: ...
        def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any: ...
        def _build_request(self, options: Any, **kwargs: Any) -> Any: ...
        def _process_response(self, *, response: Any, **kwargs: Any) -> Any: ...
else:
    _SdkClient = object


class ObservedClient(ClientSettings, _SdkClient):
    """What the sync and async clients share: everything but the `await`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases: tuple[Any, ...] = cls.__bases__
        foreign = (base for base in bases if not issubclass(base, ObservedClient))
        sdk = next((base for base in foreign if _is_sdk_client(base)), None)
        if sdk is not None:
            _mirror(cls, sdk)
        elif "__init__" in vars(cls) or "__new__" in vars(cls):
            own: Any = cls
            own.__signature__ = None  # not the SDK's: use that of its own constructor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        call_queue.prepare()  # before the SDK checks whether `httpx` is imported
        given = extract_for_client(kwargs)
        super().__init__(*args, **kwargs)
        resources.observe_attributes(self)
        given.set_on(self)

    def copy(self, **kwargs: Any) -> Any:
        changed = extract_for_client(kwargs)
        new = super().copy(**kwargs)
        # Set afterwards, so that a subclass's constructor need not accept our arguments.
        changed.set_on_copy(new, self)
        return new

    with_options = copy

    def __copy__(self) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raise with a hint, unless a subclass can pickle: the SDK's error only names "RLock"."""
        names = ("__reduce__", "__getstate__")
        if any(getattr(type(self), n, None) is not getattr(object, n, None) for n in names):
            return super().__reduce_ex__(protocol)
        raise TypeError(
            f"cannot pickle {type(self).__name__}: its connections belong to this process. Make "
            f"the client in the worker, and pass posthog_llm.trace_headers() to it"
        )

    def _build_request(self, options: Any, **kwargs: Any) -> Any:
        build = super()._build_request
        return stainless.build_request(self, options, lambda: build(options, **kwargs))

    def _process_response(self, *, response: Any, **kwargs: Any) -> Any:
        kwargs = stainless.see_response(self, response, kwargs)
        return super()._process_response(response=response, **kwargs)


class SyncClient(ObservedClient):
    """Mixin for a client whose `request` returns."""

    def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        send = super().request
        return seam.request(SDK, self, options, lambda: send(cast_to, options, **kwargs))


class AsyncClient(ObservedClient):
    """Mixin for a client whose `request` is awaited."""

    async def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        send = super().request
        return await seam.arequest(
            stainless.SDK, self, options, lambda: send(cast_to, options, **kwargs)
        )


def _is_sdk_client(base: Any) -> bool:
    """Whether a base class is the SDK's client, not a mixin of the application."""
    return all(hasattr(base, name) for name in ("_build_request", "copy", "request"))


def _mirror(cls: Any, sdk: Any) -> None:
    """Give a client class the SDK's resources, signatures and docstrings."""
    namespace: dict[str, Any] = {}
    resources.override_properties(sdk, namespace)
    for name, value in namespace.items():
        setattr(cls, name, value)
    cls.copy = functools.wraps(sdk.copy)(_own(cls.copy))
    cls.with_options = cls.copy
    cls.__doc__ = cls.__doc__ or sdk.__doc__
    cls.__signature__ = signature(sdk)


def _own(function: Any) -> Any:
    """Return a copy of a function, to be given another signature and docstring."""

    def own(self: Any, **kwargs: Any) -> Any:
        return function(self, **kwargs)

    return own
