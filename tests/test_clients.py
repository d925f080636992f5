"""The clients are the SDK's own in all that a program can see."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import logging
import os
import subprocess
import sys
import textwrap
import weakref
from typing import Any

import anthropic
import openai as sdk
import posthog
import pytest

import posthog_llm
from posthog_llm import openai as ours
from posthog_llm import types as arguments
from posthog_llm._checks import field_of
from posthog_llm._delivery.worker import worker
from posthog_llm._observe.call_arguments import NAMES
from posthog_llm._observe.client_arguments import SETTINGS
from posthog_llm.testing import MemorySink, PostHogReceiver, ScriptedProvider

from .driving import ANTHROPIC, OPENAI, Driver, Vendor, every_provider, every_sdk
from .test_processes import forks

ASK: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
AZURE = {"azure_endpoint": "http://127.0.0.1:9", "api_version": "2024-10-21"}
REFUSALS = (sdk.OpenAIError, anthropic.AnthropicError)
CLASSES = [
    (vendor, name)
    for vendor in (OPENAI, ANTHROPIC)
    for name, found in vars(vendor.sdk).items()
    if vendor.client in name and isinstance(found, type) and hasattr(found, "with_options")
]


def test_every_client_class_is_ours() -> None:
    names = {name for _, name in CLASSES}
    assert {"AsyncAzureOpenAI", "AsyncAnthropicVertex", "AnthropicBedrock"} <= names
    for vendor, name in CLASSES:
        assert getattr(vendor.ours, name) is not getattr(vendor.sdk, name), name


@pytest.mark.parametrize(("vendor", "name"), CLASSES)
def test_subclass_with_the_sdks_face(vendor: Vendor, name: str) -> None:
    own, base = getattr(vendor.ours, name), getattr(vendor.sdk, name)
    assert issubclass(own, base)
    assert own.__name__ == name
    assert own.__doc__ == base.__doc__
    parameters = inspect.signature(own).parameters
    theirs = inspect.signature(base).parameters
    assert {k: parameters[k] for k in theirs} == dict(theirs)
    added = {k: v for k, v in parameters.items() if k not in theirs}
    assert {"posthog_client", "posthog_distinct_id", "posthog_redact"} <= set(added)
    assert all(p.kind is p.KEYWORD_ONLY for p in added.values())
    assert inspect.signature(own.copy) == inspect.signature(base.copy)
    with pytest.raises(TypeError, match="posthog_distinctid"):
        own(posthog_distinctid="x")


@pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC], ids=lambda v: v.client)
def test_other_names_are_the_sdks_own(vendor: Vendor) -> None:
    ours, sdk = vendor.ours, vendor.sdk
    for name in sdk.__all__:
        if (vendor, name) not in CLASSES and name not in ("Client", "AsyncClient"):
            assert getattr(ours, name) is getattr(sdk, name), name
    assert ours.types is sdk.types
    assert ours.RateLimitError is sdk.RateLimitError
    assert ours.Client is getattr(ours, vendor.client)
    assert set(dir(sdk)) <= set(dir(ours))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ours.nonsense  # type: ignore[attr-defined]


def resources(owner: Any, path: str = "", depth: int = 3) -> list[tuple[str, Any]]:
    found = []
    made = [n for n, v in vars(owner).items() if hasattr(v, "with_raw_response")]
    for name in [*dir(type(owner)), *made]:  # old SDKs make some in the constructor
        static = inspect.getattr_static(type(owner), name, None)
        is_resource = hasattr(static, "func") or name in made
        if name.startswith("_") or not is_resource or not depth:
            continue
        resource = getattr(owner, name)
        found.append((f"{path}{name}", resource))
        if not name.startswith("with_"):
            found += resources(resource, f"{path}{name}.", depth - 1)
    return found


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        (OPENAI, "OpenAI"),
        (OPENAI, "AsyncOpenAI"),
        (ANTHROPIC, "Anthropic"),
        (ANTHROPIC, "AsyncAnthropic"),
    ],
)
def test_every_resource_is_the_sdks(vendor: Vendor, name: str) -> None:
    own = dict(resources(getattr(vendor.ours, name)(api_key="k")))
    bare = dict(resources(getattr(vendor.sdk, name)(api_key="k")))
    assert own.keys() == bare.keys()
    assert len(own) > (60 if vendor is OPENAI else 3)
    for path, resource in bare.items():
        assert isinstance(own[path], type(resource)), path
        assert type(own[path]).__name__ == type(resource).__name__
        assert type(own[path]).__doc__ == type(resource).__doc__
        for method, function in inspect.getmembers(resource, callable):
            if method.startswith("_") or inspect.isclass(function):
                continue
            twin = getattr(own[path], method)
            assert twin.__doc__ == function.__doc__
            assert inspect.signature(twin) == inspect.signature(function), f"{path}.{method}"
            assert inspect.iscoroutinefunction(twin) == inspect.iscoroutinefunction(function)


@every_provider
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*was never awaited")  # stream managers, not entered here
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_sending_method_takes_our_arguments(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    """`extra_query` marks a method that sends; each takes our arguments and sends none."""
    hook = {"webhook_secret": "whsec_dGVzdA=="} if drive.vendor is OPENAI else {}
    client = drive.ours(posthog_client=sink, **hook)
    tried = 0
    for path, resource in resources(client):
        if "with_" in path or path.startswith(("realtime", "live")):
            continue
        for method, function in inspect.getmembers(resource, inspect.ismethod):
            parameters = inspect.signature(function).parameters
            if method.startswith("_") or "extra_query" not in parameters or method == "connect":
                continue
            required = {n: _value(n) for n, p in parameters.items() if p.default is p.empty}
            try:
                drive.call(lambda f=function, r=required: f(**r, posthog_distinct_id="u1"))  # type: ignore[misc]
            except TypeError as error:
                assert "posthog" not in str(error), f"{path}.{method}: {error}"
            except (
                sdk.OpenAIError,
                anthropic.AnthropicError,
                ValueError,
                AttributeError,
                RuntimeError,
            ):
                pass  # an answer of the wrong shape; the request was sent
            tried += 1
    assert tried > (100 if drive.vendor is OPENAI else 15)
    for request in provider.requests:
        assert "posthog" not in f"{request.path}{request.headers}{request.body!r}".replace(
            "posthog_test", ""
        )


def test_the_classes_of_arguments_name_what_is_taken() -> None:
    assert arguments.CallArguments.__annotations__.keys() == NAMES.keys()
    own = arguments.ClientArguments.__annotations__.keys() - NAMES.keys()
    assert own == SETTINGS.keys()
    fields = {field_of(name) for name in arguments.ContextArguments.__annotations__}
    assert fields == set(NAMES.values())


def _value(name: str) -> Any:
    if name in ("file", "image"):
        return ("a.png", b"123", "image/png")
    return [{"role": "user", "content": "x"}] if name in ("messages", "input") else "x1"


@every_sdk
@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("posthog_distinct_id", {"a": 1}, "must be a str, int or UUID"),
        ("posthog_properties", "plan", "must be a mapping"),
        ("posthog_groups", ["a"], "must be a mapping"),
        ("posthog_privacy_mode", "yes", "must be True, False or None"),
        ("posthog_capture", 1, "must be True, False or None"),
        ("posthog_client", "phc_key", "capture method"),
    ],
)
def test_misuse_raises_at_once(
    drive: Driver, provider: ScriptedProvider, argument: str, value: Any, expected: str
) -> None:
    client = drive.ours()
    with pytest.raises(TypeError, match=f"{argument} {expected}|{argument}.*{expected}"):
        drive.ask(client, **{argument: value})
    with pytest.raises(TypeError, match=argument):
        drive.ours(**{argument: value})
    assert not provider.requests


@every_provider
def test_misspelt_argument_is_named(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    with pytest.raises(TypeError, match="posthog_distinctid"):
        drive.ask(client, posthog_distinctid="u")
    with pytest.raises(TypeError, match="posthog_distinctid"):
        client.with_options(posthog_distinctid="u")
    for name in ("posthog_stream_usage", "posthog_redact"):
        with pytest.raises(TypeError, match=name):
            drive.ours(**{name: "no"})


@every_provider
def test_copies_keep_all_of_it(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(
        posthog_client=sink,
        posthog_distinct_id="u1",
        posthog_properties={"plan": "team"},
        posthog_redact=str.upper,
    )
    twice = client.with_options(timeout=3).copy(posthog_properties={"seat": 2})
    assert type(twice) is type(client)
    assert twice.timeout == 3
    drive.ask(twice)
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "u1"
    assert event.properties["plan"] == "team"
    assert event.properties["seat"] == 2
    assert event.properties["$ai_input"][0]["content"] == "HI"


@every_provider
def test_users_may_subclass(drive: Driver, sink: MemorySink) -> None:
    base = type(drive.ours())

    class Mine(base):  # type: ignore[misc,valid-type]
        tenant = "acme"

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**{"posthog_client": sink, **kwargs})

    url = drive.provider.url + drive.vendor.base_path
    client = Mine(base_url=url, api_key="k").with_options(max_retries=0)
    assert client.tenant == "acme"
    drive.ask(client)
    sink.wait_for(1)


def test_subclass_with_the_sdks_arguments_alone_can_be_copied(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    class Mine(ours.OpenAI):
        def __init__(self, **kwargs: Any) -> None:
            assert not any(name.startswith("posthog") for name in kwargs)
            super().__init__(**kwargs)
            self._posthog = self._posthog.__class__(client=sink)

    client = Mine(base_url=provider.base_url, api_key="k").with_options(timeout=1)
    client.chat.completions.create(**ASK)
    sink.wait_for(1)


def test_azure(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    """A deployment's name is an alias: the served model is the one that prices."""
    client = getattr(ours, drive.names[1])(
        azure_endpoint=provider.url,
        api_version="2024-10-21",
        api_key="k",
        max_retries=0,
        posthog_client=sink,
    )
    path = "/openai/deployments/my-deployment/chat/completions"
    answer = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [],
    }
    from posthog_llm.testing import Reply

    provider.script(path, Reply.json(answer))
    drive.call(
        lambda: client.chat.completions.create(
            model="my-deployment", messages=[{"role": "user", "content": "x"}]
        )
    )
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_provider"] == "azure"
    assert event.properties["$ai_model"] == "gpt-4o-2024-08-06"
    assert event.properties["posthog_llm_requested_model"] == "my-deployment"


@pytest.mark.skipif(not hasattr(sdk, "BedrockOpenAI"), reason="this SDK version has no Bedrock")
def test_bedrock(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    name = "BedrockOpenAI" if drive.names[0] == "OpenAI" else "AsyncBedrockOpenAI"
    client = getattr(ours, name)(
        base_url=provider.base_url, api_key="k", max_retries=0, posthog_client=sink
    )
    drive.call(lambda: client.chat.completions.create(**ASK))
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_provider"] == "bedrock"


# -- where events go -------------------------------------------------------------------


def run(code: str, **environment: str) -> str:
    """Run a program in a process of its own; returns what it wrote to stderr."""
    given = {"PATH": "/usr/bin", "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"], **environment}
    process = forks.start(textwrap.dedent(code), given)
    _, error = process.communicate()
    assert process.returncode == 0, error
    return error


PROGRAM = """
from posthog_llm.openai import OpenAI
client = OpenAI(base_url="{base_url}", api_key="k")
client.chat.completions.create(model="m", messages=[], posthog_distinct_id="u1")
"""


@pytest.mark.parametrize("key", ["POSTHOG_API_KEY", "POSTHOG_PROJECT_API_KEY"])
@pytest.mark.parametrize("host", ["POSTHOG_HOST", "POSTHOG_API_URL"])
def test_environment_is_enough_and_exit_delivers(
    provider: ScriptedProvider, receiver: PostHogReceiver, key: str, host: str
) -> None:
    program = PROGRAM.format(base_url=provider.base_url)
    run(program, **{key: "phc_env", host: receiver.url})
    (event,) = receiver.wait_for(1)
    assert event["distinct_id"] == "u1"


def test_two_clients_share_one_official_client(
    provider: ScriptedProvider, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_shared")
    monkeypatch.setenv("POSTHOG_HOST", receiver.url)
    for _ in range(2):
        ours.OpenAI(base_url=provider.base_url, api_key="k").chat.completions.create(**ASK)
    assert posthog_llm.flush(10)
    receiver.wait_for(2)
    keys = [project.api_key for project in worker.destinations._shared]
    assert keys.count("phc_shared") == 1


def test_configured_module_is_the_fallback(
    provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    run(
        f"""
        import posthog
        from posthog_llm.openai import OpenAI
        client = OpenAI(base_url="{provider.base_url}", api_key="k")
        posthog.project_api_key = posthog.api_key = "phc_module"
        posthog.host = "{receiver.url}"
        client.chat.completions.create(model="m", messages=[])
        posthog.flush()
        import os
        os._exit(0)
        """
    )
    receiver.wait_for(1)


def test_module_given_as_client_and_set_up_later(
    provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    run(
        f"""
        import posthog
        from posthog_llm.openai import OpenAI
        client = OpenAI(base_url="{provider.base_url}", api_key="k", posthog_client=posthog)
        posthog.api_key, posthog.host, posthog.privacy_mode = "phc_m", "{receiver.url}", True
        client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "x"}}])
        posthog.shutdown()
        """
    )
    (event,) = receiver.wait_for(1)
    assert "$ai_input" not in event["properties"]


def test_nothing_configured_warns_once_and_works(provider: ScriptedProvider) -> None:
    error = run(PROGRAM.format(base_url=provider.base_url) * 2)
    assert error.count("POSTHOG_API_KEY") == 1
    assert len(provider.requests) == 2


def test_mock_runs_everything_and_sends_nothing(
    provider: ScriptedProvider, receiver: PostHogReceiver
) -> None:
    program = PROGRAM.format(base_url=provider.base_url)
    error = run(program, POSTHOG_API_KEY="phc", POSTHOG_HOST=receiver.url, POSTHOG_MOCK="true")
    assert error == ""
    assert not receiver.events


def test_users_own_flush_delivers(drive: Driver, receiver: PostHogReceiver) -> None:
    destination = posthog.Posthog("phc_test", host=receiver.url)
    client = drive.ours(posthog_client=destination)
    drive.call(lambda: client.chat.completions.create(**ASK))
    destination.flush()
    assert len(receiver.events) == 1
    drive.call(lambda: client.chat.completions.create(**ASK))
    destination.shutdown()
    assert len(receiver.events) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("httpx") is None, reason="AsyncPosthog itself needs httpx"
)
def test_async_posthog(provider: ScriptedProvider, receiver: PostHogReceiver) -> None:
    import asyncio

    async def program() -> None:
        destination = posthog.AsyncPosthog("phc_test", host=receiver.url)
        client = ours.AsyncOpenAI(
            base_url=provider.base_url, api_key="k", posthog_client=destination
        )
        for _ in range(3):
            await client.chat.completions.create(**ASK)
        await destination.flush()
        assert len(receiver.events) == 3
        await client.chat.completions.create(**ASK)
        await destination.shutdown()

    if not hasattr(posthog, "AsyncPosthog"):
        pytest.skip("this posthog version has no AsyncPosthog")
    asyncio.run(program())
    assert len(receiver.wait_for(4)) == 4


@every_sdk
def test_another_destination_for_a_call(drive: Driver, sink: MemorySink) -> None:
    other = MemorySink()
    client = drive.ours(posthog_client=sink)
    drive.ask(client, posthog_client=other)
    sink.wait_for(0)
    other.wait_for(1)


@every_provider
def test_capture_false_is_no_event_and_no_option(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    is_captured_above = client.with_options(posthog_capture=False)
    drive.ask(client, posthog_capture=False)
    drive.items(drive.ask(is_captured_above, stream=True))
    sink.wait_for(0)
    assert all("stream_options" not in request.json for request in provider.requests)
    drive.ask(is_captured_above, posthog_capture=True)
    sink.wait_for(1)


def test_plain_object_with_a_capture_of_its_own(drive: Driver) -> None:
    class Own:
        seen: list[Any]

        def capture(self, distinct_id: Any, event: Any, properties: Any) -> None:
            self.seen.append((distinct_id, event, properties))

    own = Own()
    own.seen = []
    client = drive.ours(posthog_client=own)
    drive.call(lambda: client.chat.completions.create(**ASK, posthog_distinct_id="u1"))
    posthog_llm.flush()
    ((distinct_id, name, properties),) = own.seen
    assert (distinct_id, name) == ("u1", "$ai_generation")
    assert properties["$ai_model"] == "gpt-5-mini"


@pytest.mark.faulty
def test_capture_that_raises_is_ours_to_bear(
    drive: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def capture(self, **kwargs: Any) -> None:
            raise OSError(28, "no space left, and a prompt: hi")

    client = drive.ours(posthog_client=Broken())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            drive.call(lambda: client.chat.completions.create(**ASK))
        posthog_llm.flush()
    fault, *lost = [r.getMessage() for r in caplog.records if r.name == "posthog_llm"]
    assert "capture failed with capture:OSError" in fault
    assert all("were lost (capture_failed:" in line for line in lost)  # once a minute at most
    assert len(lost) <= 1
    assert "prompt" not in caplog.text


@every_provider
def test_clients_are_not_kept_alive(drive: Driver, sink: MemorySink) -> None:
    clients = [drive.ours(posthog_client=sink)]
    drive.ask(clients[0])
    sink.wait_for(1)
    ref = weakref.ref(clients.pop())
    gc.collect()
    assert ref() is None


def test_import_pulls_in_no_sdk_and_no_posthog() -> None:
    code = """
import sys, posthog_llm
print([name for name in ("openai", "posthog") if name in sys.modules])
import posthog_llm.openai
print("posthog" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\nFalse\n"
