"""A hook of mkdocs: the page of the command line is written from the command line itself."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.pages import Page

from rrra_hf.cli.commands import NAMES, read_command

COMMANDS = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Page, **kwargs: Any) -> str:
    """Put the commands, their options and their examples where a page asks for them."""
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def commands() -> str:
    """Return a section of Markdown for each command."""
    sections = []
    for name in NAMES:
        command = read_command(name)
        context = command.make_context(name, [], resilient_parsing=True)
        records = (parameter.get_help_record(context) for parameter in command.get_params(context))
        rows = [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in filter(None, records)]
        table = "\n".join(["| option | meaning |", "| --- | --- |", *rows])
        sections.append(f"## rrra {name}\n\n{command.help}\n\n{table}\n")
    return "\n".join(sections)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
