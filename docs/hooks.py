"""A hook of mkdocs: pages of the reference that are written from the commands and the code themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.pages import Page

from rrra_hf.cli.commands import NAMES, read_command

SOURCE = Path(__file__).parents[1] / "src"
COMMANDS, API = "<!-- commands -->", "<!-- names -->"
# Marks what is imported from the package itself.
STAR = r" \*"
# Rooms in the order in which data flows through them.
FLOW = {
    "Read your data": ("data",),
    "Encode and index": ("embeddings", "indexes"),
    "Search and rerank": ("retrieval", "models"),
    "Learn from labels": ("fitting",),
    "Mine hard negatives": ("candidates",),
    "Find missing labels, choose negatives": ("labels",),
    "Train an encoder": ("losses", "training"),
    "Measure and compare": ("evaluation", "comparison"),
    "Share, serve and show": ("hub", "serving", "app"),
}


def on_page_markdown(markdown: str, *, page: Page, **kwargs: Any) -> str:
    """Put the commands, or the public names, where a page asks for them."""
    for place, write in ((COMMANDS, commands), (API, names)):
        if place in markdown:
            markdown = markdown.replace(place, write())
    return markdown


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


def names() -> str:
    """Return a section of Markdown for each step of the flow: public names, and what each is in a line."""
    package = griffe.load("rrra_hf", search_paths=[SOURCE])
    first = set(map(str, package.exports or ()))
    sections = []
    for step, rooms in FLOW.items():
        rows = [
            f"| [`{name}`]({room}.md#rrra_hf.{room}.{name}){STAR if name in first else ''} | {summary} |"
            for room in rooms
            for name, summary in _exported(package[room])
        ]
        sections.append("\n".join([f"## {step}\n", "| name | what it is |", "| --- | --- |", *rows, ""]))
    return "\n".join(sections)


def _exported(room: griffe.Module) -> list[tuple[str, str]]:
    """Return the names that a room exports, and the first sentence about each."""
    found = []
    for name in map(str, room.exports or ()):
        member = room[name]
        # A module may have the name of its function.
        described = member[name] if member.is_module else member
        text = described.docstring.value if described.docstring else "A constant."
        found.append((name, _cell(text.partition("\n\n")[0])))
    return found


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
