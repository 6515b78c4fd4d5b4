"""Opening a saved retriever: its encoder, its adapter and its index, each checked by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import DryRunError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from ..hub.layout import ADAPTER_FOLDER, INDEX_FOLDER
from ..indexes.approximate import CANDIDATES_NAME
from ..models.adapter_rrra import CONFIG_NAME, RetrieverAdapter
from ..models.download_rrra import check_downloads, named_connection_errors
from ..models.hub_files_rrra import named_errors
from ..models.modeling_rrra import OWNED as OWNED_BY_MODELS
from ..models.modeling_rrra import RRRAModel
from .corpus_index import FILE_NAMES, VECTORS_NAME, CorpusIndex
from .fingerprints import embeddings_fingerprint, memory_fingerprint, version_3_fingerprint
from .milvus_corpus import FILE_NAMES as MILVUS_FILE_NAMES
from .milvus_corpus import META_NAME as MILVUS_NAME
from .milvus_corpus import MilvusCorpus
from .modules import check_modules

# Files of an earlier model and its index in the folder that a retriever is saved to.
OWNED = [
    *OWNED_BY_MODELS,
    *(f"{INDEX_FOLDER}/{name}" for name in (*FILE_NAMES, *MILVUS_FILE_NAMES)),
]


def inner_model(encoder: SentenceTransformer) -> RRRAModel | None:
    """Return the `RRRAModel` inside an encoder, None if the encoder is another model."""
    inner = getattr(encoder[0], "model", None)
    return inner if isinstance(inner, RRRAModel) else None


def open_encoder(name: str, options: dict[str, Any]) -> SentenceTransformer:
    """Open an encoder.

    Args:
        name: Folder or Hub repository.
        options: Arguments of `SentenceTransformer`.

    Raises:
        OSError: If there is no such model.
        ValueError: If a file is damaged; the message names it.
    """
    trusted = {key: options[key] for key in ("trust_remote_code",) if key in options}
    try:
        with named_errors(name):
            # sentence-transformers finds its own models by a name without an owner.
            if Path(name).is_dir() or "/" in name:
                check_modules(name, _hub_options(options), **trusted)
            return SentenceTransformer(name, **options)
    except OSError as error:
        raise OSError(f"Can't load a model named {name!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Can't load a model named {name!r}: {error}") from error
    except SafetensorError as error:
        raise ValueError(f"A weights file of {name} is damaged: {error}") from error
    except ImportError as error:
        # Another package may be missing, but sentence-transformers is there.
        if error.name is not None and not error.name.startswith("sentence_transformers"):
            raise
        raise ValueError(f"{name} names a module that sentence-transformers doesn't have: {error}") from error


def open_folder(name: str, options: dict[str, Any]) -> Path:
    """Return the folder with the adapter and the index, downloaded and checked if it is on the Hub.

    Args:
        name: Folder or Hub repository.
        options: Arguments of `SentenceTransformer`.
    """
    return Path(name) if Path(name).is_dir() else _download(name, options)


def open_adapter(folder: Path, encoder: SentenceTransformer) -> RetrieverAdapter | None:
    """Open the adapter beside an encoder, None if there is none."""
    if not (folder / ADAPTER_FOLDER / CONFIG_NAME).exists():
        return None
    return RetrieverAdapter.from_pretrained(folder / ADAPTER_FOLDER).to(encoder.device)


def open_index(
    directory: Path,
    encoder: SentenceTransformer,
    beside: RetrieverAdapter | None,
    adapter: RetrieverAdapter | None,
) -> CorpusIndex | MilvusCorpus:
    """Open an index, or connect to one in Milvus.

    An index of format version 3 or before gets the fingerprints of today.

    Args:
        directory: The folder.
        encoder: The encoder that was saved with it.
        beside: The adapter that was saved beside the encoder.
        adapter: The adapter that was saved, also if it is the encoder's own.

    Raises:
        ValueError: If a file is missing, damaged or doesn't belong to the others, or another model made an
            index of format version 3 or before.
    """
    if (directory / MILVUS_NAME).exists():
        return MilvusCorpus.load(directory)
    corpus = CorpusIndex.load(directory)
    if corpus.memory is None:
        check_made_by(directory, corpus.encoder, version_3_fingerprint(encoder, beside, adapter))
        corpus.encoder = embeddings_fingerprint(encoder, beside)
        corpus.memory, corpus.adapter = memory_fingerprint(adapter), adapter is not None
    return corpus


def check_made_by(directory: Path, made_by: str, fingerprint: str) -> None:
    """Refuse an index that another model made.

    Args:
        directory: The folder.
        made_by: Fingerprint of the model that made it.
        fingerprint: Fingerprint of the model that is to search it.

    Raises:
        ValueError: If they differ.
    """
    if made_by != fingerprint:
        raise ValueError(
            f"{directory} was made by another model (fingerprint {made_by}, this model has {fingerprint}). "
            "Load the model that made it, or delete the folder and index the corpus again."
        )


def _download(repo_id: str, options: dict[str, Any]) -> Path:
    """Download and check the adapter and the index of a repository."""
    hub = _hub_options(options)
    hub["allow_patterns"] = [f"{ADAPTER_FOLDER}/*", f"{INDEX_FOLDER}/**"]
    try:
        files = snapshot_download(repo_id, dry_run=True, **hub)
    except DryRunError:  # without a connection nothing is downloaded
        files = []
    with named_connection_errors(repo_id):
        folder = Path(snapshot_download(repo_id, **hub))
    check_downloads(folder / file.filename for file in files if file.will_download)
    if any((folder / INDEX_FOLDER / VECTORS_NAME).rglob(CANDIDATES_NAME)):
        raise ValueError(
            f"{repo_id} has an approximate index, which FAISS reads, and FAISS trusts what it reads. If you "
            f"trust its author, open a folder of yours: hf download {repo_id} --local-dir FOLDER"
        )
    if (folder / INDEX_FOLDER / MILVUS_NAME).exists():
        raise ValueError(
            f"{repo_id} has its documents in Milvus, to which queries and MILVUS_TOKEN would be sent. If you "
            f"trust its author, open a folder of yours: hf download {repo_id} --local-dir FOLDER"
        )
    return folder


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of downloads among the arguments of `SentenceTransformer`."""
    names = {"revision": "revision", "token": "token", "cache_folder": "cache_dir"}
    hub = {theirs: options[ours] for ours, theirs in names.items() if ours in options}
    return {**hub, "local_files_only": options.get("local_files_only", False)}
