"""Figures of a saved model on a split of a collection, kept beside the model for its card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer

from ..candidates import DocumentFeatures, count_words
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection
from ..evaluation import (
    calibration_quality,
    detection_quality,
    membership,
    named_rankings,
    ranking_quality,
    reliability_bins,
    seen_queries,
    split_by_seen,
)
from ..fitting.tuning import RELIABILITY_BINS
from ..indexes import FlatIndex
from ..models.adapter_rrra import CONFIG_NAME, RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig, RRRAConfig
from ..models.files_rrra import read_json, write_json
from ..models.modeling_rrra import RRRAModel
from .reranking import relevance, rerank
from .retriever import ADAPTER_FOLDER

EVALUATION_NAME = "evaluation.json"
DEPTH = 100
RESAMPLES = 200


def evaluate_saved(
    folder: str | os.PathLike[str],
    collection: Collection,
    split: str = "test",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Measure a saved model on a split, without and with its adapter, and keep the figures in its folder.

    Ranking quality is that of the encoder alone, of its search after the adapter's linear maps (if it has
    any), and of that search reranked to a depth of 100. For false-negative detection, every relevant document
    that is retrieved counts as one to be told from the rest, as if its label were unknown.

    Args:
        folder: Folder of an `RRRAModel`, or of a `Retriever` with an adapter.
        collection: The collection, with all its splits: those whose documents were labelled in `train`
            are reported apart.
        split: Split whose queries are used.
        cache_dir: Folder of the cache of embeddings, see `encode`; those of the encoder alone are used.
        batch_size: Texts a forward pass.

    Returns:
        The figures, as they are written to `evaluation.json`, where they replace those of the same
        collection and split.

    Raises:
        ValueError: If there is no such split, or the folder holds no encoder with an adapter.
    """
    encoder, adapter = _open(Path(folder))
    part = collection.split(split)
    embeddings = embed_collection(part, encoder, cache_dir=cache_dir, batch_size=batch_size)
    ranked = _rank(part, encoder, adapter, embeddings)
    figures = {
        "collection": collection.name,
        "split": split,
        "documents": len(part.document_ids),
        "depth": DEPTH,
        **_quality(collection, part, ranked.rankings),
        **_judgement(part, ranked),
    }
    _keep(Path(folder) / EVALUATION_NAME, figures)
    return figures


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return what `evaluate_saved` wrote to a folder; nothing if it wrote nothing."""
    path = folder / EVALUATION_NAME
    return read_json(path) if path.exists() else []


class _Ranked(NamedTuple):
    """Rankings by system, and what the adapter says of those of its search."""

    rankings: dict[str, np.ndarray]
    rows: np.ndarray
    cosines: np.ndarray
    probabilities: np.ndarray


def _open(folder: Path) -> tuple[SentenceTransformer, RetrieverAdapter]:
    """Return the encoder of a folder, without the adapter's maps, and the adapter."""
    if (folder / ADAPTER_FOLDER / CONFIG_NAME).exists():
        return SentenceTransformer(str(folder)), RetrieverAdapter.from_pretrained(folder / ADAPTER_FOLDER)
    config = read_json(folder / CONFIG_NAME) if (folder / CONFIG_NAME).exists() else {}
    if config.get("model_type") != RRRAConfig.model_type:
        raise ValueError(f"folder must hold a model with its encoder and an adapter, {folder} doesn't.")
    model = RRRAModel.from_pretrained(folder).eval()
    adapter = model.adapter
    model.adapter = RetrieverAdapter(AdapterConfig(embedding_dim=model.config.hidden_size)).eval()
    return model.to_sentence_transformer(), adapter


def _rank(
    part: Collection,
    encoder: SentenceTransformer,
    adapter: RetrieverAdapter,
    embeddings: CollectionEmbeddings,
) -> _Ranked:
    _, _, rankings = _search(embeddings.queries, embeddings.documents)
    by_system = {"encoder": rankings}
    queries = adapter.map_queries(embeddings.queries)
    documents = adapter.map_documents(embeddings.documents)
    index, cosines, rows = _search(queries, documents)
    if adapter.config.query_map or adapter.config.document_map:
        by_system["maps"] = rows
    features: DocumentFeatures | None = None
    words: csr_array | None = None
    if adapter.features is not None:
        reads = adapter.features.reads_words
        words = count_words(encoder, part.query_texts) if reads else None
        document_words = count_words(encoder, part.document_texts) if reads else None
        features = DocumentFeatures.of(adapter.features, [documents], document_words)
    by_system["adapter"], _ = rerank(adapter, index, queries, rows, cosines, DEPTH, features, words)
    probabilities = relevance(adapter, index, queries, rows, features, words)
    return _Ranked(by_system, rows, cosines, probabilities)


def _search(queries: np.ndarray, documents: np.ndarray) -> tuple[FlatIndex, np.ndarray, np.ndarray]:
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    return index, *index.search(queries, DEPTH)


def _quality(collection: Collection, part: Collection, rankings: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return numbers of queries and means of measures, of all queries and by what was seen in training."""
    measured = {
        system: ranking_quality(named_rankings(part.query_ids, part.document_ids, rows), part.qrels)
        for system, rows in rankings.items()
    }
    positives = dict(zip(part.query_ids, part.positive_rows, strict=True))
    labelled = collection.split("train").positive_rows if "train" in collection.splits else []
    seen = seen_queries([positives[name] for name in measured["encoder"].query_ids], labelled)
    groups = {system: split_by_seen(quality.per_query, seen) for system, quality in measured.items()}
    names = ("all", "unseen", "seen") if seen.any() and not seen.all() else ("all",)
    return {
        "queries": {name: groups["encoder"][name].num_queries for name in names},
        "quality": {name: {system: group[name].mean for system, group in groups.items()} for name in names},
    }


def _judgement(part: Collection, ranked: _Ranked) -> dict[str, Any]:
    """Return how well probabilities tell the relevant documents found, and how well calibrated they are."""
    relevant, present = membership(ranked.rows, part.positive_rows), ranked.rows >= 0
    if not relevant.any() or relevant[present].all():
        return {}
    found = {
        name: detection_quality(scores, relevant, present, resamples=RESAMPLES)
        for name, scores in (("probability", ranked.probabilities), ("cosine", ranked.cosines))
    }
    calibration = calibration_quality(ranked.probabilities, relevant, present)
    bins = reliability_bins(
        ranked.probabilities[present], relevant[present], RELIABILITY_BINS, equal_width=True
    )
    return {
        "detection": {
            "pairs": found["cosine"].num_pairs,
            "base_rate": found["cosine"].base_rate,
            "scores": {
                name: {
                    "average_precision": quality.average_precision,
                    "interval": list(quality.average_precision_interval),
                    "auroc": quality.auroc,
                }
                for name, quality in found.items()
            },
        },
        "calibration": {
            "expected_calibration_error": calibration.expected_calibration_error,
            "brier_score": calibration.brier_score,
            "reliability": bins.to_dict(),
        },
    }


def _keep(path: Path, figures: dict[str, Any]) -> None:
    others = [
        kept
        for kept in read_evaluations(path.parent)
        if (kept["collection"], kept["split"]) != (figures["collection"], figures["split"])
    ]
    write_json(path, [*others, figures])
