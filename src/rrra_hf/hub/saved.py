"""What a saved folder records about the model in it, read from its JSON files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import CONFIG_NAME

from .layout import ADAPTER_FOLDER, EVALUATION_NAME, INDEX_FOLDER, INDEX_META_NAME, ROUTER_NAME

KINDS = {"rrra": "model", "rrra_adapter": "adapter"}
# A config.json leaves out settings that have their default.
MODEL_DEFAULTS = {"pooling": "mean", "normalize": True}
ADAPTER_DEFAULTS = {"tau": 0.05, "lambda_": 0.0}
BASE_MODEL = ("base_model_name", "base_model_revision")
RESIDUAL_DEFAULTS = {"kind": "residual", "hidden_size": 384, "scoring": "log_odds"}


@dataclass(frozen=True)
class SavedFolder:
    """A saved folder and what it records.

    Args:
        path: The folder.
        kind: `"model"`, `"adapter"`, or `"retriever"` if its encoder isn't an `RRRAModel`.
        config: Configuration of the `RRRAModel`; of a retriever only the names of the model that its encoder
            was made from, in the plain form of an `RRRAModel`.
        adapter: Configuration of the adapter, None if there is none, or a model's was never fitted.
        documents: Number of documents in its index, None if there is no index.
        maps_inside: Whether the encoder applies the adapter's linear maps, and not a `Retriever`.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    adapter: dict[str, Any] | None
    documents: int | None
    maps_inside: bool

    @property
    def fit(self) -> dict[str, Any]:
        """What was recorded when the adapter was fitted."""
        return (self.adapter or {}).get("fit") or {}

    @property
    def reader(self) -> dict[str, Any]:
        """Kind and sizes of the adapter's reader, the kind as it is called now."""
        adapter = self.adapter or {}
        if "reader" in adapter:
            found = adapter["reader"]
        elif adapter.get("evidence"):  # format version 1
            found = {**adapter["evidence"], "kind": "features"}
        else:
            found = {name: adapter[name] for name in RESIDUAL_DEFAULTS if name in adapter}
        if "names" in found:  # format version 2 and before
            found = {**found, "kind": "features_v2"}
        return {**RESIDUAL_DEFAULTS, **found}

    @property
    def maps(self) -> str | None:
        """The sides that have a linear map, None if neither has one."""
        adapter = self.adapter or {}
        if adapter.get("document_map"):
            return "both sides"
        return "the query side" if adapter.get("query_map") else None

    @property
    def features(self) -> list[str]:
        """Names of the features that the adapter ranks by."""
        return list(self.reader.get("names") or self.reader.get("ranking") or [])

    @property
    def reads_word_pieces(self) -> bool:
        """Whether the adapter needs word pieces, as some of format version 2 and before do."""
        return bool(self.reader.get("vocabulary"))

    @property
    def comes_trained(self) -> bool:
        """Whether the adapter is the one that comes with the package, not fitted further."""
        trained = self.reader["kind"] == "features" and "data" not in self.fit
        return trained and bool((self.adapter or {}).get("lambda_"))

    @property
    def remembers(self) -> bool:
        """Whether the adapter's weights hold training queries."""
        return bool(self.reader.get("queries"))

    @property
    def chosen_on(self) -> dict[str, Any]:
        """Figures of the queries that the settings of the fit were chosen on, empty if there are none."""
        return self.fit.get("unseen") or self.fit.get("development") or {}

    @property
    def calibration(self) -> dict[str, Any]:
        """Figures of the queries that the probability was calibrated on, empty if there are none."""
        return self.fit.get("calibration") or self.fit.get("development") or {}

    @property
    def base_model(self) -> str | None:
        """Name of the encoder that the model was made from."""
        return self.config.get("base_model_name")

    @property
    def trained(self) -> str | None:
        """How the encoder was trained: `"lora"` or `"full"`, None if it wasn't or nothing is recorded."""
        training = self.fit.get("training", {})
        kept = training.get("stages", {}).get("comparison", {}).get("encoder")
        mode = None if kept == "frozen" else training.get("arguments", {}).get("mode")
        return "lora" if self.config.get("lora") else mode


def read_saved(path: Path) -> SavedFolder:
    """Read what a saved folder records. The weights are not read.

    Args:
        path: Folder of an `RRRAModel`, a `RetrieverAdapter` or a `Retriever`.

    Raises:
        ValueError: If the folder holds none of these, or a file in it is damaged.
    """
    config = _read_if_there(path / CONFIG_NAME)
    meta = _read_if_there(path / INDEX_FOLDER / INDEX_META_NAME)
    beside = _read_if_there(path / ADAPTER_FOLDER / CONFIG_NAME)
    kind = KINDS.get(config.get("model_type", ""))
    if kind is None and (beside or meta):
        kind, adapter = "retriever", beside
        config = {name: config[name] for name in BASE_MODEL if name in config}
    elif kind == "adapter":
        config, adapter = {}, config
    elif kind == "model":
        adapter = config.get("adapter") or {}
    else:
        raise ValueError(f"{path} holds no RRRAModel, RetrieverAdapter or Retriever.")
    inside = _read_maps_inside(path) if kind == "retriever" and adapter else {}
    if adapter or kind != "retriever":
        _check_adapter(adapter, path, any_dim=kind != "model")
    if kind != "adapter" and not (adapter.get("fit") or adapter.get("lambda_")):
        adapter = {}
    return SavedFolder(
        path,
        kind,
        {**MODEL_DEFAULTS, **config},
        {**ADAPTER_DEFAULTS, **adapter, **inside} if adapter else None,
        meta.get("documents"),
        maps_inside=kind == "model" or bool(inside),
    )


def _read_maps_inside(path: Path) -> dict[str, bool]:
    """Return which linear maps are modules of an encoder, as settings of an adapter."""
    routers = list(path.glob(f"[0-9]_Router/{ROUTER_NAME}"))
    structure = read_json(routers[0], dict).get("structure", {}) if routers else {}
    return {f"{task}_map": any("Dense" in part for part in parts) for task, parts in structure.items()}


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """Return the figures that `evaluate_saved` wrote to a folder, an empty list if it wrote none.

    Raises:
        ValueError: If the file is damaged.
    """
    path = path / EVALUATION_NAME
    found = read_json(path, list) if path.exists() else []
    if not all(isinstance(figures, dict) for figures in found):
        raise ValueError(f"{path} must list JSON objects.")
    return found


def read_json(path: Path, kind: type) -> Any:
    """Return the contents of a JSON file, as `read_json` of `models`, whose import would take long.

    Args:
        path: The file.
        kind: Type that the contents must have, such as `dict`.

    Raises:
        ValueError: If it is damaged, nested too deeply, or has contents of another type; the message names
            it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {kind.__name__}, got {type(content).__name__}.")
    return content


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}


def _check_adapter(adapter: dict[str, Any], path: Path, any_dim: bool) -> None:
    dim = adapter.get("embedding_dim")
    if any_dim and dim is None:
        return
    if not isinstance(dim, int) or dim < 1:
        raise ValueError(
            f"The adapter's configuration in {path} is damaged: embedding_dim must be at least 1, "
            f"got {dim!r}."
        )
