"""The model card of a saved folder, made from what the folder records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData

from .citations import CITATIONS
from .layout import PLOT_NAME
from .reliability import reliability_plot
from .saved import SavedFolder, read_evaluations, read_saved

TEMPLATE = Path(__file__).with_name("card_template.md")

TAGS = ["rrra", "retrieval", "reranking", "hard-negatives"]
# Names of measures in `model-index`, as in MTEB. Relevance of the first document is success, not recall.
METRICS = {
    "nDCG@10": "ndcg_at_10",
    "MRR@10": "mrr_at_10",
    "R@1": "success_at_1",
    "R@10": "recall_at_10",
    "R@100": "recall_at_100",
}
GROUPS = {"all": "all", "unseen": "no relevant document seen", "seen": "a relevant document seen"}
ENCODERS = {
    "frozen": "as it came",
    "stage1": "stage 1: in-batch negatives",
    "stage3": "stage 3: hard negatives",
}
STAGE_MEASURES = ("nDCG@10", "R@1", "R@100")
# Settings of a fit with features, also as earlier format versions named them; they recorded many unused ones.
FEATURE_SETTINGS = {"maps", "stage1", "features", "evidence", "even_odds", "tau", "depth"}
FEATURE_SETTINGS |= {"development_fraction", "seed"}


class Card(NamedTuple):
    """A model card.

    Args:
        text: Text of `README.md`: metadata that the Hub renders, and Markdown.
        plot: The reliability plot as a PNG, None if there is none.
    """

    text: str
    plot: bytes | None


def model_card(folder: Path, repo_id: str | None = None) -> Card:
    """Make the model card of a saved folder.

    It is made from the folder's JSON files; the weights are not read. What a folder doesn't record is left
    out of its card.

    Args:
        folder: Folder of an `RRRAModel`, a `RetrieverAdapter` or a `Retriever`.
        repo_id: Its `namespace/name` on the Hub; the folder's name by default.

    Raises:
        ValueError: If the folder holds none of these, or a file in it is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text('{"model_type": "rrra_adapter", "embedding_dim": 8}')
        >>> card = ModelCard(model_card(folder, "me/small-adapter").text)
        >>> card.data.library_name, card.text.strip().splitlines()[0]
        ('rrra-hf', '# small-adapter')
    """
    try:
        saved = read_saved(Path(folder))
        return _card(saved, repo_id or saved.path.resolve().name)
    except OSError:
        raise
    except Exception as error:  # of any kind: each value of the records may be anything
        if isinstance(error, ValueError) and str(folder) in str(error):
            raise
        raise ValueError(
            f"{folder} records what no fit and no evaluation does ({type(error).__name__}: {error})."
        ) from error


def _card(saved: SavedFolder, repo_id: str) -> Card:
    name = repo_id.rpartition("/")[2]
    evaluations = read_evaluations(saved.path)
    plot = reliability_plot(saved)
    card = ModelCard.from_template(
        _metadata(saved, name, evaluations),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        repo=repo_id,
        name=name,
        saved=saved,
        fit=saved.fit,
        settings=_settings(saved),
        lora=_inline(saved.config["lora"]) if saved.config.get("lora") else None,
        training=_training(saved),
        evaluations=[_evaluation(figures) for figures in evaluations],
        plot=PLOT_NAME if plot or (saved.path / PLOT_NAME).exists() else None,
        citations=[CITATIONS[method] for method in _methods(saved)],
    )
    return Card(_tidy(card.content), plot)


def _tidy(text: str) -> str:
    """Return Markdown without the empty lines that left-out sections leave; code is not changed."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    return "```".join(parts).rstrip() + "\n"


# -------------------------------------------------------------------- metadata


def _metadata(saved: SavedFolder, name: str, evaluations: list[dict[str, Any]]) -> ModelCardData:
    collection = saved.fit.get("data", {}).get("collection", "")
    # A name with a slash is one on the Hub; other names are of local files.
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


def _relation(saved: SavedFolder) -> str:
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


def _settings(saved: SavedFolder) -> dict[str, str]:
    """Return the settings that the adapter was fitted with, by name."""
    arguments = {k: v for k, v in saved.fit.get("arguments", {}).items() if k != "kind"}
    if saved.features:
        arguments = {k: v for k, v in arguments.items() if k in FEATURE_SETTINGS}
    return _rows(arguments)


def _rows(values: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def _inline(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in values.items())


def _training(saved: SavedFolder) -> dict[str, Any] | None:
    """Return what `train` recorded: settings, and how encoders compared; None if it recorded nothing."""
    record = saved.fit.get("training")
    if record is None or "comparison" not in record["stages"]:
        return None
    stages = record["stages"]
    compared = stages["comparison"]
    rows = [
        {"encoder": label, "ranked by": system, **{name: figures[name] for name in STAGE_MEASURES}}
        for encoder, label in ENCODERS.items()
        for system, figures in compared["development"][encoder].items()
    ]
    return {
        "settings": _rows(record["arguments"]),
        "table": _table(rows),
        "sentence": compared["sentence"],
        "steps": [stages[stage]["steps"] for stage in ("stage1", "stage3")],
        "suspects": stages["stage2"]["suspects"],
    }


def _evaluation(figures: dict[str, Any]) -> dict[str, Any]:
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
    """Return a Markdown table, floats with three decimals. The first row names the columns."""
    numeric = {name for name, value in rows[-1].items() if isinstance(value, float)}
    lines = [list(rows[0]), ["---:" if name in numeric else "---" for name in rows[0]]]
    lines += [[_cell(row.get(name, "")) for name in rows[0]] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _methods(saved: SavedFolder) -> list[str]:
    """Return the names of the methods used, as in `CITATIONS`."""
    trained = "training" in saved.fit and saved.trained is not None
    calibrated = bool(saved.calibration)
    used = {
        "rrra": True,
        "sentence-bert": saved.kind != "adapter",
        "infonce": trained or saved.maps is not None,
        "in-batch": trained or saved.maps is not None,
        "lora": saved.trained == "lora",
        "cross-fitting": trained,
        "bm25": any(name == "words" or "bm25" in name for name in saved.features),
        "platt": calibrated,
        "calibration": calibrated,
    }
    return [name for name, is_used in used.items() if is_used]
