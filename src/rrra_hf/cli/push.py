"""`rrra push`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from .common import Json, bad_arguments, console, errors, print_json

if TYPE_CHECKING:
    from ..hub import RepositoryFile


class Form(str, Enum):
    """How the weights are put into the repository."""

    FULL = "full"
    LORA = "lora"
    MERGED = "merged"


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A saved model, adapter or retriever.")],
    repo_id: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="Repository, as `me/my-model`; made if it isn't there.")
    ],
    form: Annotated[
        Form,
        typer.Option(
            help="full: the weights as they are; lora: LoRA and adapter alone, the base model named; "
            "merged: LoRA added to the encoder, which then needs no peft."
        ),
    ] = Form.FULL,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="The base model on the Hub, with --form lora; by default the one it was made from."
        ),
    ] = None,
    with_index: Annotated[
        bool, typer.Option("--with-index", help="Upload a retriever's index too, with its documents' texts.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private; refuse a public one.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made if it isn't there.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    commit_message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload model",
    json: Json = False,
) -> None:
    """Upload a folder to the Hugging Face Hub, with a model card, in one commit.

    Files and sizes are shown first. If the upload breaks off, repeat it: files that arrived are not sent
    again. Log in before, with `hf auth login`, or set HF_TOKEN.

    Example: `rrra push models/scifact me/scifact-retriever --private`
    """
    from huggingface_hub.utils import disable_progress_bars

    from ..hub import prepared, push_files
    from ..hub.push import check_target

    with bad_arguments():
        check_target(revision, create_pr)
    if not errors.is_terminal:
        disable_progress_bars()
    with prepared(folder, repo_id, form=form.value, with_index=with_index, base_model=base_model) as files:
        if not json:
            console.print(_table(files))
        commit = push_files(
            files,
            repo_id,
            private=private or None,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
        sizes = {file.name: file.size for file in files}
    if json:
        print_json({"url": commit, "commit": commit.oid, "pull_request": commit.pr_url, "files": sizes})
        return
    typer.echo(f"pull request: {commit.pr_url}" if create_pr else f"commit: {commit}")


def _table(files: list[RepositoryFile]) -> Table:
    from ..hub import size_text, total_size

    table = Table("file", Column("size", justify="right"), show_footer=True)
    table.columns[0].footer = f"{len(files)} files"
    table.columns[1].footer = size_text(total_size(files))
    for file in files:
        table.add_row(file.name, size_text(file.size))
    return table
