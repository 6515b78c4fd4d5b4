"""What tests of fitting share."""

from __future__ import annotations

import pytest

from feature_task import PRESET, Task, fit
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import LabelledQueries


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


@pytest.fixture(scope="module")
def training(task: Task) -> LabelledQueries:
    return task.queries(200)


@pytest.fixture(scope="module")
def test_queries(task: Task, training: LabelledQueries) -> LabelledQueries:
    return task.queries(100)


@pytest.fixture(scope="module")
def fitted(task: Task, training: LabelledQueries) -> RetrieverAdapter:
    return fit(task, training, PRESET)
