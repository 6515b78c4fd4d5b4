"""Training ends with an adapter that reads features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sentence_transformers import SentenceTransformer

from feature_task import PRESET
from rrra_hf.candidates import CandidatePool, mine_collection
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection
from rrra_hf.fitting import FitArguments
from rrra_hf.training import Refresh, Resampler, TrainArguments, train


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_training_ends_with_an_adapter_that_reads_evidence(
    tiny_bert: Path, feature_collection: Collection, tmp_path: Path
) -> None:
    arguments = TrainArguments(fit=replace(PRESET, depth=10), folds=2, batch_size=8)
    trained = train(feature_collection, tiny_bert, tmp_path, arguments)
    assert trained.adapter.features.reads_words
    pool = CandidatePool.load(tmp_path / "stage2/pool")
    assert_array_equal(np.isnan(pool.probability), pool.candidates < 0)
    results = json.loads((tmp_path / "results.json").read_text())
    assert "adapter" in json.dumps(results)


def test_a_refresh_does_not_refit_an_adapter_that_reads_evidence(
    tiny_bert: Path, feature_collection: Collection, tmp_path: Path
) -> None:
    part, development = feature_collection.split("train"), feature_collection.split("dev")
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    pool = mine_collection(part, embed_collection(part, encoder), 3)
    pool = replace(pool, probability=np.full(pool.candidates.shape, 0.2, np.float32))
    resampler = Resampler(part, pool, num_negatives=2)
    options = {"every_steps": 1, "development": development}
    arguments = FitArguments(features=("memory", "hubness"), depth=5)
    with pytest.raises(ValueError, match=r"arguments\.features must be empty where refit_adapter is true"):
        Refresh(resampler, tmp_path, arguments=arguments, **options)
    assert Refresh(resampler, tmp_path, arguments=arguments, refit_adapter=False, **options)
