"""The model card of a saved folder, made from what the folder records; what isn't recorded is left out."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData

from ..embeddings.storage import atomic_path
from ..models.adapter_rrra import CONFIG_NAME, MODEL_TYPE
from ..models.configuration_rrra import AdapterConfig, RRRAConfig
from ..models.features_rrra import OF_WORDS
from ..retrieval.corpus_index import META_NAME
from ..retrieval.measure import MEASURES
from ..retrieval.retriever import ADAPTER_FOLDER, INDEX_FOLDER
from ..retrieval.saved import read_evaluations
from ..training.run_folder import read_json
from .citations import CITATIONS

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
PLOT_NAME = "reliability.png"
TEMPLATE = Path(__file__).with_name("card_template.md")

TAGS = ["rrra", "retrieval", "reranking", "hard-negatives"]
# Names of measures in `model-index`, as MTEB writes them; the first document's relevance is no recall.
METRICS = {
    "nDCG@10": "ndcg_at_10",
    "MRR@10": "mrr_at_10",
    "R@1": "success_at_1",
    "R@10": "recall_at_10",
    "R@100": "recall_at_100",
}
GROUPS = {"all": "all", "unseen": "no relevant document seen", "seen": "a relevant document seen"}
STAGES = {
    "stage1": "1: encoder, in-batch negatives",
    "stage2": "2: adapter on the frozen encoder",
    "stage3": "3: encoder, weighted hard negatives",
    "final": "final: adapter on the encoder that was kept",
}
# Of its settings, a fit of an features head uses these.
FEATURE_SETTINGS = ("stage1", "features", "tau", "depth", "development_fraction", "seed")


def model_card(folder: Path, repo_id: str | None = None) -> str:
    """Return the text of `README.md` for a saved folder, with metadata that the Hub renders.

    It is made from the folder's JSON files alone; the weights are not read. What a folder doesn't record is
    left out of its card. The reliability plot is shown if `write_model_card` drew it.

    Args:
        folder: What `RRRAModel`, `RetrieverAdapter` or `Retriever` saved.
        repo_id: Its `namespace/name` on the Hub; the folder's name if not given.

    Returns:
        YAML metadata and Markdown.

    Raises:
        ValueError: If the folder holds none of these, or a file of it is damaged.

    Example:
        >>> import tempfile
        >>> from rrra_hf import RetrieverAdapter
        >>> folder = Path(tempfile.mkdtemp()) / "small-adapter"
        >>> RetrieverAdapter(AdapterConfig(embedding_dim=8)).save_pretrained(folder)
        >>> card = ModelCard(model_card(folder, "me/small-adapter"))
        >>> card.data.library_name, card.text.strip().splitlines()[0]
        ('rrra-hf', '# small-adapter')
    """
    saved = _read(Path(folder))
    name = repo_id or saved.folder.resolve().name
    evaluations = read_evaluations(saved.folder)
    data = _metadata(saved, name.rpartition("/")[2], evaluations)
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        repo=name,
        name=name.rpartition("/")[2],
        saved=saved,
        fit=saved.fit,
        settings=_settings(saved),
        lora=_inline(saved.config["lora"]) if saved.config.get("lora") else None,
        training=_training(saved),
        evaluations=[_evaluation(figures, saved) for figures in evaluations],
        plot=PLOT_NAME if (saved.folder / PLOT_NAME).exists() else None,
        citations=[CITATIONS[method] for method in _methods(saved)],
    )
    return _tidy(card.content)


def _tidy(text: str) -> str:
    """Return Markdown without the empty lines that sections left behind; code stays as it is."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    return "```".join(parts).rstrip() + "\n"


def write_model_card(folder: Path, repo_id: str | None = None) -> Path:
    """Write `README.md` to a saved folder and, if matplotlib is installed, its reliability plot.

    Args:
        folder: As for `model_card`.
        repo_id: As for `model_card`.

    Returns:
        Path of the card.

    Raises:
        ValueError: As `model_card` does.
    """
    saved = _read(Path(folder))
    _draw_reliability(saved)
    path = saved.folder / CARD_NAME
    text = model_card(saved.folder, repo_id)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


# -------------------------------------------------------------------- what the folder holds


@dataclass(frozen=True)
class _Saved:
    """What a card says of a folder.

    Args:
        folder: The folder.
        kind: `"model"`, `"adapter"` or `"retriever"`, the last one only where its encoder is no `RRRAModel`.
        config: Configuration of the model, empty if it is no `RRRAModel`.
        adapter: Configuration of the adapter, None if there is none.
        documents: Number of documents in its index, None without an index.
    """

    folder: Path
    kind: str
    config: dict[str, Any]
    adapter: AdapterConfig | None
    documents: int | None

    @property
    def fit(self) -> dict[str, Any]:
        """What was recorded about the fitting of the adapter."""
        return {} if self.adapter is None else self.adapter.fit

    @property
    def head(self) -> dict[str, Any]:
        """Sizes of the adapter's features head, empty if it has none."""
        return {} if self.adapter is None else self.adapter.features or {}

    @property
    def maps(self) -> str | None:
        """Which sides the adapter's linear maps are on."""
        if self.adapter is None or not (self.adapter.query_map or self.adapter.document_map):
            return None
        return "both sides" if self.adapter.document_map else "the query side"

    @property
    def features(self) -> list[str]:
        """Names of the features that the adapter reads."""
        return list(self.head.get("names", []))

    @property
    def reads_words(self) -> bool:
        """Whether the adapter reads words."""
        return any(name in OF_WORDS for name in self.features)

    @property
    def remembers(self) -> bool:
        """Whether the weights hold training queries."""
        return bool(self.head.get("queries"))

    @property
    def base_model(self) -> str | None:
        """Name of the encoder that it was made from."""
        return self.config.get("base_model_name")

    @property
    def trained(self) -> str | None:
        """How the encoder was trained: `"lora"`, `"full"`, None if not or not known."""
        mode = self.fit.get("training", {}).get("arguments", {}).get("mode")
        return "lora" if self.config.get("lora") else mode


def _read(folder: Path) -> _Saved:
    config = _json(folder / CONFIG_NAME)
    meta = _json(folder / INDEX_FOLDER / META_NAME)
    documents = meta.get("documents")
    kind = {RRRAConfig.model_type: "model", MODEL_TYPE: "adapter"}.get(config.get("model_type", ""))
    beside = _json(folder / ADAPTER_FOLDER / CONFIG_NAME)
    if kind is None and (beside or meta):
        return _Saved(folder, "retriever", {}, _adapter(beside, folder) if beside else None, documents)
    if kind is None:
        raise ValueError(f"{folder} holds no RRRAModel, RetrieverAdapter or Retriever that was saved.")
    if kind == "adapter":
        return _Saved(folder, kind, {}, _adapter(config, folder), documents)
    # The file leaves out what is as by default.
    config = RRRAConfig.from_dict(config).to_dict()
    return _Saved(folder, kind, config, _adapter(config["adapter"], folder), documents)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _adapter(values: dict[str, Any], folder: Path) -> AdapterConfig:
    try:
        return AdapterConfig.from_dict({key: value for key, value in values.items() if key != "model_type"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"The adapter's configuration in {folder} is damaged: {error}") from error


# -------------------------------------------------------------------- metadata


def _metadata(saved: _Saved, name: str, evaluations: list[dict[str, Any]]) -> ModelCardData:
    collection = saved.fit.get("data", {}).get("collection", "")
    # A name with a slash is one on the Hub; others are of files that nobody else may have.
    base = saved.base_model if "/" in (saved.base_model or "") else None
    alone = saved.kind == "adapter"
    results = [result for figures in evaluations for result in _eval_results(figures)]
    return ModelCardData(
        library_name="rrra-hf" if alone else "sentence-transformers",
        pipeline_tag="text-ranking" if alone else "sentence-similarity",
        tags=([] if alone else SentenceTransformerModelCardData().tags) + TAGS,
        base_model=base,
        base_model_relation=None if base is None else _relation(saved),
        datasets=[collection] if "/" in collection else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _relation(saved: _Saved) -> str:
    return "finetune" if saved.trained and not saved.config.get("lora") else "adapter"


def _eval_results(figures: dict[str, Any]) -> list[EvalResult]:
    """Return the figures of all queries of an evaluation, without and with the adapter."""
    dataset = {
        "task_type": "information-retrieval",
        "task_name": "Information Retrieval",
        "dataset_type": figures["collection"].replace(" ", "-"),
        "dataset_name": figures["collection"],
        "dataset_split": figures["split"],
    }
    quality = figures["quality"]["all"]
    named = [
        (METRICS.get(measure, measure), f"{measure}, {label}", quality[system][measure])
        for system, label in (("adapter", "with the adapter"), ("encoder", "encoder alone"))
        for measure in quality[system]
    ]
    if "detection" in figures:
        found = figures["detection"]["scores"]["probability"]["average_precision"]
        error = figures["calibration"]["expected_calibration_error"]
        named += [
            ("average_precision", "Average precision of the probability", found),
            ("expected_calibration_error", "Expected calibration error", error),
        ]
    return [
        EvalResult(metric_type=kind, metric_name=text, metric_value=round(value, 4), **dataset)
        for kind, text, value in named
    ]


# -------------------------------------------------------------------- parts of the text


def _settings(saved: _Saved) -> dict[str, str]:
    """Return the settings that the adapter was fitted with, by name."""
    arguments = saved.fit.get("arguments", {})
    return _rows({k: v for k, v in arguments.items() if not saved.features or k in FEATURE_SETTINGS})


def _rows(values: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def _inline(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in values.items())


def _training(saved: _Saved) -> dict[str, Any] | None:
    """Return what `train` recorded: settings, a table of the stages, and whose encoder was kept."""
    record = saved.fit.get("training")
    if record is None:
        return None
    # A saved configuration is sorted by name.
    rows = [
        {
            "stage": label,
            "steps": record["stages"][stage].get("steps", ""),
            "ranked by": system,
            **{measure: record["stages"][stage]["development"][system][measure] for measure in MEASURES},
        }
        for stage, label in STAGES.items()
        for system in ("encoder", "adapter")
        if system in record["stages"][stage]["development"]
    ]
    final = record["stages"]["final"]
    return {
        "settings": _rows(record["arguments"]),
        "table": _table(rows),
        "kept": final["stage"],
        "queries": final["development"]["queries"],
    }


def _evaluation(figures: dict[str, Any], saved: _Saved) -> dict[str, Any]:
    """Return an evaluation with its tables as Markdown."""
    labels = {
        "encoder": "encoder alone",
        "maps": "its search after the linear maps",
        "adapter": "with the adapter",
    }
    rows = [
        {"queries": f"{GROUPS[group]} ({figures['queries'][group]:,})", "system": labels[system], **values}
        for group, systems in figures["quality"].items()
        for system, values in systems.items()
    ]
    tables = {"table": _table(rows)}
    if "detection" in figures:
        names = {"probability": "the adapter's probability", "cosine": "the search's cosine"}
        tables["detection_table"] = _table(
            [
                {
                    "ranked by": names[score],
                    "average precision": found["average_precision"],
                    "95 % interval": " to ".join(f"{bound:.3f}" for bound in found["interval"]),
                    "AUROC": found["auroc"],
                }
                for score, found in figures["detection"]["scores"].items()
            ]
        )
    return {**figures, **tables}


def _table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table, its floats with three decimals; the first row names the columns."""
    numeric = {name for name, value in rows[-1].items() if isinstance(value, float)}
    lines = [list(rows[0]), ["---:" if name in numeric else "---" for name in rows[0]]]
    lines += [[_cell(row.get(name, "")) for name in rows[0]] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _methods(saved: _Saved) -> list[str]:
    """Return the names of the methods used, as in `CITATIONS`."""
    trained, fitted = "training" in saved.fit, "development" in saved.fit
    used = {
        "rrra": True,
        "sentence-bert": saved.kind != "adapter",
        "infonce": trained or saved.maps is not None,
        "in-batch": trained or saved.maps is not None,
        "lora": saved.trained == "lora",
        "cross-fitting": trained,
        "bm25": "words" in saved.features,
        "positive-unlabelled": saved.fit.get("arguments", {}).get("class_prior") is not None,
        "platt": fitted,
        "calibration": fitted,
    }
    return [name for name, is_used in used.items() if is_used]


# -------------------------------------------------------------------- the plot


def _draw_reliability(saved: _Saved) -> None:
    """Draw the reliability plot of the last evaluation, or else of the development queries."""
    measured = [figures for figures in read_evaluations(saved.folder) if "calibration" in figures]
    bins = measured[-1]["calibration"] if measured else saved.fit.get("development", {})
    if "reliability" not in bins:
        return
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.info("The reliability plot is left out: it needs matplotlib.")
        return
    probability, share, pairs = (np.array(bins["reliability"][k]) for k in ("probability", "share", "pairs"))
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    spread = 1.96 * np.sqrt(share * (1 - share) / pairs)
    axes.errorbar(probability, share, yerr=spread, marker="o", markersize=4, capsize=2, linewidth=1)
    axes.set_xlabel("the adapter's probability")
    axes.set_ylabel("share labelled relevant")
    with atomic_path(saved.folder / PLOT_NAME) as temporary:
        # The same plot is the same file.
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
