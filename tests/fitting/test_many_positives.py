"""Queries with many labels: what a fit computes grows as the labels do, and not with their square."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode

from feature_task import DIM, PRESET, directions
from rrra_hf.candidates import LabelledQueries
from rrra_hf.candidates.labelled import at_most, labelled_among
from rrra_hf.fitting import fold_state, maps
from rrra_hf.fitting.arguments import FitArguments
from rrra_hf.fitting.data import FitData
from rrra_hf.models.memory_rrra import Memory

QUERIES, DOCUMENTS = 6, 600


class Counting(TorchDispatchMode):
    """Counts the numbers that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, list | tuple) else [result]:
            self.numbers += value.numel() if isinstance(value, torch.Tensor) else 0
        return result


def labelled_queries(positives: int) -> LabelledQueries:
    rng = np.random.default_rng(0)
    rows = [rng.choice(DOCUMENTS, positives, replace=False) for _ in range(QUERIES)]
    return LabelledQueries(directions(QUERIES, DIM), rows)


def test_the_hubness_of_documents_reads_each_label_once() -> None:
    # Every label was compared with every document.
    documents = torch.from_numpy(directions(DOCUMENTS, DIM))
    pairs = torch.cartesian_prod(torch.arange(40), torch.arange(DOCUMENTS))
    memory = Memory(DIM, 40, DOCUMENTS, len(pairs))
    memory.remember(torch.from_numpy(directions(40, DIM, seed=1)), documents, pairs)
    with Counting() as counted:
        hubness = memory.hubness(documents)
    assert (hubness == 0).all()
    assert counted.numbers < 10 * (DOCUMENTS + 40) * DOCUMENTS + 30 * len(pairs)


def test_maps_look_up_the_labels_of_a_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every pair of a step looked up every document of the step: 2,048 x 4,000 in a large collection.
    looked_up = 0
    search = np.searchsorted

    def counting(keys: np.ndarray, wanted: np.ndarray, *rest: Any, **options: Any) -> np.ndarray:
        nonlocal looked_up
        looked_up += np.size(wanted)
        return search(keys, wanted, *rest, **options)

    monkeypatch.setattr(np, "searchsorted", counting)
    monkeypatch.setattr(maps, "STEPS", 4)
    monkeypatch.setattr(maps, "STOPS", (4,))
    monkeypatch.setattr(maps, "CORPUS_NEGATIVES", (0,))
    queries = labelled_queries(400)
    data = FitData(queries, np.empty((QUERIES, 0), dtype=int), directions(DOCUMENTS, DIM), None)
    maps.choose_maps(data, FitArguments(maps="query", depth=10))
    folds, steps, labels = 3, 4, QUERIES * 400
    assert 0 < looked_up < folds * steps * 4 * labels


def test_labels_are_found_among_documents() -> None:
    positives = [np.array([5, 2]), np.array([0]), np.array([2, 2, 9])]
    found = labelled_among(positives, np.array([2, 0, 2]), np.array([2, 3, 5]))
    assert_array_equal(found, [[True, False, False], [True, False, True], [True, False, False]])
    assert labelled_among(positives, np.array([1]), np.array([7])).tolist() == [[False]]


def test_a_memory_keeps_some_of_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_state, "LABELS", 30)
    queries, documents = labelled_queries(400), directions(DOCUMENTS, DIM)
    state = fold_state.fold_state(queries, documents, None, PRESET, None)
    sizes = state.reader.memory.sizes()
    assert sizes["pairs"] == QUERIES * 30 and sizes["documents"] <= QUERIES * 30
    assert_array_equal(state.remembered, np.unique(np.concatenate(queries.positives)))


def test_queries_of_few_labels_keep_them() -> None:
    few, many = np.array([3, 1]), np.arange(50)
    kept = at_most(10, [few, many], np.random.default_rng(0))
    assert kept[0] is few
    assert len(np.unique(kept[1])) == 10 and set(kept[1]) <= set(many)
