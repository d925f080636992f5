"""What type checkers and editors make of our clients, beside whichever SDKs are installed."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import posthog_llm
from posthog_llm.anthropic import Anthropic
from posthog_llm.openai import OpenAI

from ..test_clients import resources
from .sources import functions

HERE = Path(__file__).parent
PACKAGE = Path(posthog_llm.__file__).parent
SAMPLES = ("good.py", "bad.py")
CAPTURED = {
    "openai": {
        "BetaResponses.cancel compact create retrieve",
        "ChatCompletions.create parse stream",
        "Completions.create",
        "Decisions.create",
        "Embeddings.create",
        "Images.create_variation edit generate",
        "Responses.cancel compact create parse retrieve stream",
        "Speech.create",
        "Transcriptions.create",
        "Translations.create",
    },
    "anthropic": {
        "Batches.results",
        "BedrockMessages.create parse stream thread tool_runner",
        "BetaBatches.results",
        "BetaMessages.create parse stream thread tool_runner",
        "Messages.create parse stream",
        "MessagesFoundry.create parse stream",
        "VertexMessages.create parse stream thread tool_runner",
    },
}
RENAMED = re.compile(r"\b_[a-z]+_(?=[A-Za-z])")
"""What is put before a name that two modules of an SDK have."""
EDITED = """\
from posthog_llm.openai import OpenAI

client = OpenAI()
client.chat.completions.create(model="m", messages=[], posthog_session_id="s")
client.embeddings.create(model="m", input="x")
"""

pytest.importorskip("pyright", reason="the types session has it")


def marked() -> set[tuple[str, int]]:
    """Return file and line of what is wrong in the samples."""
    lines = enumerate((HERE / "bad.py").read_text().splitlines(), 1)
    return {("bad.py", number) for number, line in lines if line.endswith("  # wrong")}


def run(*command: str, directory: Path, status: int | None = 1) -> str:
    made = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, timeout=110
    )
    assert status in (made.returncode, None), made.stdout + made.stderr
    return made.stdout


def test_mypy(tmp_path: Path) -> None:
    copy_samples(tmp_path)
    # The cache is that of the package's own run, which has looked at the SDKs.
    cache = ("--python-version=3.10", f"--cache-dir={PACKAGE.parent / '.mypy_cache'}")
    strict = ("mypy", "--strict", "--config-file=", *cache, "--output=json", *SAMPLES)
    properties = [json.loads(line) for line in run(*strict, directory=tmp_path).splitlines()]
    wrong = {(m["file"], m["line"]): m["message"] for m in properties if m["severity"] == "error"}
    assert wrong.keys() == marked(), wrong


def test_pyright(tmp_path: Path) -> None:
    """The samples; and beside old SDKs, too, strict checkers know every parameter's type."""
    copy_samples(tmp_path)
    head = (
        "# pyright: reportDeprecated=false",
        "from posthog_llm.anthropic import Anthropic",
        "from posthog_llm.openai import OpenAI",
        "def use(openai: OpenAI, anthropic: Anthropic) -> None:",
    )
    methods = sending_methods()
    assert len(methods) > 150
    (tmp_path / "use.py").write_text("\n".join([*head, *(f"    {name}" for name in methods)]))
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ("pyright", "--outputjson", "--pythonpath", sys.executable)
    found = json.loads(run(*command, directory=tmp_path))["generalDiagnostics"]
    properties = [(Path(m["file"]).name, m["range"]["start"]["line"], m) for m in found]
    wrong = {
        (name, line + 1): m["message"]
        for name, line, m in properties
        if name in SAMPLES and m["severity"] == "error"
    }
    assert wrong.keys() == marked(), wrong
    unknown = {methods[line - len(head)] for name, line, _ in properties if name == "use.py"}
    # One of the types that it may return is newer than the oldest SDK.
    assert unknown <= {"openai.audio.transcriptions.create"}, properties


def copy_samples(directory: Path) -> None:
    """Make a user's project of the samples."""
    for name in SAMPLES:
        (directory / name).write_text((HERE / name).read_text())


def sending_methods() -> list[str]:
    """Return the methods of the SDKs' clients that take our arguments, by their paths."""
    named = {"openai": OpenAI(api_key="k", webhook_secret="k"), "anthropic": Anthropic(api_key="k")}
    return [
        f"{name}.{path}.{method}"
        for name, client in named.items()
        for path, resource in resources(client)
        if "with_" not in path
        for method in peeled(type(resource))
    ]


def test_the_samples_are_many() -> None:
    assert len(marked()) > 20
    assert (HERE / "good.py").read_text().count("assert_type(") > 20


class Editor:
    """A language server, asked as an editor asks: https://microsoft.github.io/language-server-protocol"""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "edited.py"
        self._file.write_text(EDITED)
        there = {"venvPath": str(Path(sys.prefix).parent), "venv": Path(sys.prefix).name}
        (directory / "pyrightconfig.json").write_text(json.dumps(there))
        self._numbers = itertools.count()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "pyright.langserver", "--stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        capabilities = {
            "textDocument": {"hover": {"contentFormat": ["plaintext"]}, "declaration": {}}
        }
        folder = {"uri": directory.as_uri(), "name": "edited"}
        self.ask(
            "initialize",
            processId=None,
            rootUri=directory.as_uri(),
            capabilities=capabilities,
            workspaceFolders=[folder],
        )
        self._send({"method": "initialized", "params": {}})
        document = {
            "uri": self._file.as_uri(),
            "languageId": "python",
            "version": 1,
            "text": EDITED,
        }
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})

    def at(self, word: str, method: str) -> Any:
        """Ask about the first place of a word."""
        before = EDITED[: EDITED.index(word)]
        position = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2]) + 1}
        document = {"uri": self._file.as_uri()}
        return self.ask(f"textDocument/{method}", textDocument=document, position=position)

    def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        while True:
            properties = self._receive()
            if properties.get("id") == number and "method" not in properties:
                return properties["result"]
            if "id" in properties:
                self._send({"id": properties["id"], "result": None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._server.stdin is not None
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        head = list(iter(lambda: self._server.stdout.readline().strip(), b""))  # type: ignore[union-attr]
        length = next(int(line.split(b":")[1]) for line in head if b"Length" in line)
        found: dict[str, Any] = json.loads(self._server.stdout.read(length))
        return found

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """Start one for all tests: none of them edits."""
    editor = Editor(tmp_path_factory.mktemp("editor"))
    yield editor
    editor.close()


def test_hovering_an_argument_shows_a_line_of_help(editor: Editor) -> None:
    shown = editor.at("posthog_session_id", "hover")["contents"]["value"]
    assert "posthog_session_id: str | int | UUID | None" in shown
    assert "The session that the trace belongs to, such as a conversation." in shown


def test_completion_offers_the_sdks_parameters_and_ours(editor: Editor) -> None:
    offered = editor.at("posthog_session_id", "completion")["items"]
    labels = {item["label"] for item in offered}
    assert {"temperature=", "response_format=", "posthog_distinct_id=", "posthog_groups="} <= labels


@pytest.mark.parametrize(
    ("word", "ends"),
    [
        ("create(model", "openai/resources/chat/completions/completions.py"),
        ('create(model="m", input', "openai/resources/embeddings.py"),
    ],
)
def test_going_to_the_definition_ends_at_the_sdks_method(
    editor: Editor, word: str, ends: str
) -> None:
    found = editor.at(word, "definition")
    assert found
    for place in found:
        assert place["uri"].endswith(ends)
        assert "posthog_llm" not in place["uri"]


def test_the_methods_that_take_our_arguments() -> None:
    """Those that run a model; the raw and the streaming ones are inferred from them."""
    assert {sdk: set(captured(PACKAGE / sdk / "_resources.pyi")) for sdk in CAPTURED} == CAPTURED


def captured(stub: Path) -> Iterator[str]:
    for name, node in classes(stub).items():
        taken = [m for m, found in functions(node).items() if takes_ours(found)]
        if taken and not name.startswith("Async"):
            yield f"{name}.{' '.join(sorted(taken))}"
            twin = functions(classes(stub)[f"Async{name}"])
            assert [m for m, found in twin.items() if takes_ours(found)] == taken


def test_stubs_have_the_sdks_own_overloads_parameters_and_returns() -> None:
    compared = 0
    for sdk in CAPTURED:
        module = ast.parse((PACKAGE / sdk / "_resources.py").read_text())
        stub = classes(PACKAGE / sdk / "_resources.pyi")
        keywords = {name: keys(node) for name, node in stub.items()}
        for imported in module.body:
            for alias in getattr(imported, "names", ()):
                theirs = methods_of(imported.module, alias.name)  # type: ignore[attr-defined]
                for method, ours in functions(stub[alias.asname or alias.name]).items():
                    if method[0] != "_" and method in theirs and takes_ours(ours):
                        found = theirs[method]
                        properties = [described(f, keywords) for f in ours]
                        assert properties == [described(f, {}) for f in found[:-1] or found], method
                        compared += 1
    assert compared > 60


def methods_of(module: str, name: str) -> dict[str, Any]:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    return functions(classes(Path(str(spec.origin)))[name])


def keys(node: ast.ClassDef) -> set[str]:
    """Return the keywords of a class of keywords."""
    return {ast.unparse(item.target) for item in node.body if isinstance(item, ast.AnnAssign)}


def described(function: Any, keywords: dict[str, set[str]]) -> tuple[str, str, set[str]]:
    """Return kind, return type and parameters of a function."""
    given = {argument.arg for argument in function.args.args + function.args.kwonlyargs}
    if function.args.kwarg is not None:
        given |= keywords.get(ast.unparse(function.args.kwarg.annotation)[7:-1], set())
    return type(function).__name__, RENAMED.sub("", ast.unparse(function.returns)), given


def test_the_modules_beside_the_stubs_can_be_imported() -> None:
    for sdk in CAPTURED:
        beside = importlib.import_module(f"posthog_llm.{sdk}._resources")
        named = classes(PACKAGE / sdk / "_resources.pyi")
        resources = {name for name in named if not name.endswith("Arguments") and name[-1] > "9"}
        assert resources <= vars(beside).keys()


def peeled(sdk: type) -> set[str]:
    return {
        name
        for name, function in inspect.getmembers(sdk, inspect.isfunction)
        if name[0] != "_" and name != "connect"
        if "extra_query" in inspect.signature(function).parameters
    }


@functools.cache
def classes(stub: Path) -> dict[str, ast.ClassDef]:
    return {n.name: n for n in ast.parse(stub.read_text()).body if isinstance(n, ast.ClassDef)}


def takes_ours(found: list[Any]) -> bool:
    keywords = found[0].args.kwarg
    return keywords is not None and "Arguments" in ast.unparse(keywords)
