"""What missing labels do to nDCG@10."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from rrra_hf import CandidatePool, Collection
from rrra_hf.evaluation import ranking_quality
from rrra_hf.labels import Audit, Decision, effect_on_evaluation

DOCUMENTS = [f"d{number}" for number in range(30)]
QUERIES = [f"q{number}" for number in range(8)]


def an_audit(probability: float, seed: int = 0) -> Audit:
    rng = np.random.default_rng(seed)
    candidates = np.array([rng.permutation(30)[:12] for _ in QUERIES])
    positives = [np.setdiff1d(np.arange(30), row)[: rng.integers(1, 5)] for row in candidates]
    qrels = {
        query: {DOCUMENTS[row]: int(rng.integers(1, 4)) for row in rows}
        for query, rows in zip(QUERIES, positives, strict=True)
    }
    collection = Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": DOCUMENTS, "title": [""] * 30, "text": DOCUMENTS}),
        queries=Dataset.from_dict({"id": QUERIES, "text": QUERIES}),
        qrels_by_split={"test": qrels},
    )
    pool = CandidatePool(
        query_ids=QUERIES,
        document_ids=DOCUMENTS,
        positives=positives,
        candidates=candidates,
        scores=np.zeros(candidates.shape),
        probability=np.full(candidates.shape, probability),
    )
    return Audit(collection, "test", pool)


def runs(seed: int = 1) -> dict[str, dict[str, list[dict[str, str]]]]:
    rng = np.random.default_rng(seed)
    return {
        name: {
            query: [{"corpus_id": DOCUMENTS[row]} for row in rng.permutation(30)[:15]] for query in QUERIES
        }
        for name in ("one", "other")
    }


def ndcg(audit: Audit, extra: dict[str, dict[str, int]], run: dict[str, list[dict[str, str]]]) -> float:
    qrels = {query: {**grades, **extra.get(query, {})} for query, grades in audit.collection.qrels.items()}
    return ranking_quality(run, qrels, ["nDCG@10"]).mean["nDCG@10"]


def test_without_suspects_all_figures_are_those_of_trec_eval() -> None:
    audit = an_audit(0.0)
    effect = effect_on_evaluation(audit, runs())
    for name, run in runs().items():
        expected = dict.fromkeys(effect.rows[name], pytest.approx(ndcg(audit, {}, run)))
        assert effect.rows[name] == expected
    assert effect.order_changes == 0


def test_decided_labels_count_as_trec_eval_counts_them() -> None:
    audit, extra = an_audit(0.3), {}
    for row, query in enumerate(QUERIES):
        ids = [DOCUMENTS[document] for document in audit.pool.candidates[row, :4]]
        for place, name in enumerate(ids):
            audit.decisions.add(Decision(query, name, place % 2 == 0, "person", 0.3))
        extra[query] = {name: 1 - place % 2 for place, name in enumerate(ids)}
    effect = effect_on_evaluation(audit, runs())
    for name, run in runs().items():
        assert effect.rows[name]["decided"] == pytest.approx(ndcg(audit, extra, run))


def test_expected_figures_lie_in_their_interval_and_the_order_may_change() -> None:
    effect = effect_on_evaluation(an_audit(0.5), runs())
    for row in effect.rows.values():
        assert row["low"] < row["expected"] < row["high"]
    assert 0 < effect.order_changes < 1
    assert effect == effect_on_evaluation(an_audit(0.5), runs())


def test_a_query_that_is_a_document_counts_as_trec_eval_counts_it() -> None:
    """It is left out of the hits, as BEIR does, unless it is labelled relevant."""
    audit = an_audit(0.0)
    run = {query: [{"corpus_id": name} for name in (query, "d0", "d1", "d2")] for query in QUERIES}
    for grade in (0, 1):
        for query in QUERIES:
            audit.collection.qrels[query][query] = grade
        row = effect_on_evaluation(audit, {"own": run}).rows["own"]
        assert row["as labelled"] == pytest.approx(ndcg(audit, {}, run))


def test_documents_that_nobody_knows_are_counted() -> None:
    audit = an_audit(0.5)
    unknown = {query: [{"corpus_id": f"x{rank}"} for rank in range(10)] for query in QUERIES}
    effect = effect_on_evaluation(audit, {"unknown": unknown, "nothing": {}})
    assert effect.unjudged == 1
    assert effect.rows["unknown"]["high"] == 0
    with pytest.raises(ValueError, match="runs must have at least one system"):
        effect_on_evaluation(audit, {})
