"""The help of each command."""

from __future__ import annotations

import inspect
import re
import shlex

import pytest

from bad_input import succeed
from rrra_hf.candidates import DEPTH
from rrra_hf.cli.commands import NAMES, PANELS, read_command

COMMANDS = {name: read_command(name) for name in NAMES}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_the_help_is_a_command_that_exists(name: str) -> None:
    shown = succeed(name, "--help").out
    assert "Example: " in shown and "--json" in shown
    (example,) = re.findall(r"Example: (.*)", inspect.getdoc(COMMANDS[name].callback) or "")
    commands = [
        part
        for code in re.findall(r"`(.*?)`", example)
        for part in code.split(" | ")
        if part.startswith("rrra ")
    ]
    assert commands[0].split()[1] == name
    for command in commands:
        _, subcommand, *arguments = shlex.split(command)
        # Raises for an unknown option, an invalid value or a missing argument.
        COMMANDS[subcommand].make_context(subcommand, arguments)


def test_help_lists_every_command() -> None:
    out = succeed("--help").out
    assert sorted(COMMANDS) == [
        *["app", "audit", "card", "compare", "demo", "evaluate", "fit", "index"],
        *["mine", "push", "rerank", "search", "serve", "train", "update"],
    ]
    assert all(re.search(rf"│ {name} ", out) for name in COMMANDS)


def test_the_list_has_the_first_line_of_each_help() -> None:
    listed = {name: summary for summaries in PANELS.values() for name, summary in summaries.items()}
    assert listed == {name: found.help.partition("\n")[0] for name, found in COMMANDS.items()}


def test_commands_that_open_a_model_have_its_device() -> None:
    with_device = {name for name, command in COMMANDS.items() if "device" in {p.name for p in command.params}}
    opening = {name for name, command in COMMANDS.items() if "dtype" in {p.name for p in command.params}}
    # Training runs where `accelerate launch` or torchrun starts it. A card measures a folder.
    assert with_device == opening - {"train"} | {"card"}


def test_the_depth_is_that_of_the_package() -> None:
    for name in ("mine", "search", "evaluate"):
        (depth,) = (option.default for option in COMMANDS[name].params if option.name == "depth")
        assert depth == DEPTH
