import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from rrra_hf.evaluation import expected_calibration_error, ndcg_per_query, ranking_quality, reorder


def hits(*ids):
    return [{"corpus_id": name, "score": 1.0 - rank / 10} for rank, name in enumerate(ids)]


def test_measures_of_a_known_ranking():
    quality = ranking_quality(
        {"q1": hits("x", "a", "y"), "q2": hits("b", "x")},
        {"q1": {"a": 1, "z": 1}, "q2": {"b": 2}},
        ["nDCG@10", "MRR@10", "R@1", "R@100"],
    )
    ideal = 1 + 1 / np.log2(3)
    assert quality.per_query["nDCG@10"] == pytest.approx([1 / np.log2(3) / ideal, 1.0])
    assert quality.per_query["MRR@10"].tolist() == [0.5, 1.0]
    assert quality.per_query["R@1"].tolist() == [0.0, 1.0]
    assert quality.per_query["R@100"].tolist() == [0.5, 1.0]
    assert quality.mean["R@1"] == 0.5


def test_a_query_without_results_counts_as_zero():
    quality = ranking_quality({"q1": hits("a")}, {"q1": {"a": 1}, "q2": {"b": 1}}, ["nDCG@10"])
    assert quality.query_ids == ["q1", "q2"]
    assert quality.per_query["nDCG@10"].tolist() == [1.0, 0.0]


def test_tied_scores_are_measured_in_the_order_given():
    tied = [{"corpus_id": "a", "score": 1.0}, {"corpus_id": "z", "score": 1.0}]
    assert ranking_quality({"q": tied}, {"q": {"a": 1}}, ["MRR@10"]).mean["MRR@10"] == 1.0


def test_an_unknown_measure_is_named():
    with pytest.raises(ValueError, match=r"nDCG@10.*got 'nDGC@10'"):
        ranking_quality({"q": hits("a")}, {"q": {"a": 1}}, ["nDGC@10"])


def test_no_judgements_is_an_error():
    with pytest.raises(ValueError, match="at least one query"):
        ranking_quality({}, {"q": {"a": 0}})


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 12))
def test_array_ndcg_agrees_with_the_library(seed, depth, k):
    rng = np.random.default_rng(seed)
    relevant = rng.random((4, depth)) < 0.3
    missed = rng.integers(1, 4, size=4)
    ours = ndcg_per_query(relevant, relevant.sum(1) + missed, k)
    results = {f"q{i}": hits(*map(str, range(depth))) for i in range(4)}
    qrels = {
        f"q{i}": {str(d): 1 for d in np.flatnonzero(relevant[i])}
        | {f"missed{j}": 1 for j in range(missed[i])}
        for i in range(4)
    }
    theirs = ranking_quality(results, qrels, [f"nDCG@{k}"]).per_query[f"nDCG@{k}"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_array_ndcg_agrees_with_scikit_learn():
    relevant = np.array([[0, 1, 0, 1], [1, 0, 0, 0]])
    ranks = -np.tile(np.arange(4.0), (2, 1))
    expected = ndcg_score(relevant, ranks, k=3)
    assert ndcg_per_query(relevant, relevant.sum(1), 3).mean() == pytest.approx(expected)


def test_reorder_keeps_the_order_of_ties():
    assert reorder(np.array([[1, 2, 3]]), np.zeros((1, 3))).tolist() == [[1, 2, 3]]


def test_calibration_error_of_known_probabilities():
    assert expected_calibration_error(np.full(10, 0.3), np.array([1] * 3 + [0] * 7), bins=1) == pytest.approx(
        0
    )
    assert expected_calibration_error(np.full(10, 0.9), np.zeros(10), bins=5) == pytest.approx(0.9)


def test_a_query_that_finds_itself_is_measured_as_in_beir(caplog):
    found, qrels = {"a": hits("a", "b"), "q": hits("c")}, {"a": {"b": 1}, "q": {"c": 1}}
    with caplog.at_level("INFO"):
        assert ranking_quality(found, qrels, ["R@1"]).per_query["R@1"].tolist() == [1.0, 1.0]
    assert "1 of 2 queries found a document with their own id" in caplog.text
    kept = ranking_quality(found, qrels, ["R@1"], exclude_self=False)
    assert kept.per_query["R@1"].tolist() == [0.0, 1.0]


def test_a_document_with_the_id_of_its_query_counts_if_it_is_relevant():
    assert ranking_quality({"a": hits("a")}, {"a": {"a": 1}}, ["R@1"]).mean["R@1"] == 1.0


def test_negative_grades_are_not_relevant():
    found = {"q": hits("x", "a")}
    for measure in ("nDCG@10", "MRR@10", "R@1"):
        graded, plain = (
            ranking_quality(found, {"q": grades}, [measure]).mean for grades in ({"a": 2, "x": -2}, {"a": 2})
        )
        assert graded == plain
