"""Hard negatives for a training set, with the weight that each deserves."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from ..candidates import DEPTH
from .choice import Choice, Strategy
from .estimates import DROP, Estimates, Estimating, Model, check_threshold, estimate
from .layouts import Columns, Tuples, labelled_lists, labelled_pairs, weighted_triplets, weighted_tuples
from .training_rows import TrainingRows, read_rows
from .weights import check_gamma

logger = logging.getLogger(__name__)

Format = Literal["n-tuple", "triplet", "labeled-pair", "labeled-list"]
FORMATS: tuple[Format, ...] = ("n-tuple", "triplet", "labeled-pair", "labeled-list")

# Arguments of sentence-transformers' function that this one doesn't take, and what to do instead.
NOT_TAKEN = {
    "cross_encoder": "the adapter judges candidates; leave it out",
    "include_positives": "labelled positives are never negatives; leave it out",
    "output_scores": "every format has weights or probabilities; leave it out",
    "faiss_batch_size": "the search is exact and needs little memory; leave it out",
    "use_faiss": "the search is exact and needs little memory; leave it out",
    "use_multi_process": "all cores are used; leave it out",
    "verbose": "what was done is logged in one line; show_progress_bar is for progress bars",
    "as_triplets": "choose an output_format",
    "margin": "choose absolute_margin or relative_margin",
}


def mine_hard_negatives(
    dataset: Dataset,
    model: Model,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
    *,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Strategy = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    output_format: Format = "n-tuple",
    batch_size: int = 32,
    cache_folder: str | os.PathLike[str] | None = None,
    threshold: float = DROP,
    gamma: float = 1.0,
    show_progress_bar: bool | None = None,
    seed: int = 0,
    **not_taken: Any,
) -> Dataset:
    """Add hard negatives to pairs of anchor and positive, and the weight of each.

    It takes the place of sentence-transformers' function of this name. Candidates are found by embeddings and
    by words, and the adapter that comes trained judges them. Those that may well be relevant are suspects,
    and aren't taken. The others have the weight `(1 - p) ** gamma`, where `p` is the probability that they
    are relevant although they have no label.

    Documents that the dataset says are not relevant, in columns of negatives or with the label 0, come first
    and have the weight 1. Positives of an anchor, also those of its other rows, are never its negatives, nor
    are documents that are the anchor itself.

    Args:
        dataset: Pairs; or triplets, n-tuples and pairs with labels, whose negatives are kept. An anchor may
            have several rows.
        model: The encoder: a `SentenceTransformer`, an `RRRAModel`, or the folder or name of one.
        anchor_column_name: Column of anchors. If not given, one with a usual name, such as `query`,
            `question` or `anchor`, or else the first.
        positive_column_name: Column of positives. If not given, one with a usual name, such as `answer`,
            `passage` or `positive`, or else the first of the others.
        corpus: Texts to find negatives among, beside those of the dataset.
        range_min: Number of the best candidates to pass over, of those that may be taken.
        range_max: Rank at which candidates end, of those that may be taken. By default, all that are found.
        max_score: Greatest cosine of a negative with the anchor.
        min_score: Least cosine of a negative with the anchor.
        absolute_margin: Least distance of a negative's cosine from that of the anchor's positive. Of several
            positives the one with the least cosine counts, also for `relative_margin`.
        relative_margin: The same, as a share of the positive's cosine.
        num_negatives: Negatives per row.
        sampling_strategy: `"top"` takes the candidates with the highest cosines, `"random"` any.
        query_prompt_name: Name of the model's prompt for anchors. By default, the model's own choice.
        query_prompt: Prompt for anchors.
        corpus_prompt_name: Name of the model's prompt for documents.
        corpus_prompt: Prompt for documents.
        output_format: `"n-tuple"`: anchor, positive, negative_1, ..., negative_n, and `scores`, the list of
            the negatives' weights. `"triplet"`: anchor, positive, negative, scores. `"labeled-pair"`: anchor,
            document, and `label`, which is 1 for positives and the probability for others.
            `"labeled-list"`: anchor, the list of documents, and `labels`, the list of theirs.
        batch_size: Encoder batch size.
        cache_folder: Folder of the cache of embeddings and of words, see `encode` and `index_words`.
        threshold: Candidates with at least this probability are suspects. By default .2: a negative that is
            relevant harms more than one that is passed over.
        gamma: As in `rrra_weights`.
        show_progress_bar: Show progress bars. None shows them on a terminal only.
        seed: Random seed.
        **not_taken: Other arguments of sentence-transformers' function are refused by name.

    Returns:
        The dataset in the format that was asked for. Without enough negatives for an n-tuple, a row is left
        out. One line of the log counts all this.

    Raises:
        TypeError: If `dataset` or `model` is of another type, or an argument has an unknown name.
        ValueError: If the dataset is empty or has other columns, an argument isn't legal, or no row has
            enough negatives.

    Source:
        RRRA, arXiv 2508.11670. Margins: NV-Retriever, arXiv 2407.15831.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "sort", "list", "file"])])
        >>> answers = ["cp copies files", "sorted sorts a list"]
        >>> pairs = Dataset.from_dict({"query": ["copy a file", "sort a list"], "answer": answers})
        >>> mined = mine_hard_negatives(pairs, encoder, num_negatives=1)
        >>> mined.column_names, mined["negative_1"][0]
        (['query', 'answer', 'negative_1', 'scores'], 'sorted sorts a list')
    """
    _refuse(not_taken)
    if output_format not in FORMATS:
        raise ValueError(f"output_format must be one of {', '.join(FORMATS)}, got {output_format!r}.")
    check_threshold(threshold)
    check_gamma(gamma)
    choice = Choice(
        num_negatives,
        range_min,
        range_max,
        max_score,
        min_score,
        absolute_margin,
        relative_margin,
        sampling_strategy,
        seed,
    )
    settings = Estimating(
        query_prompt_name,
        query_prompt,
        corpus_prompt_name,
        corpus_prompt,
        batch_size,
        cache_folder,
        show_progress_bar,
    )
    rows = read_rows(dataset, anchor_column_name, positive_column_name, corpus)
    known = [np.union1d(*of) for of in zip(rows.given_negatives, rows.irrelevant, strict=True)]
    estimates = estimate(rows, model, settings, known, depth=max(DEPTH, choice.depth))
    found = _chosen(estimates, known, choice, threshold)
    mined = Dataset.from_dict(_columns(rows, found, output_format, gamma))
    pairs, short = len(found.pairs), int((~found.complete).sum())
    if not len(mined) or np.all(found.negatives < 0):
        raise ValueError(
            f"None of {pairs} pairs has {num_negatives} negatives among {len(rows.documents)} documents: ask "
            "for fewer, give a corpus, or relax threshold and limits."
        )
    logger.info(
        "%d pairs of %d anchors, %d documents: %d negatives; %d suspects among %d candidates; "
        "%d pairs with too few negatives%s%s.",
        *(pairs, len(rows.queries), len(rows.documents), (found.negatives >= 0).sum()),
        *((estimates.probability >= threshold).sum(), (estimates.pool.candidates >= 0).sum(), short),
        *(", left out" if short and output_format == "n-tuple" else "", rows.left_out),
    )
    return mined


def _refuse(arguments: dict[str, Any]) -> None:
    for name in arguments:
        if name not in NOT_TAKEN:
            raise TypeError(f"mine_hard_negatives() got an unexpected keyword argument {name!r}")
        raise ValueError(f"{name} isn't taken: {NOT_TAKEN[name]}.")


def _chosen(estimates: Estimates, known: list[np.ndarray], choice: Choice, threshold: float) -> Tuples:
    """Return each distinct pair with the negatives of its query: those that are known, then others."""
    rows, pool = estimates.rows, estimates.pool
    allowed = (pool.candidates >= 0) & (estimates.probability < threshold)
    if any(map(len, known)):
        allowed &= ~pool.known_negative
    positive = estimates.positive_cosines if choice.has_margin else np.zeros(len(pool))
    places = choice.places(pool.scores, positive, allowed)
    negatives = _taken(pool.candidates, places, -1)
    probability = _taken(estimates.probability, places, np.nan)
    for query, documents in enumerate(known):
        if len(documents):
            count = choice.num_negatives
            negatives[query] = [*documents, *negatives[query]][:count]
            probability[query] = [*np.zeros(len(documents)), *probability[query]][:count]
    pairs = rows.pairs[rows.relevant]
    pairs = pairs[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]
    return Tuples(pairs, negatives[pairs[:, 0]], probability[pairs[:, 0]])


def _taken(values: np.ndarray, places: np.ndarray, missing: float) -> np.ndarray:
    return np.where(places >= 0, np.take_along_axis(values, places, axis=1), missing).astype(values.dtype)


def _columns(rows: TrainingRows, found: Tuples, output_format: Format, gamma: float) -> Columns:
    if output_format == "n-tuple":
        names = [f"negative_{number}" for number in range(1, found.negatives.shape[1] + 1)]
        return weighted_tuples(rows, found.select(found.complete), names, gamma)
    if output_format == "triplet":
        return weighted_triplets(rows, found, gamma)
    return labelled_pairs(rows, found) if output_format == "labeled-pair" else labelled_lists(rows, found)
