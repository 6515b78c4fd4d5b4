"""Measuring a saved model on a split of a collection, for its model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_device_name

from ..candidates import DEPTH, WordPieces, Words
from ..data import Collection
from ..embeddings import embed_collection
from ..evaluation import (
    calibration_quality,
    detection_quality,
    membership,
    reliability_bins,
)
from ..hub.layout import ADAPTER_FOLDER, EVALUATION_NAME
from ..hub.saved import read_evaluations
from ..indexes import WordIndex
from ..models.adapter_rrra import CONFIG_NAME, RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig, RRRAConfig
from ..models.files_rrra import read_json, write_json
from ..models.layout_rrra import read_modules
from ..models.modeling_rrra import RRRAModel
from .evaluate import group_quality, rank_embeddings, ranking_qualities
from .indexing import reads_word_pieces
from .opening import open_encoder
from .reranking import Reranked

RESAMPLES = 200
# Bins of equal width in the reliability plot.
BINS = 10


def evaluate_saved(
    folder: str | os.PathLike[str],
    collection: Collection,
    split: str = "test",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    device: str | None = None,
) -> dict[str, Any]:
    """Measure a saved model on a split, without and with its adapter, and write the figures to its folder.

    Ranking quality is that of the encoder alone, of its search after the adapter's linear maps (if it has
    any), and of the reranked candidates, 150 per query. For false-negative detection, every relevant document
    among the candidates counts as one to detect, as if its label were unknown.

    Args:
        folder: Folder of an `RRRAModel`, or of a `Retriever` with an adapter.
        collection: The collection with all its splits. Queries with a document that was labelled in `train`
            are reported separately.
        split: Split whose queries are used.
        cache_dir: Folder of the embedding cache, see `encode`. It keeps embeddings before the linear maps.
        batch_size: Encoder batch size.
        device: Device of the encoder, by default a GPU if there is one.

    Returns:
        The figures, as they are written to `evaluation.json`. They replace those of the same collection and
        split.

    Raises:
        ValueError: If there is no such split, or the folder holds no encoder with an adapter that was
            fitted.
    """
    encoder, adapter = _open(Path(folder))
    if not adapter.has_learnt:
        raise ValueError(f"folder must hold an adapter that was fitted, that of {folder} never was.")
    part = collection.split(split)
    encoder.to(device or get_device_name())
    embeddings = embed_collection(part, encoder, cache_dir=cache_dir, batch_size=batch_size)
    words: Words | None = None
    if reads_word_pieces(adapter):
        words = WordPieces(encoder, part.document_texts)
    elif adapter.reads_words:
        words = WordIndex.of(part.document_texts)
    rankings, reranked = rank_embeddings(
        embeddings,
        adapter,
        depth=DEPTH,
        k=DEPTH,
        query_words=None if words is None else words.count(part.query_texts),
        document_words=words,
    )
    quality = ranking_qualities(rankings, part.query_ids, part.document_ids, part.qrels)
    figures = {
        "collection": collection.name,
        "split": split,
        "documents": len(part.document_ids),
        "depth": DEPTH,
        **group_quality(quality, collection, part)._asdict(),
        **_detection(part, reranked),
    }
    _keep(Path(folder), figures)
    return figures


def _open(folder: Path) -> tuple[SentenceTransformer, RetrieverAdapter]:
    """Return the encoder of a folder, without the adapter's maps, and the adapter."""
    beside = (folder / ADAPTER_FOLDER / CONFIG_NAME).exists()
    if beside and not _has_router(folder):
        return open_encoder(str(folder), {}), RetrieverAdapter.from_pretrained(folder / ADAPTER_FOLDER)
    config = read_json(folder / CONFIG_NAME, dict) if (folder / CONFIG_NAME).exists() else {}
    if not beside and config.get("model_type") != RRRAConfig.model_type:
        raise ValueError(f"folder must hold a model with its encoder and an adapter, {folder} doesn't.")
    model = RRRAModel.from_pretrained(folder).eval()
    adapter = model.adapter
    model.adapter = RetrieverAdapter(AdapterConfig(embedding_dim=model.config.embedding_dim)).eval()
    return model.to_sentence_transformer(), adapter


def _has_router(folder: Path) -> bool:
    """Whether an encoder has modules that differ for queries and documents, such as the adapter's maps."""
    return any(module["type"].endswith(".Router") for module in read_modules(str(folder), {}) or ())


def _detection(part: Collection, found: Reranked | None) -> dict[str, Any]:
    """Return how well probabilities detect the relevant candidates, and how well calibrated they are."""
    assert found is not None
    probabilities, present = found.probabilities, found.rows >= 0
    relevant = membership(found.rows, part.positive_rows)
    if not relevant.any() or relevant.all():
        return {}
    detected, by_cosine = (
        detection_quality(scores, relevant, present, resamples=RESAMPLES)
        for scores in (probabilities, found.cosines)
    )
    calibration = calibration_quality(probabilities, relevant, present)
    bins = reliability_bins(probabilities[present], relevant[present], BINS, equal_width=True)
    return {
        "detection": {
            "pairs": detected.num_pairs,
            "base_rate": detected.base_rate,
            "scores": {
                name: {
                    "average_precision": quality.average_precision,
                    "interval": list(quality.average_precision_interval),
                    "auroc": quality.auroc,
                }
                for name, quality in (("probability", detected), ("cosine", by_cosine))
            },
        },
        "calibration": {
            "expected_calibration_error": calibration.expected_calibration_error,
            "brier_score": calibration.brier_score,
            "reliability": bins.to_dict(),
        },
    }


def _keep(folder: Path, figures: dict[str, Any]) -> None:
    others = [
        kept
        for kept in read_evaluations(folder)
        if (kept["collection"], kept["split"]) != (figures["collection"], figures["split"])
    ]
    write_json(folder / EVALUATION_NAME, [*others, figures])
