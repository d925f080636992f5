"""What the seam asks of an SDK: one small object for each, which never imports the SDK.

The seam itself knows nothing of how an SDK is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .._chain import Link
    from .._exchange import Ambient, Arguments, Upload
    from .around import Installer
    from .stream_usage import Injector


class Opened(NamedTuple):
    """Where a call began, if its request is sent later: when the first item is read."""

    inside: Link
    ambient: Ambient


class Draft(NamedTuple):
    """A request as the program asked the SDK for it."""

    method: str
    path: str
    body: Any
    """The JSON body before it is serialized; often a mapping, never to be changed."""
    streamed: bool
    """Whether the program asked for a streamed response."""
    model: str | None = None
    """The model, if the path names it instead of the body."""
    opened: Opened | None = None
    """`None`: the call begins now."""


class Sent(NamedTuple):
    """One HTTP request, as the SDK built it."""

    headers: Any
    url: Any
    content: bytes | None
    """The body; `None` if it is not in memory."""
    form: Mapping[str, Any] | None = None
    """Fields of a multipart request; `None` for any other."""
    uploads: Sequence[Upload] = ()


class Received(NamedTuple):
    """The head of an HTTP response, and its body if it has been read."""

    status: int
    headers: Any
    """A mapping with a case-insensitive `get`."""
    content: bytes | None
    """The decoded body; `None` if it is still to be read."""


class Sdk(Protocol):
    """How one SDK, or several that are built alike, sends requests.

    All methods run on the caller's thread. `client` is the SDK's client, `options` what its client
    is called with, `request` and `response` are of its HTTP library. Except for `install` and
    `detach`, they change nothing.
    """

    def draft(self, options: Any) -> Draft:
        """Read what the program asked for."""
        ...

    def detach(self, options: Any) -> Arguments | None:
        """Remove our arguments from `options`; `None` if there are none."""
        ...

    def base_url(self, client: Any) -> Any:
        """Return where the client sends requests: a `str`, or something that `str` makes one."""
        ...

    def injector(self, client: Any) -> Injector | None:
        """Return what requests a stream's usage; `None` if that is not necessary."""
        ...

    def sent(self, request: Any, options: Any) -> Sent:
        """Read an HTTP request that is about to be sent."""
        ...

    def received(self, response: Any) -> Received:
        """Read an HTTP response, whose body may be still to come."""
        ...

    def requests_behind(self, source: Any) -> list[Any]:
        """Return the HTTP requests that a response, or an exception, holds; the last one first."""
        ...

    def install(self, module: Any, installer: Installer) -> None:
        """Put the seam into the SDK's own classes, of which `module` is the package."""
        ...
