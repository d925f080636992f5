"""A user's subclass, hook, transport or middleware sees what the bare SDK would show it.

It may print what it is given, put copies in its place, or make calls of its own: the answer is
the SDK's, and the call is one whole event.
"""

from __future__ import annotations

import abc
import copy
import inspect
import json
import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anthropic
import pytest

import posthog_llm
from posthog_llm import event_id, propagate_context
from posthog_llm._observe.resources import observed
from posthog_llm.testing import MemorySink

from .driving import QUESTION, AsyncDriver, Driver, comparable, every_provider, saying

HOOKS = ["request", "post", "_prepare_options", "_prepare_request", "_build_request"]
HOOKS += ["_process_response", "_make_status_error"]
PLAIN = ["_build_request", "_make_status_error"]
"""Those that even an async client does not await."""
See = Callable[..., Any]
WHO = {"posthog_distinct_id": "ann", "posthog_trace_id": "t", "posthog_properties": {"plan": "pro"}}
ASKED = [{"role": "user", "content": "hi"}]


def hooked(base: Any, hooks: list[str], see: See) -> Any:
    """Return a subclass whose `hooks` call on with what `see` makes of their arguments."""

    def override(name: str) -> Any:
        async def ahook(self: Any, *args: Any, **kwargs: Any) -> Any:
            seen = see(self, name, args, kwargs)
            args, kwargs = await seen if inspect.isawaitable(seen) else seen
            return await getattr(super(mine, self), name)(*args, **kwargs)

        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = see(self, name, args, kwargs)
            return getattr(super(mine, self), name)(*args, **kwargs)

        waits = "Async" in base.__name__ and name not in PLAIN
        return ahook if waits else hook

    mine: Any = type("Mine", (base,), {name: override(name) for name in hooks})
    return mine


def client_of(drive: Driver, base: Any, **kwargs: Any) -> Any:
    url = drive.provider.url + drive.vendor.base_path
    return base(api_key="test-key-123", base_url=url, max_retries=0, **kwargs)


def our_class(drive: Driver) -> Any:
    return getattr(drive.vendor.ours, drive.names[0])


def bare_class(drive: Driver) -> Any:
    return getattr(drive.vendor.sdk, drive.names[0])


def one_event(drive: Driver, sink: MemorySink, count: int = 1) -> dict[str, Any]:
    """Return the properties of the one event with our identity; it must be whole."""
    mine = [event for event in sink.wait_for(count) if event.distinct_id == "ann"]
    assert len(mine) == 1
    properties = dict(mine[0].properties)
    assert properties["$ai_trace_id"] == "t"
    assert properties["plan"] == "pro"
    assert properties["$ai_input"] == ASKED
    assert properties["$ai_output_choices"] == saying("You said: hi")
    assert properties["$ai_input_tokens"]
    assert properties["posthog_llm_outcome"] == "ok"
    return properties


def plain(value: Any) -> Any:
    """Say all that a hook could read of one thing it was given."""
    if isinstance(value, type):
        return value.__name__
    if hasattr(value, "model_fields_set"):  # an SDK's options
        fields = {name: getattr(value, name) for name in sorted(value.model_fields_set)}
        fields.pop("idempotency_key", None)  # drawn for each request
        fields["rest"] = sorted(vars(value))
        return fields
    if hasattr(value, "extensions"):  # an HTTP request or response
        extensions = {k: v for k, v in value.extensions.items() if k != "network_stream"}
        return [sorted(vars(value)), extensions, sorted(value.headers)]
    return repr(value).partition(" at 0x")[0]


def said(answer: Any) -> Any:
    """Return an answer without its id, in a form that compares."""
    if isinstance(answer, list):
        return [said(item) for item in answer]
    kind, content = comparable(answer)
    return kind, {name: value for name, value in content.items() if name not in ("id", "message")}


@every_provider
@pytest.mark.parametrize("stream", [False, True])
def test_hooks_print_what_the_sdks_own_show(drive: Driver, sink: MemorySink, stream: bool) -> None:
    printed: list[str] = []

    def printing(client: Any, name: str, args: Any, kwargs: Any) -> Any:
        printed.append(json.dumps([name, args, kwargs], default=plain))
        return args, kwargs

    more: Any = {"stream": True, "extra_query": {"api": "1"}} if stream else {}
    answers, shown = [], []
    for base, ours in ((bare_class(drive), {}), (our_class(drive), {"posthog_client": sink})):
        client = client_of(drive, hooked(base, HOOKS, printing), **ours)
        who = WHO if ours else {}
        answer = drive.ask(client, **more, **who)
        answers.append(drive.items(answer) if stream else answer)
        shown.append(list(printed))
        printed.clear()
    assert shown[0] == shown[1]
    assert len(shown[0]) == len(HOOKS) - 1  # nothing was refused
    assert said(answers[0]) == said(answers[1])
    assert drive.provider.requests[0].path == drive.provider.requests[1].path
    one_event(drive, sink)


def fresh(value: Any) -> Any:
    """Return an equal thing of its own, with nothing that was hidden in the old one."""
    if isinstance(value, type):
        return value
    if hasattr(value, "model_fields_set"):
        fields = {name: fresh(getattr(value, name)) for name in value.model_fields_set}
        return type(value).construct(**fields)
    if hasattr(value, "extensions") and not hasattr(value, "status_code"):
        given = {"headers": list(value.headers.multi_items()), "content": value.content}
        return type(value)(value.method, value.url, **given)
    return dict(value) if isinstance(value, dict) else value


@every_provider
@pytest.mark.parametrize("hook", ["request", "post", "_prepare_options", "_build_request"])
def test_hooks_put_copies_in_their_place(drive: Driver, sink: MemorySink, hook: str) -> None:
    def copying(client: Any, name: str, args: Any, kwargs: Any) -> Any:
        return tuple(map(fresh, args)), {name: fresh(value) for name, value in kwargs.items()}

    client = client_of(drive, hooked(our_class(drive), [hook], copying), posthog_client=sink)
    answer = drive.ask(client, **WHO)
    one_event(drive, sink)
    assert event_id(answer) == sink.events[0].uuid


@every_provider
@pytest.mark.parametrize("stream", [False, True])
def test_another_request_is_sent_than_was_built(
    drive: Driver, sink: MemorySink, stream: bool
) -> None:
    base = our_class(drive)

    class Signing(base):  # type: ignore[misc]
        def _build_request(self, *args: Any, **kwargs: Any) -> Any:
            return fresh(super()._build_request(*args, **kwargs))

    answer = drive.ask(client_of(drive, Signing, posthog_client=sink), stream=stream, **WHO)
    if stream:
        assert drive.items(answer)
    one_event(drive, sink)
    assert event_id(answer) == sink.events[0].uuid


@every_provider
@pytest.mark.parametrize("hook", HOOKS[:-1])
def test_hooks_make_calls_of_their_own(drive: Driver, sink: MemorySink, hook: str) -> None:
    waits = isinstance(drive, AsyncDriver)
    question: Any = {**QUESTION, "messages": [{"role": "user", "content": "aside"}]}
    other = getattr(drive.vendor.ours, drive.vendor.client)
    asides: list[Any] = []

    def nested(client: Any, name: str, args: Any, kwargs: Any) -> Any:
        if asides:
            return args, kwargs
        asides.append(client)
        if waits and name not in PLAIN:
            return anested(client, args, kwargs)
        own = client_of(drive, other, posthog_client=sink) if waits else client
        drive.vendor.create(own, **question)
        own.models.list()
        return args, kwargs

    async def anested(client: Any, args: Any, kwargs: Any) -> Any:
        await drive.vendor.create(client, **question)
        await client.models.list()
        return args, kwargs

    client = client_of(drive, hooked(our_class(drive), [hook], nested), posthog_client=sink)
    answer = drive.ask(client, **WHO)
    assert said(answer) == said(drive.ask(drive.bare()))
    one_event(drive, sink, 2)
    aside = next(event for event in sink.events if event.distinct_id != "ann")
    assert aside.properties["$ai_input"] == question["messages"]
    assert aside.properties["$ai_output_choices"] == saying("You said: aside")
    assert "plan" not in aside.properties


@every_provider
def test_post_that_falls_back_is_two_calls_of_one_person(drive: Driver, sink: MemorySink) -> None:
    base = our_class(drive)
    drive.provider.script(drive.vendor.path, *[_refused()])

    class Patient(base):  # type: ignore[misc]
        def post(self, path: str, **kwargs: Any) -> Any:
            if isinstance(drive, AsyncDriver):
                return self._apost(path, **kwargs)
            try:
                return super().post(path, **kwargs)
            except drive.vendor.sdk.APIStatusError:
                return super().post(path, **{**kwargs, "body": dict(kwargs["body"])})

        async def _apost(self, path: str, **kwargs: Any) -> Any:
            try:
                return await super().post(path, **kwargs)
            except drive.vendor.sdk.APIStatusError:
                return await super().post(path, **{**kwargs, "body": dict(kwargs["body"])})

    drive.ask(client_of(drive, Patient, posthog_client=sink), **WHO)
    first, second = sink.wait_for(2)
    assert [e.properties.get("$ai_is_error", False) for e in (first, second)] == [True, False]
    assert [first.distinct_id, second.distinct_id] == ["ann", "ann"]


def _refused() -> Any:
    from posthog_llm.testing import Reply

    return Reply.json({"error": {"message": "no", "type": "overloaded"}}, 503)


def test_request_in_a_thread_without_context(drive: Driver, sink: MemorySink) -> None:
    """What the call was given holds; a context does not, and its event is whole."""
    if isinstance(drive, AsyncDriver):
        pytest.skip("a coroutine keeps its own context")

    class Threaded(our_class(drive)):  # type: ignore[misc]
        def request(self, *args: Any, **kwargs: Any) -> Any:
            answers: list[Any] = []
            send = super().request
            worker = threading.Thread(target=lambda: answers.append(send(*args, **kwargs)))
            worker.start()
            worker.join()
            return answers[0]

    with posthog_llm.context(groups={"company": "not in that thread"}):
        client = client_of(drive, Threaded, posthog_client=sink, posthog_distinct_id="bob")
        drive.ask(client, **WHO)
    (event,) = sink.wait_for(1)
    assert event.distinct_id == WHO["posthog_distinct_id"]
    assert not event.groups
    assert event.properties["$ai_input"] == ASKED
    assert event.properties["$ai_output_choices"] == saying("You said: hi")


@every_provider
@pytest.mark.parametrize("stream", [False, True])
def test_http_clients_own_hooks_and_transport(
    drive: Driver, sink: MemorySink, stream: bool
) -> None:
    """A logger below the SDK: it prints every extension of every request."""
    printed: list[str] = []
    bare = drive.bare()
    http: Any = sys.modules[type(bare._client).__mro__[-3].__module__.partition(".")[0]]
    waits = isinstance(drive, AsyncDriver)

    def log(request: Any) -> None:
        printed.append(json.dumps([dict(request.extensions), sorted(vars(request))]))

    async def alog(request: Any) -> None:
        log(request)

    inner = (http.AsyncHTTPTransport if waits else http.HTTPTransport)()

    class Transport(http.AsyncBaseTransport if waits else http.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            log(request)
            pickle.loads(pickle.dumps(request))
            return inner.handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            log(request)
            return await inner.handle_async_request(request)

    made = (http.AsyncClient if waits else http.Client)(
        transport=Transport(), event_hooks={"request": [alog if waits else log]}
    )
    client = client_of(drive, our_class(drive), posthog_client=sink, http_client=made)
    answer = drive.ask(client, stream=stream, **WHO)
    if stream:
        drive.items(answer)
    assert len(printed) == 2
    assert not [line for line in printed if "posthog" in line]
    one_event(drive, sink)


@pytest.mark.skipif(
    "middleware" not in inspect.signature(anthropic.Anthropic).parameters,
    reason="this SDK has no middleware",
)
@pytest.mark.parametrize("drive", ["Anthropic sync", "Anthropic async"], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
def test_middleware(drive: Driver, sink: MemorySink, stream: bool) -> None:
    seen: list[Any] = []

    def sync(request: Any, call_next: Any) -> Any:
        seen.append(json.dumps([request.options.params, request.options.json_data]))
        request.options = fresh(request.options)
        return call_next(request)

    async def waiting(request: Any, call_next: Any) -> Any:
        return await sync(request, call_next)

    chosen = waiting if isinstance(drive, AsyncDriver) else sync
    client = client_of(drive, our_class(drive), posthog_client=sink, middleware=[chosen])
    answer = drive.ask(client, stream=stream, **WHO)
    if stream:
        drive.items(answer)
    assert [json.loads(line)[0] for line in seen] == [{}]
    one_event(drive, sink)


@every_provider
def test_background_work_of_a_hook_takes_nothing_with_it(drive: Driver, sink: MemorySink) -> None:
    """A task copies the context it starts in: what it asks later is a call of its own."""
    if not isinstance(drive, AsyncDriver):
        pytest.skip("threads start with an empty context")
    import asyncio

    go, tasks = asyncio.Event(), []
    base = our_class(drive)

    async def later(client: Any) -> None:
        await go.wait()
        path = drive.vendor.path if drive.vendor.base_path else "/v1/messages"
        body = {**QUESTION, "max_tokens": 9}
        await client.post(path, body=body, cast_to=object)

    class Spawning(base):  # type: ignore[misc]
        async def post(self, *args: Any, **kwargs: Any) -> Any:
            if not tasks:
                tasks.append(asyncio.create_task(later(self)))
            return await super().post(*args, **kwargs)

    async def both() -> None:
        client = client_of(drive, Spawning, posthog_client=sink)
        await drive.vendor.create(client, **QUESTION, **WHO)
        go.set()
        await tasks[0]

    drive.loop.run_until_complete(both())
    first, second = sink.wait_for(2)
    assert first.distinct_id == "ann"
    assert second.distinct_id != "ann"
    assert second.properties["$ai_output_choices"]


@every_provider
def test_helpers_hand_arguments_on(drive: Driver, sink: MemorySink) -> None:
    """Raw and streaming accessors call the method later; the arguments wait for them."""
    base = our_class(drive)
    client = client_of(drive, base, posthog_client=sink)
    owner = client.messages if drive.vendor.client == "Anthropic" else client.chat.completions
    ask = {**QUESTION, "max_tokens": 9, **WHO}
    raw = drive.call(lambda: owner.with_raw_response.create(**ask))
    assert event_id(raw)
    drive.inside(owner.with_streaming_response.create(**ask), lambda answer: answer.read())
    both = sink.wait_for(2)
    assert [(event.distinct_id, event.properties["plan"]) for event in both] == [("ann", "pro")] * 2


@every_provider
def test_resource_that_is_none_of_ours_on_the_way(drive: Driver, sink: MemorySink) -> None:
    """An SDK's helper may make a resource for itself; nothing of ours reaches the provider."""
    client = client_of(drive, our_class(drive), posthog_client=sink)
    found = client.messages if drive.vendor.client == "Anthropic" else client.chat.completions
    their_class: Any = type(found)._posthog_sdk

    class Delegating(their_class):  # type: ignore[misc]
        def create(self, *, extra_query: Any = None, **kwargs: Any) -> Any:
            return their_class(client).create(extra_query=extra_query, **kwargs)

    owner = observed(Delegating(client))
    drive.call(lambda: owner.create(**QUESTION, max_tokens=9, **WHO))
    one_event(drive, sink)
    assert "posthog" not in drive.provider.requests[0].path


def outcome_of(run: Callable[[], Any]) -> Any:
    try:
        return type(run())
    except Exception as error:
        return type(error), str(error)


@every_provider
@pytest.mark.filterwarnings(  # of the SDKs' HTTP clients, which a failed copy leaves half made
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_copies_and_pickles_are_as_the_sdks(drive: Driver, sink: MemorySink) -> None:
    for ways in (copy.copy, copy.deepcopy, pickle.dumps):
        found = []
        for client in (drive.bare(), drive.ours(posthog_client=sink)):
            owner = client.messages if drive.vendor.client == "Anthropic" else client.chat
            found.append([outcome_of(lambda: ways(thing)) for thing in (client, owner)])  # noqa: B023
        bare, ours = found
        assert [_kind(one) for one in ours] == [_kind(one) for one in bare], ways


def _kind(outcome: Any) -> Any:
    return outcome[0] if isinstance(outcome, tuple) else outcome.__name__


def test_what_cannot_be_pickled_says_what_to_do(drive: Driver) -> None:
    with pytest.raises(TypeError, match="Make the client in the worker"):
        pickle.dumps(drive.ours())
    held: Any = propagate_context(len)  # as cloudpickle takes it apart
    with pytest.raises(TypeError, match="continue_trace there"):
        pickle.dumps([cell.cell_contents for cell in held.__closure__])


def test_a_subclass_that_can_be_pickled(drive: Driver) -> None:
    client = drive.ours()
    made = Picklable.of(type(client))(base_url=drive.provider.url, api_key="k")
    assert made.__reduce_ex__(4) == (str, ("made anew",))


class Picklable:
    def __reduce__(self) -> Any:
        return str, ("made anew",)

    @classmethod
    def of(cls, client: Any) -> Any:
        return types.new_class("Made", (cls, client))


@every_provider
def test_copied_client_and_resource_work(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    drive.ask(copy.copy(client), **WHO)
    one_event(drive, sink)
    owner = client.messages if drive.vendor.client == "Anthropic" else client.chat.completions
    ask = {**QUESTION, "max_tokens": 9, **WHO}
    drive.call(lambda: copy.copy(owner).create(**ask))
    assert [event.distinct_id for event in sink.wait_for(2)] == ["ann", "ann"]


T = TypeVar("T")


class Mixin:
    """A second base class, which knows nothing of clients."""


@pytest.mark.parametrize("other", [Mixin, abc.ABC, Generic[T]])
def test_a_second_base_class(drive: Driver, sink: MemorySink, other: Any) -> None:
    base = type(drive.ours(posthog_client=sink))
    orders = [(base, other)] if other == Generic[T] else [(base, other), (other, base)]
    for bases in orders:
        made = types.new_class("Made", bases, exec_body=lambda body: None)
        drive.ask(made(base_url=drive.provider.url, api_key="k", posthog_client=sink))
    assert len(sink.wait_for(len(orders))) == len(orders)


def test_the_signature_of_a_constructor_of_ones_own(drive: Driver) -> None:
    class Tenant(type(drive.ours())):  # type: ignore[misc]
        def __init__(self, tenant: str, **more: Any) -> None:
            super().__init__(**more)

    class Special(Tenant):
        pass

    for cls in (Tenant, Special):
        assert list(inspect.signature(cls).parameters) == ["tenant", "more"]
