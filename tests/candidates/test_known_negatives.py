"""What a pool knows beside its candidates: documents that are judged irrelevant, and such as are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from feature_task import Task
from forgery import forge
from mined import assert_same, make_pool
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import (
    CandidatePool,
    LabelledQueries,
    RetrievedCandidates,
    judge_candidates,
    mine_embeddings,
)
from rrra_hf.indexes import WordIndex
from rrra_hf.labels import drop_above_positive, rrra_strategy

KNOWN: dict[str, Any] = {
    "negatives": [np.array([1]), np.array([0])],
    "excluded": [np.empty(0, dtype=int), np.array([0])],
}


def test_a_known_negative_has_probability_zero_whatever_is_estimated() -> None:
    pool = make_pool(negatives=[np.array([1]), np.empty(0, dtype=int)])
    assert_array_equal(pool.known_negative, [[False, True], [False, False]])
    assert_array_equal(pool.probability, [[0.25, 0], [0.125, np.nan]])
    estimated = np.full((2, 2), 0.75)
    again = replace(pool, probability=estimated)
    assert again.probability.tolist() == [[0.75, 0], [0.75, 0.75]] and (estimated == 0.75).all()
    dropped = drop_above_positive(pool, np.array([0.4, 0.4]))
    assert_array_equal(dropped.probability, [[1, 0], [1, np.nan]])
    assert_array_equal(rrra_strategy(dropped)[1], [[0, 1], [0, 0]])


@pytest.mark.parametrize("name", ["negatives", "excluded"])
def test_rows_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must have one entry per query \(2\), got 1"):
        make_pool(**{name: [np.array([1])]})
    with pytest.raises(ValueError, match=f"{name} must hold rows of the 3 documents, got 1 to 3"):
        make_pool(**{name: [np.array([1]), np.array([3])]})


def test_a_document_is_not_both_relevant_and_irrelevant() -> None:
    with pytest.raises(ValueError, match="negatives must not be positives, one of the query 'q1' is"):
        make_pool(negatives=[np.array([1]), np.array([0, 2])])


def test_a_saved_pool_keeps_what_it_knows(tmp_path: Path) -> None:
    pool = make_pool(**KNOWN)
    pool.save(tmp_path / "pool")
    loaded = CandidatePool.load(tmp_path / "pool")
    assert_same(loaded, pool)
    part = loaded.select([1, 0])
    for name, expected in KNOWN.items():
        for rows, other, theirs in zip(
            getattr(loaded, name), getattr(part, name)[::-1], expected, strict=True
        ):
            assert_array_equal(rows, theirs)
            assert_array_equal(other, theirs)


@pytest.mark.parametrize(
    ("version", "missing"),
    [(2, ["negative_ids", "excluded_ids", "ranking_scores"]), (3, ["ranking_scores"])],
)
def test_a_pool_of_an_earlier_format_opens(tmp_path: Path, version: int, missing: list[str]) -> None:
    make_pool().save(tmp_path)
    path = tmp_path / "queries.parquet"
    pq.write_table(pq.read_table(path).drop_columns(missing), path)
    forge(tmp_path / "pool.json", format_version=version)
    assert_same(CandidatePool.load(tmp_path), make_pool())


def test_mining_keeps_what_it_is_given_and_never_excludes_a_positive(tmp_path: Path) -> None:
    documents = np.eye(5) + 0.1
    given: dict[str, Any] = {"negatives": [[3], []], "excluded": [[0, 4], [1]], "depth": 5}
    pool = mine_embeddings(documents[:2], documents, [[0], [1]], folder=tmp_path / "pool", **given)
    assert [set(ids) for ids in pool.candidate_ids] == [{"1", "2", "3"}, {"0", "2", "3", "4"}]
    assert [rows.tolist() for rows in pool.excluded] == [[4], []]
    assert [rows.tolist() for rows in pool.negatives] == [[3], []]
    other = {**given, "negatives": [[2], []]}
    pool = mine_embeddings(documents[:2], documents, [[0], [1]], folder=tmp_path / "pool", **other)
    assert [rows.tolist() for rows in pool.negatives] == [[2], []]


@pytest.mark.parametrize("with_words", [False, True])
def test_what_is_left_out_is_not_retrieved(with_words: bool) -> None:
    texts = ["red fox", "red fox den", "red dog", "blue cat", "green bird"]
    words = WordIndex.of(texts, language="none")
    documents = np.eye(5)[:, ::-1] + 0.1
    labelled = LabelledQueries(
        documents[:2], [np.array([2]), np.array([3])], words.count(texts[:2]) if with_words else None
    )
    labelled = labelled._replace(negatives=[np.array([4])] * 2, excluded=[np.array([0]), np.array([0, 1])])
    found = RetrievedCandidates.retrieve(labelled, documents, 5, words)
    kept = [sorted(rows[rows >= 0].tolist()) for rows in found.rows]
    assert kept == [[1, 2, 3, 4], [2, 3, 4]]
    assert_array_equal(found.relevant, found.rows == [[2], [3]])
    assert_array_equal(found.irrelevant, found.rows == 4)
    assert np.isneginf(found.cosines[found.rows < 0]).all()


def test_known_negatives_take_no_share_of_the_missing_labels() -> None:
    """Fewer documents stand above the labelled ones when the best candidates are known not to be relevant."""
    task = Task()
    labelled = task.queries(40)
    pool = mine_embeddings(labelled.embeddings, task.documents, labelled.positives, depth=12)
    adapter = RetrieverAdapter.pretrained()
    given = labelled.embeddings, pool.candidates, task.documents, labelled.words, task.words, pool.positives
    nothing, best = [np.empty(0, dtype=int)] * 40, list(pool.candidates[:, :1])
    without, none, some = (
        judge_candidates(adapter, *given, negatives).probability for negatives in (None, nothing, best)
    )
    assert_array_equal(none, without)
    assert (some[:, 0] == 0).all()
    assert (some[:, 1:] > 0).all()
    assert some.sum() < without[:, 1:].sum()
