import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrra_hf.evaluation import seen_queries, split_by_seen

ROWS = st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=8)


def test_one_relevant_document_of_a_training_query_makes_a_query_seen():
    train = [np.array([1, 2], dtype=np.int32), np.array([9], dtype=np.int32)]
    test = [np.array([2, 50]), np.array([3]), np.array([], dtype=np.int64), np.array([9])]
    assert seen_queries(test, train).tolist() == [True, False, False, True]


def test_ids_in_sets_do_as_well_as_rows():
    assert seen_queries([{"a"}, {"b", "c"}], [["c"], ["d"]]).tolist() == [False, True]


def test_no_training_queries_leave_every_query_unseen():
    seen = seen_queries([[1], [2]], [])
    assert seen.dtype == bool
    assert seen.tolist() == [False, False]


@given(ROWS, ROWS)
def test_arrays_and_sets_agree_with_the_definition(test, train):
    expected = [bool(set(rows) & {row for labelled in train for row in labelled}) for rows in test]
    assert seen_queries(test, train).tolist() == expected
    assert (
        seen_queries([np.array(rows, dtype=np.int32) for rows in test], list(map(set, train))).tolist()
        == expected
    )


def test_figures_are_split_and_counted():
    values = np.array([0.0, 0.5, 1.0])
    groups = split_by_seen(
        {"nDCG@10": values, "runs": np.stack([values, 2 * values])}, np.array([1, 0, 0]) > 0
    )
    assert {name: group.num_queries for name, group in groups.items()} == {"all": 3, "seen": 1, "unseen": 2}
    assert groups["unseen"].per_query["nDCG@10"].tolist() == [0.5, 1.0]
    assert groups["unseen"].per_query["runs"].tolist() == [[0.5, 1.0], [1.0, 2.0]]
    assert groups["all"].mean == {"nDCG@10": 0.5, "runs": 0.75}


def test_the_mean_of_no_queries_is_nan_without_a_warning(recwarn):
    groups = split_by_seen({"R@1": np.array([1.0])}, np.array([True]))
    assert groups["unseen"].num_queries == 0
    assert np.isnan(groups["unseen"].mean["R@1"])
    assert not recwarn.list


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"per_query\['R@1'\] must have shape \(..., 2\).*got \(3,\)"):
        split_by_seen({"R@1": np.zeros(3)}, np.array([True, False]))
    with pytest.raises(ValueError, match=r"seen must be boolean of shape \(n,\), got int64"):
        split_by_seen({}, np.array([1, 0]))
    with pytest.raises(ValueError, match=r"seen must be boolean .*shape \(1, 1\)"):
        split_by_seen({}, np.array([[True]]))
