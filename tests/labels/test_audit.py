"""The audit: how many labels are missing, what it writes, and the collection with new labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from rrra_hf import CandidatePool, Collection, load_collection
from rrra_hf.embeddings import texts_fingerprint
from rrra_hf.labels import Audit, Decision, Decisions, mend, missing_labels


@pytest.fixture
def found() -> Audit:
    collection = Collection(
        name="tiny",
        corpus=Dataset.from_dict(
            {"id": [f"d{n}" for n in range(4)], "title": [""] * 4, "text": [f"text {n}" for n in range(4)]}
        ),
        queries=Dataset.from_dict({"id": ["q0", "q1"], "text": ["query 0", "query 1"]}),
        qrels_by_split={"train": {"q0": {"d0": 1}, "q1": {"d1": 2}}, "test": {"q1": {"d3": 1}}},
    )
    part = collection.split("train")
    pool = CandidatePool(
        query_ids=part.query_ids,
        document_ids=part.document_ids,
        positives=part.positive_rows,
        candidates=np.array([[1, 2, 3], [0, 2, -1]]),
        scores=np.array([[0.9, 0.5, 0.1], [0.8, 0.2, -np.inf]]),
        probability=np.array([[0.75, 0.5, 0.0], [0.25, 0.0, np.nan]]),
        fingerprint={
            "corpus": texts_fingerprint(part.document_texts),
            "queries": texts_fingerprint(part.query_texts),
        },
    )
    return Audit(collection, "train", pool, settings={"depth": 3})


def said(relevant: bool, query_id: str, document_id: str, by: str = "person") -> Decision:
    return Decision(query_id, document_id, relevant, by, 0.5)


# -------------------------------------------------------------------- how many


def test_the_expected_number_is_the_sum_of_the_probabilities(found: Audit) -> None:
    missing = found.missing()
    assert missing.expected == pytest.approx(1.5)
    assert missing.by_depth == [(1, 3, pytest.approx(1.5))]
    assert missing.decisions == 0
    assert 0 < missing.low < 1.5 < missing.high


def test_a_label_that_was_found_is_counted_whole_and_one_that_was_refused_not(found: Audit) -> None:
    certain = [said(True, "q0", "d1"), said(False, "q0", "d2"), said(False, "q1", "d0")]
    missing = missing_labels(found.pool, certain)
    assert missing[:3] == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
    assert missing.decisions == 3


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=200))
def test_the_interval_holds_the_number_and_grows_with_nothing_but_doubt(p: list[float]) -> None:
    pool = CandidatePool(
        query_ids=["q"],
        document_ids=[str(number) for number in range(len(p))],
        positives=[[]],
        candidates=np.arange(len(p))[None],
        scores=np.zeros((1, len(p))),
        probability=np.array([p]),
    )
    missing = missing_labels(pool)
    assert missing.low <= missing.expected <= missing.high
    assert sum(number for *_, number in missing.by_depth) == pytest.approx(missing.expected)
    assert [first for first, *_ in missing.by_depth][1:] == [last + 1 for _, last, _ in missing.by_depth][:-1]


def test_the_interval_of_next_to_nothing_is_next_to_nothing() -> None:
    """It ended at 227,555 for 8 candidates."""
    ids = ["a", "b", "c"]
    p = np.array([[1e-4, 1e-5, np.nan]])
    pool = CandidatePool(["q"], ids, [[]], np.array([[0, 1, -1]]), np.array([[1.0, 0.5, -np.inf]]), p)
    missing = missing_labels(pool)
    assert 0 <= missing.low < missing.expected < missing.high < 0.1
    assert [(first, last) for first, last, _ in missing.by_depth] == [(1, 2)]


def test_decisions_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, (50, 20)).astype(np.float32)
    ids = [str(number) for number in range(50)]
    pool = CandidatePool(ids, ids, [[]] * 50, np.tile(np.arange(20), (50, 1)), np.zeros(p.shape), p)
    made = [
        Decision(ids[row], ids[place], bool(rng.random() < p[row, place]), "person", 0.5)
        for row in range(50)
        for place in range(2)
    ]
    before, after = missing_labels(pool), missing_labels(pool, made)
    assert after.high / after.low < 0.5 * before.high / before.low


# -------------------------------------------------------------------- the folder


def test_a_saved_audit_comes_back(found: Audit, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "notes.txt").write_text("mine")
    with Decisions.open(tmp_path / "audit" / "decisions.jsonl") as decisions:
        found.decisions = decisions
        decisions.add(said(True, "q0", "d1"))
        found.save(tmp_path / "audit")
        pool = {path: path.stat().st_ino for path in (tmp_path / "audit" / "pool").iterdir()}
        found.save_report(tmp_path / "audit")
        assert pool == {path: path.stat().st_ino for path in (tmp_path / "audit" / "pool").iterdir()}
    assert (tmp_path / "audit" / "notes.txt").read_text() == "mine"
    again = Audit.load(tmp_path / "audit", found.whole)
    assert again.summary() == found.summary()
    assert [decision.pair for decision in again.decisions] == [("q0", "d1")]
    pairs = pq.read_table(tmp_path / "audit" / "pairs.parquet").to_pylist()
    assert [(row["query_id"], row["document_id"], row["rank"]) for row in pairs] == [
        ("q0", "d1", 1), ("q0", "d2", 2), ("q0", "d3", 3), ("q1", "d0", 1), ("q1", "d2", 2)
    ]  # fmt: skip
    assert pairs[0]["probability"] == 1.0
    assert "Missing labels in tiny" in (tmp_path / "audit" / "index.html").read_text()


def test_the_audit_of_other_texts_is_refused(found: Audit, tmp_path: Path) -> None:
    found.save(tmp_path)
    texts = found.whole.corpus.map(lambda row: {"text": row["text"] + "!"})
    with pytest.raises(ValueError, match="audit of another collection than tiny"):
        Audit.load(tmp_path, replace(found.whole, corpus=texts))
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(ValueError, match=r"audit\.json is damaged"):
        Audit.load(tmp_path, found.whole)


# -------------------------------------------------------------------- new labels


def test_new_labels_are_those_decided_and_those_probable_enough(found: Audit) -> None:
    found.decisions.add(said(True, "q0", "d2", "judge:small"))
    found.decisions.add(said(False, "q0", "d2"))
    found.decisions.add(said(True, "q1", "d0", "judge:small"))
    mended = mend(found, accept_from=0.7)
    assert mended.collection.qrels_by_split == {
        "train": {"q0": {"d0": 1, "d2": 0, "d1": 1}, "q1": {"d1": 2, "d0": 1}},
        "test": {"q1": {"d3": 1}},
    }
    assert [(change.by, change.pair) for change in mended.changes] == [
        ("person", ("q0", "d2")), ("judge:small", ("q1", "d0")), ("adapter", ("q0", "d1"))
    ]  # fmt: skip
    assert mended.diff().splitlines() == [
        "adapter: 1 relevant, 0 not relevant",
        "judge:small: 1 relevant, 0 not relevant",
        "person: 0 relevant, 1 not relevant",
    ]
    assert found.whole.qrels_by_split["train"] == {"q0": {"d0": 1}, "q1": {"d1": 2}}


def test_nothing_is_accepted_unless_asked_for(found: Audit) -> None:
    mended = mend(found)
    assert (mended.changes, mended.diff()) == ([], "no new labels")
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="accept_from must be in"):
            mend(found, wrong)


def test_a_mended_collection_is_written_in_each_format(found: Audit, tmp_path: Path) -> None:
    found.decisions.add(said(True, "q0", "d1"))
    mend(found).save(tmp_path / "mended")
    again = load_collection(tmp_path / "mended" / "collection")
    assert again.qrels_by_split["train"]["q0"] == {"d0": 1, "d1": 1}
    assert (tmp_path / "mended" / "qrels.trec").read_text() == "q0 0 d0 1\nq0 0 d1 1\nq1 0 d1 2\n"
    (first, *_) = (tmp_path / "mended" / "training.jsonl").read_text().splitlines()
    assert json.loads(first)["pos"] == ["text 0", "text 1"]
    assert [d.pair for d in Decisions.read(tmp_path / "mended" / "changes.jsonl")] == [("q0", "d1")]
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        mend(found).save(tmp_path / "mended")
