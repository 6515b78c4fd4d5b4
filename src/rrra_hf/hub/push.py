"""One commit to a Hub repository: prepared here, uploaded in parts, visible all at once."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..models.adapter_rrra import CONFIG_NAME
from ..models.configuration_rrra import RRRAConfig
from ..models.layout_rrra import read_json
from ..models.modeling_rrra import FORMS, RRRAModel
from ..retrieval.corpus_index import META_NAME
from ..retrieval.retriever import INDEX_FOLDER
from .card import CARD_NAME, write_model_card
from .files import RepositoryFile, repository_files, size_text, stale_files, total_size

logger = logging.getLogger(__name__)

MAIN = "main"


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    form: str = "full",
    with_index: bool = False,
    base_model: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
) -> CommitInfo:
    """Upload a saved model, adapter or retriever to the Hub in one commit.

    Args:
        folder: The folder.
        repo_id: `namespace/name`; made if it isn't there.
        form: See `prepared`, as for the next two.
        with_index: Upload the index of a retriever too, which holds the documents' texts.
        base_model: Name of the base model on the Hub, for `form="lora"`.
        private: See `push_files`, as for the others.
        revision: Branch to commit to.
        create_pr: Open a pull request instead of committing.
        token: Hub token.
        commit_message: Message of the commit.

    Returns:
        The commit's address, a string, with `oid` and `pr_url`.

    Raises:
        ValueError, OSError: See `prepared` and `push_files`.
    """
    check_target(revision, create_pr)
    with prepared(folder, repo_id, form=form, with_index=with_index, base_model=base_model) as files:
        return push_files(
            files,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token,
            commit_message=commit_message,
        )


# -------------------------------------------------------------------- preparing


@contextmanager
def prepared(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    form: str = "full",
    with_index: bool = False,
    base_model: str | None = None,
) -> Iterator[list[RepositoryFile]]:
    """Yield the files of a repository, which last as long as the block.

    A folder without `README.md` gets a model card.

    Args:
        folder: A saved model, adapter or retriever.
        repo_id: Repository that the model card speaks of.
        form: `"full"`: the weights as they are in the folder. `"lora"` and `"merged"`, of an `RRRAModel`: see
            its `save_pretrained`.
        with_index: With the index of a retriever, which holds the documents' texts.
        base_model: Name of the base model on the Hub, for `form="lora"`, where the model was made from a
            folder of another name.

    Raises:
        ValueError: If the folder can't be saved in this form.
        OSError: If the folder holds no model, or no index though it is wanted, or the base model can't be
            loaded.
    """
    source = Path(folder)
    present = repository_files(source, with_index)
    _check_form(source, form, with_index, base_model)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        _copy(present, stage)
        kept = present
        if form != "full":
            kept = [file for file in present if file.name.startswith(f"{INDEX_FOLDER}/")]
            _save_as(source, stage, form, base_model)
        if not (stage / CARD_NAME).exists():
            write_model_card(stage, repo_id)
        staged = repository_files(stage)
        yield sorted({file.name: file for file in (*kept, *staged)}.values())


def _copy(files: Sequence[RepositoryFile], target: Path) -> None:
    """Copy what a model card is made from: all but weights, and of the index only its description."""
    for file in files:
        of_index = file.name.startswith(f"{INDEX_FOLDER}/")
        if ".safetensors" in file.name or (of_index and file.path.name != META_NAME):
            continue
        (target / file.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, target / file.name)


def _check_form(folder: Path, form: str, with_index: bool, base_model: str | None) -> None:
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    if base_model is not None and form != "lora":
        raise ValueError(f"base_model belongs to form='lora', got form={form!r}.")
    if form == "full":
        return
    config = read_json(str(folder), CONFIG_NAME, {}) or {}
    if config.get("model_type") != RRRAConfig.model_type or not config.get("lora"):
        raise ValueError(f"form {form!r} needs an RRRAModel with LoRA; {folder} holds none: use 'full'.")
    if with_index and form == "merged":
        raise ValueError(
            "with_index can't go with form='merged': merged weights make slightly other embeddings. "
            "Save the merged model (save_pretrained with form='merged'), and index with that."
        )


def _save_as(source: Path, target: Path, form: str, base_model: str | None) -> None:
    model = RRRAModel.from_pretrained(source)
    if base_model is not None:
        model.config.base_model_name, model.config.base_model_revision = base_model, None
    model.save_pretrained(target, form=form)


# -------------------------------------------------------------------- uploading


def push_files(
    files: Sequence[RepositoryFile],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
) -> CommitInfo:
    """Upload files to a repository in one commit.

    Large files are sent first, and stay unseen until the commit names them. If the upload breaks off, nothing
    is committed; repeated, it sends only what has not arrived (of a file that broke off, with the Hub's Xet
    storage, only its missing chunks). In the same commit, weights, modules, adapter and index that are in the
    repository and not among the files are deleted: with another model's they would make neither model.

    Args:
        files: What `prepared` yields.
        repo_id: `namespace/name`; made if it isn't there.
        private: Make a new repository private; refuse one that is public.
        revision: Branch to commit to; made from `main` if it isn't there.
        create_pr: Open a pull request to `main` instead of committing.
        token: Hub token.
        commit_message: Message of the commit.

    Returns:
        The commit's address, a string, with `oid` and `pr_url`.

    Raises:
        ValueError: If both `revision` and `create_pr` are given, or `private` is asked for and the repository
            is public.
        PermissionError: If the token doesn't allow it.
        ConnectionError: If the upload broke off.
        OSError: Of `huggingface_hub`, for whatever else the Hub refuses.
    """
    check_target(revision, create_pr)
    api = HfApi(token=token)
    with _clear_errors(repo_id, api.endpoint):
        repo_id = _open_repository(api, repo_id, private, revision)
        present = api.list_repo_files(repo_id, revision=revision)
        stale = stale_files(present, [file.name for file in files])
        if stale:
            logger.info("Deleting %s: not of this model", ", ".join(stale))
        logger.info("Uploading %d files, %s, to %s", len(files), size_text(total_size(files)), repo_id)
        with warnings.catch_warnings():
            # Of the index's documents it says that they are data. They are.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            # Not upload_folder, which makes several commits of many files.
            return api.create_commit(
                repo_id,
                [
                    *(CommitOperationDelete(name, is_folder=False) for name in stale),
                    *(CommitOperationAdd(file.name, file.path) for file in files),
                ],
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )


def check_target(revision: str | None, create_pr: bool) -> None:
    """Refuse a branch together with a pull request.

    Raises:
        ValueError: If both are given.
    """
    if create_pr and revision not in (None, MAIN):
        raise ValueError(f"revision can't go with create_pr, which is always to {MAIN}; got {revision!r}.")


def _open_repository(api: HfApi, repo_id: str, private: bool | None, revision: str | None) -> str:
    """Make repository and branch if they aren't there, and return the repository's full name."""
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id).private:
        raise ValueError(f"private was asked for, but {repo_id} is there already and public.")
    if revision not in (None, MAIN):
        api.create_branch(repo_id, branch=str(revision), exist_ok=True)
    return repo_id


@contextmanager
def _clear_errors(repo_id: str, endpoint: str) -> Iterator[None]:
    """Say what a refusal or a lost connection means, and what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise PermissionError(
            f"No permission to write to {repo_id} at {endpoint}: {error.server_message or error} Give a "
            "token with write access, or log in with `hf auth login`."
        ) from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # of a lost connection each way of transfer raises classes of its own
        raise ConnectionError(
            f"The upload to {repo_id} at {endpoint} broke off ({error.__cause__ or error}). Nothing was "
            "committed; repeat it, files that arrived are not sent again."
        ) from error
