"""Uploading a saved folder to a Hub repository in one commit."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from .card import model_card
from .files import RepositoryFile, repository_files, size_text, stale_files, total_size
from .layout import CARD_NAME, PLOT_NAME

logger = logging.getLogger(__name__)

MAIN = "main"


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    with_index: bool = False,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
) -> CommitInfo:
    """Upload a saved model, adapter or retriever to the Hub in one commit.

    A folder without `README.md` gets a model card in the repository.

    Args:
        folder: The folder.
        repo_id: `namespace/name`; the repository is made if it doesn't exist.
        with_index: Upload the index of a retriever too. It holds the documents' texts.
        private: Make a new repository private, and refuse one that is public.
        revision: Branch to commit to; it is made from `main` if it doesn't exist.
        create_pr: Open a pull request to `main` instead of committing.
        token: Hub token.
        commit_message: Commit message.

    Returns:
        URL of the commit, a string with the attributes `oid` and `pr_url`.

    Raises:
        ValueError: If both `revision` and `create_pr` are given, or `private` is given and the repository is
            public.
        PermissionError: If the token doesn't allow it.
        ConnectionError: If the upload broke off.
        OSError: If the folder holds no model, or no index with `with_index`, or the Hub refuses the upload.

    Example:
        ::

            push_folder("models/mine", "me/my-model", private=True)
    """
    check_target(revision, create_pr)
    return push_files(
        files_to_push(Path(folder), repo_id, with_index),
        repo_id,
        private=private,
        revision=revision,
        create_pr=create_pr,
        token=token,
        commit_message=commit_message,
    )


def files_to_push(folder: Path, repo_id: str, with_index: bool = False) -> list[RepositoryFile]:
    """Return what `push_folder` uploads: the folder's files, and a model card if there is none.

    Args:
        folder: A saved model, adapter or retriever.
        repo_id: Repository that the model card names.
        with_index: Include the index of a retriever.

    Raises:
        ValueError: If a file that the model card is made from is damaged.
        OSError: If the folder holds no model, or no index with `with_index`.
    """
    files = {file.name: file for file in repository_files(folder, with_index)}
    if CARD_NAME not in files:
        card = model_card(folder, repo_id)
        made = {CARD_NAME: card.text.encode(), PLOT_NAME: card.plot}
        files.update(
            (name, RepositoryFile(name, content, len(content))) for name, content in made.items() if content
        )
    return [files[name] for name in sorted(files)]


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

    Large files are sent first, and nobody sees them until the commit names them. If the upload breaks off,
    nothing is committed. If you repeat it, only what didn't arrive is sent: with the Hub's Xet storage, only
    the missing chunks of a file. Weights, modules, adapter and index in the repository that are not among the
    files are deleted in the same commit, see `stale_files`.

    Args:
        files: What `files_to_push` returns.
        repo_id: As in `push_folder`, as are the others.
        private: Make a new repository private.
        revision: Branch to commit to.
        create_pr: Open a pull request.
        token: Hub token.
        commit_message: Commit message.

    Returns:
        As `push_folder`.

    Raises:
        ValueError, OSError: As `push_folder`.
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
            # It says that the index's documents are data. They are.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            # upload_folder would make several commits of many files.
            return api.create_commit(
                repo_id,
                [
                    *(CommitOperationDelete(name, is_folder=False) for name in stale),
                    *(CommitOperationAdd(file.name, file.content) for file in files),
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
    """Make repository and branch if they don't exist, and return the repository's full name."""
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id).private:
        raise ValueError(f"private was requested, but {repo_id} exists and is public.")
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
    except Exception as error:  # each way of transfer raises its own classes for a lost connection
        raise ConnectionError(
            f"The upload to {repo_id} at {endpoint} broke off ({error.__cause__ or error}). Nothing was "
            "committed. Repeat the upload: files that arrived are not sent again."
        ) from error
