"""The commands by name. Only the one that is used is read, which the list of all doesn't wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup

MARKUP: Final = "markdown"
# The first line of the help of each command, by panel.
PANELS = {
    "Train": {
        "demo": "Search, fit and find missing labels on the Python documentation of this machine, offline.",
        "mine": "Mine hard negatives for each query, with the probability that each is a false negative.",
        "fit": "Fit an adapter on a frozen encoder. Takes a minute or two on one core.",
        "train": "Train an encoder in three stages, and fit an adapter to it.",
    },
    "Labels": {
        "audit": "Find the labels that are probably missing, look at them, and mend the collection.",
    },
    "Search": {
        "index": "Index a corpus by embeddings and by words, and save model and index in one folder.",
        "update": "Add, replace and delete documents of a retriever, all or none of them.",
        "search": "Search an index, and rerank.",
        "rerank": "Rank documents for a query. Prints score, probability and text of each.",
        "serve": "Serve a retriever over HTTP.",
        "app": "Open a web page that compares search with and without the adapter. Stop it with Ctrl-C.",
    },
    "Evaluate and share": {
        "evaluate": "Measure a model on a split, without and with its adapter.",
        "compare": (
            "Compare retrieval methods on your collections, with the same candidates, budget and seeds."
        ),
        "card": "Write the model card of a saved model: README.md and its reliability plot.",
        "push": "Upload a folder to the Hugging Face Hub, with a model card, in one commit.",
    },
}
NAMES = [name for summaries in PANELS.values() for name in summaries]
# Files whose name isn't that of their command: cli/app.py is the application.
FILES = {"app": "gradio_app"}


class Commands(TyperGroup):
    """The group of all commands, listed by their summaries."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the command that is used, the command with its options, and its arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and read_command(str(name)), rest


def read_command(name: str) -> Any:
    """Return a command with its options.

    Args:
        name: One of `NAMES`.
    """
    function = getattr(import_module(f".{FILES.get(name, name)}", __package__), name)
    alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    alone.command(name)(with_quiet_transformers(function))
    return typer.main.get_command(alone)


def with_quiet_transformers(command: Callable[..., None]) -> Callable[..., None]:
    """Make transformers quiet once a command works: importing it takes longer than a command's help."""

    @wraps(command)
    def run(**options: Any) -> None:
        from transformers.utils import logging as transformers_logging

        if not logging.getLogger().isEnabledFor(logging.INFO):
            # For weights that don't match, transformers prints a table; the error message says the same.
            transformers_logging.set_verbosity_error()
        # Progress bars for loading and saving weights are noise for small models.
        transformers_logging.disable_progress_bar()
        command(**options)

    return run
