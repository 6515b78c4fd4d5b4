"""Run a page of the documentation as its reader does: its code and commands, in order, in one folder."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging

from command_line import rrra
from rrra_hf.cli.commands import NAMES, read_command

ROOT = Path(__file__).parent.parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SERVICE = "http://localhost:8000"
COMMANDS: dict[str, Any] = {name: read_command(name) for name in NAMES}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Return language and text of each fenced block of a page; the language is empty where none is named."""
    return re.findall(
        r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def python_blocks(path: Path) -> list[str]:
    """Return the Python of a page."""
    return [text for language, text in blocks(path) if language == "python"]


def make_fits_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit adapters in a few steps: the usual ones are for thousands of queries."""
    monkeypatch.setattr("rrra_hf.fitting.heads.OWN_STEPS", 20)
    monkeypatch.setattr("rrra_hf.fitting.heads.STARTED_STEPS", 20)
    monkeypatch.setattr("rrra_hf.fitting.maps.STEPS", 20)
    monkeypatch.setattr("rrra_hf.fitting.maps.STOPS", (20,))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a block of shell, without the variables set before it."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


# -------------------------------------------------------------------- checking a command without running it


def check(words: list[str]) -> None:
    """Check that the program, options, files, extras and targets of a command exist."""
    CHECKS[words[0]](words[1:])


def check_rrra(words: list[str]) -> None:
    assert words[0] in COMMANDS
    COMMANDS[words[0]].make_context(words[0], words[1:])


def check_named(words: list[str]) -> None:
    """Check a command that a text mentions, perhaps with some of its options."""
    if words[0] == "make":
        check_make(words[1:])
        return
    if words[1] == "COMMAND":
        return
    known = {
        name for parameter in COMMANDS[words[1]].params for name in parameter.opts + parameter.secondary_opts
    }
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


def check_pip(words: list[str]) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^([\w-]+) = \[", text.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    assert words[0] == "install"
    for requirement in words[1:]:
        name, extra = re.fullmatch(r"([\w-]+)(?:\[([\w-]+)\])?", requirement).groups()  # type: ignore[union-attr]
        assert name == "rrra-hf"
        assert extra is None or extra in extras


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_script(words: list[str]) -> None:
    """Check a script of the repository and the names of its options."""
    script = (ROOT / words[0]).read_text(encoding="utf-8")
    assert all(f'"{word}"' in script for word in words[1:] if word.startswith("--"))


def check_accelerate(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch"
    parsed = launch_command_parser().parse_args(words[1:])
    check_script([parsed.training_script, *parsed.training_script_args])


def check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(words)
    assert (parsed.module, parsed.training_script) == (True, "rrra_hf.cli.app")
    check_rrra(parsed.training_script_args)


def check_curl(words: list[str]) -> None:
    from rrra_hf.serving.app import PATHS
    from rrra_hf.serving.schemas import EmbeddingsRequest, RankRequest, RerankRequest, SearchRequest

    requests = {
        "/search": SearchRequest,
        "/rank": RankRequest,
        "/v1/embeddings": EmbeddingsRequest,
        "/v1/rerank": RerankRequest,
    }
    path = words[0][words[0].index("/") :]
    assert path in PATHS
    if path in requests:
        requests[path].model_validate(json.loads(words[words.index("-d") + 1]))


def no_check(words: list[str]) -> None:
    """Check nothing."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "rrra": check_rrra,
    "pip": check_pip,
    "make": check_make,
    "python": check_script,
    "accelerate": check_accelerate,
    "torchrun": check_torchrun,
    "curl": check_curl,
    "hf": no_check,
    "git": no_check,
    "cd": no_check,
    "grep": no_check,
}


# -------------------------------------------------------------------- walking through a page

# Commands that run until they are stopped, or take long.
NOT_RUN = {"app", "compare", "demo", "serve"}


def walk(path: Path, quick: dict[str, str], service: str = SERVICE) -> dict[str, Any]:
    """Run a page in the working directory: its Python in one namespace, and its commands in between.

    Args:
        path: The page.
        quick: Options that are added to every command that has them. `--model` also replaces the model in
            the Python code.
        service: Address of the service that replaces the one in the Python code.

    Returns:
        The namespace.
    """
    names: dict[str, Any] = {}
    for language, text in blocks(path):
        text = text.replace(MODEL, quick["--model"]).replace(SERVICE, service)
        if language == "python":
            exec(compile(text, str(path), "exec"), names)
        if language == "bash":
            for words in commands(text):
                check(words)
                if words[0] == "rrra" and words[1] not in NOT_RUN:
                    run(words[1:], quick)
    return names


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what a command does to the logging of its process, which here runs all tests."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    yield
    transformers_logging.set_verbosity(verbosity)
    if bars:
        transformers_logging.enable_progress_bar()


def run(words: list[str], quick: dict[str, str]) -> None:
    """Run an `rrra` command and check that it succeeds."""
    known = {name for parameter in COMMANDS[words[0]].params for name in parameter.opts}
    # An index has an encoder of its own.
    known -= {"--model", "--max-length"} if "--index" in words else set()
    options = [f"{name}={value}" for name, value in quick.items() if name in known]
    with logging_as_before():
        outcome = rrra(*words, *options)
    assert outcome.status == 0, outcome.err
