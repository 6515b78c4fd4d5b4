"""A training set with its labels mended: found positives added, suspects dropped, or soft scores."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from datasets import Dataset

from .estimates import ADD, DROP, Estimates, Estimating, Model, check_threshold, estimate
from .layouts import (
    Columns,
    Tuples,
    labelled_lists,
    labelled_pairs,
    soft_tuples,
    tuples,
    weighted_tuples,
)
from .training_rows import TrainingRows, read_rows
from .weights import check_gamma

logger = logging.getLogger(__name__)

Mode = Literal["add", "drop", "soft"]
THRESHOLDS: dict[Mode, float] = {"add": ADD, "drop": DROP, "soft": DROP}
SoftFormat = Literal["n-tuple", "labeled-pair", "labeled-list"]
SOFT_FORMATS: tuple[SoftFormat, ...] = ("n-tuple", "labeled-pair", "labeled-list")


def relabel(
    dataset: Dataset,
    model: Model,
    mode: Mode,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
    *,
    threshold: float | None = None,
    gamma: float = 1.0,
    output_format: SoftFormat = "n-tuple",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    batch_size: int = 32,
    cache_folder: str | os.PathLike[str] | None = None,
    show_progress_bar: bool | None = None,
) -> Dataset:
    """Mend the labels of a training set by the probability that documents are relevant.

    The modes:

    * `"add"` takes suspects as positives: each gets a row, after the rows that there are. Where there are
      negatives, what was found no longer is one.
    * `"drop"` takes suspects out of the negatives. The next candidates by cosine take their places. A row
      without enough candidates is left out.
    * `"soft"` changes no text, and adds the probabilities as labels.

    Suspects are unlabelled documents with a probability of at least `threshold`. Negatives of triplets and
    n-tuples are judged like any document without a label, because most were mined. A label of 0 is believed.

    Args:
        dataset: Pairs of anchor and positive, triplets or n-tuples; for `"add"` also pairs with labels. An
            anchor may have several rows.
        model: The encoder: a `SentenceTransformer`, an `RRRAModel`, or the folder or name of one.
        mode: `"add"`, `"drop"` or `"soft"`; the last two need columns of negatives.
        anchor_column_name: Column of anchors, as in `mine_hard_negatives`.
        positive_column_name: Column of positives.
        corpus: Texts to find positives and other negatives among, beside those of the dataset.
        threshold: Least probability of a suspect. By default .5 to add a positive, and .2 to drop a negative,
            for which there is another.
        gamma: Exponent of the weights of negatives, as in `rrra_weights`.
        output_format: Of mode `"soft"`. `"n-tuple"`: a column `label` with the list of the scores of positive
            and negatives. `"labeled-pair"`: anchor, document, and their score as `label`. `"labeled-list"`:
            anchor, the list of documents, and the list of their scores, `labels`.
        query_prompt_name: Name of the model's prompt for anchors. By default, the model's own choice.
        query_prompt: Prompt for anchors.
        corpus_prompt_name: Name of the model's prompt for documents.
        corpus_prompt: Prompt for documents.
        batch_size: Encoder batch size.
        cache_folder: Folder of the cache of embeddings and of words, see `encode` and `index_words`.
        show_progress_bar: Show progress bars. None shows them on a terminal only.

    Returns:
        The dataset, with the columns of anchors, positives and negatives. In modes `"add"` and `"drop"`,
        negatives have a list of weights in the column `scores`. One line of the log counts what changed.

    Raises:
        TypeError: If `dataset` or `model` is of another type.
        ValueError: If the dataset is empty, has other columns or no negatives for the mode, an argument isn't
            legal, or no row is left.

    Source:
        Relabelling instead of dropping: RLHN, arXiv 2505.16967, there by language models.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "sort", "list", "file"])])
        >>> triplet = {"anchor": ["sort a list"], "positive": ["sorted: a list"], "negative": ["cp: a file"]}
        >>> triplets = Dataset.from_dict(triplet)
        >>> soft = relabel(triplets, encoder, "soft")
        >>> soft.column_names, soft["label"][0][0]
        (['anchor', 'positive', 'negative', 'label'], 1.0)
    """
    for name, value, legal in (
        ("mode", mode, tuple(THRESHOLDS)),
        ("output_format", output_format, SOFT_FORMATS),
    ):
        if value not in legal:
            raise ValueError(f"{name} must be one of {', '.join(legal)}, got {value!r}.")
    if output_format != "n-tuple" and mode != "soft":
        raise ValueError(f"output_format is for mode='soft', got {output_format!r} with mode={mode!r}.")
    threshold = THRESHOLDS[mode] if threshold is None else threshold
    check_threshold(threshold)
    check_gamma(gamma)
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
    if mode != "add" and not rows.negative:
        raise ValueError(
            f"mode={mode!r} needs columns of negatives, such as negative or negative_1; dataset has "
            f"{dataset.column_names}. mine_hard_negatives adds them."
        )
    if rows.negative and rows.labelled:
        raise ValueError("dataset must have labels or columns of negatives, not both.")
    estimates = estimate(rows, model, settings, rows.irrelevant, given=rows.given_negatives)
    given = Tuples(rows.pairs, rows.negatives, estimates.probability_of(rows.pairs[:, 0], rows.negatives))
    mended = given if mode == "soft" else _without_suspects(estimates, given, threshold)
    replaced = int((mended.negatives != given.negatives).sum())
    if mode == "add":
        mended = _with_found(estimates, mended, threshold)
    kept = mended.select(mended.complete)
    if not len(kept.pairs):
        raise ValueError("No row has enough negatives without suspects: give a corpus or a higher threshold.")
    result = Dataset.from_dict(_columns(rows, kept, mode, output_format, gamma))
    logger.info(
        "%s: %d rows of %d anchors, %d documents; of %d negatives, %d are suspects, %d were replaced; "
        "%d rows were added, %d left out for want of negatives%s.",
        *(mode, len(given.pairs), len(rows.queries), len(rows.documents), given.negatives.size),
        *((given.probability >= threshold).sum(), replaced, len(mended.pairs) - len(given.pairs)),
        *(len(mended.pairs) - len(kept.pairs), rows.left_out),
    )
    return result


def _without_suspects(estimates: Estimates, given: Tuples, threshold: float) -> Tuples:
    """Return rows whose suspects are replaced by the next candidates, or by -1 where there are no more."""
    pool = estimates.pool
    negatives, probability = given.negatives.copy(), given.probability.copy()
    suspects = given.probability >= threshold
    for row in np.flatnonzero(suspects.any(axis=1)):
        query, places = given.pairs[row, 0], np.flatnonzero(suspects[row])
        allowed = (estimates.probability[query] < threshold) & ~np.isin(
            pool.candidates[query], negatives[row]
        )
        following = np.flatnonzero(allowed)[: len(places)]
        negatives[row, places], probability[row, places] = -1, np.nan
        negatives[row, places[: len(following)]] = pool.candidates[query, following]
        probability[row, places[: len(following)]] = estimates.probability[query, following]
    return Tuples(given.pairs, negatives, probability)


def _with_found(estimates: Estimates, mended: Tuples, threshold: float) -> Tuples:
    """Return the rows, and one for each suspect of their queries, the most probable of a query first."""
    pool = estimates.pool
    order = np.argsort(-np.nan_to_num(estimates.probability), axis=1, kind="stable")
    ordered = np.take_along_axis(pool.candidates, order, axis=1)
    queries, places = np.nonzero(np.take_along_axis(estimates.probability, order, axis=1) >= threshold)
    _, first = np.unique(mended.pairs[:, 0], return_index=True)
    found = mended.select(first[queries])._replace(pairs=np.column_stack([queries, ordered[queries, places]]))
    return Tuples(*(np.concatenate(parts) for parts in zip(mended, found, strict=True)))


def _columns(
    rows: TrainingRows, kept: Tuples, mode: Mode, output_format: SoftFormat, gamma: float
) -> Columns:
    if output_format == "labeled-pair":
        return labelled_pairs(rows, kept)
    if output_format == "labeled-list":
        return labelled_lists(rows, kept)
    if mode == "soft":
        return soft_tuples(rows, kept, rows.negative)
    if rows.negative:
        return weighted_tuples(rows, kept, rows.negative, gamma)
    columns = tuples(rows, kept, [])
    if rows.labelled:
        added = len(kept.pairs) - len(rows.pairs)
        columns["label"] = [*rows.relevant.astype(int).tolist(), *[1] * added]
    return columns
