"""`rrra push`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from .common import Json, bad_arguments, console, errors, print_json

if TYPE_CHECKING:
    from ..hub import RepositoryFile


class Form(str, Enum):
    """Form of the weights in the repository."""

    FULL = "full"
    LORA = "lora"
    MERGED = "merged"
    PLAIN = "plain"


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A saved model, adapter or retriever.")],
    repo_id: Annotated[
        str,
        typer.Argument(
            metavar="REPO_ID", help="Repository, such as `me/my-model`. It is created if it doesn't exist."
        ),
    ],
    form: Annotated[
        Form,
        typer.Option(
            help="full: the weights as they are. lora: LoRA and adapter only; the base model is named. "
            "merged: LoRA added to the encoder's weights, so that peft isn't needed. plain: an ordinary "
            "encoder with the adapter beside it, which opens without this package and without code."
        ),
    ] = Form.FULL,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="The base model on the Hub, with --form lora; the encoder it was made from by default."
        ),
    ] = None,
    with_index: Annotated[
        bool, typer.Option("--with-index", help="Upload a retriever's index too, with the documents' texts.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private, and refuse a public one.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to commit to. It is created if it doesn't exist.")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    commit_message: Annotated[str, typer.Option(help="Commit message.")] = "Upload model",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
    json: Json = False,
) -> None:
    """Upload a folder to the Hugging Face Hub, with a model card, in one commit.

    Files and sizes are shown first, and on a terminal you are asked. If the upload breaks off, repeat it:
    files that arrived are not sent again. Log in before with `hf auth login`, or set HF_TOKEN.

    Example: `rrra push models/scifact me/scifact-retriever --private`
    """
    from huggingface_hub.utils import disable_progress_bars

    from ..hub import files_to_push, push_files
    from ..hub.push import check_target

    with bad_arguments():
        check_target(revision, create_pr)
        if base_model is not None and form is not Form.LORA:
            raise ValueError(f"base_model belongs to --form lora, got --form {form.value}.")
    if not errors.is_terminal:
        disable_progress_bars()
    with _in_form(folder, form, base_model, with_index) as saved:
        files = files_to_push(saved, repo_id, with_index)
        if not json:
            console.print(_table(files))
        if sys.stdin.isatty() and not yes:
            typer.confirm(f"Upload {len(files)} files to {repo_id}?", abort=True, err=True)
        commit = push_files(
            files,
            repo_id,
            private=private or None,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
    if json:
        sizes = {file.name: file.size for file in files}
        print_json({"url": commit, "commit": commit.oid, "pull_request": commit.pr_url, "files": sizes})
        return
    typer.echo(f"pull request: {commit.pr_url}" if create_pr else f"commit: {commit}")


@contextmanager
def _in_form(folder: Path, form: Form, base_model: str | None, with_index: bool) -> Iterator[Path]:
    """Yield the folder, or a temporary one with the same model in another form and the other files.

    The plain form of a model with code is used in another way, so that it gets another card.
    """
    from ..hub import repository_files
    from ..hub.layout import CARD_NAME
    from ..models.modeling_rrra import CODE, RRRAModel
    from ..retrieval import Retriever

    files = repository_files(folder, with_index)
    if form is Form.FULL:
        yield folder
        return
    retriever = Retriever.from_pretrained(folder)
    if base_model is not None:
        config = RRRAModel.from_sentence_transformer(retriever.encoder).config
        config.base_model_name, config.base_model_revision = base_model, None
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        retriever.save_pretrained(copy, form=form.value, with_index=with_index)
        has_code = any(file.name in CODE for file in files)
        other = {*CODE, CARD_NAME} if form is Form.PLAIN and has_code else set()
        for file in files:
            if not (copy / file.name).exists() and file.name not in other and ".safetensors" not in file.name:
                (copy / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file.name, copy / file.name)
        yield copy


def _table(files: list[RepositoryFile]) -> Table:
    from ..hub import size_text, total_size

    table = Table("file", Column("size", justify="right"), show_footer=True)
    table.columns[0].footer = f"{len(files)} files"
    table.columns[1].footer = size_text(total_size(files))
    for file in files:
        table.add_row(file.name, size_text(file.size))
    return table
