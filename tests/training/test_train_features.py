"""Training and refreshes with the default kind of adapter, which reads features and words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer
from transformers import TrainerControl, TrainerState, TrainingArguments

from feature_task import PRESET
from rrra_hf.candidates import CandidatePool, LabelledQueries, judge_candidates, mine_collection
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection, encode
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter
from rrra_hf.indexes import WordIndex
from rrra_hf.training import Refresh, Resampler, TrainArguments, train

FIT = FitArguments(maps="none", depth=10)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_training_ends_with_an_adapter_that_reads_features_and_words(
    tiny_bert: Path, feature_collection: Collection, tmp_path: Path
) -> None:
    arguments = TrainArguments(fit=replace(PRESET, depth=10), folds=2, batch_size=8, refresh_steps=2)
    trained = train(feature_collection, tiny_bert, tmp_path, arguments)
    assert trained.adapter.reads_words
    pool = CandidatePool.load(tmp_path / "stage2/pool")
    assert_array_equal(np.isnan(pool.probability), pool.candidates < 0)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["comparison"]["development"]["frozen"]) >= {"encoder", "adapter"}
    config = json.loads((tmp_path / "stage1/model/config.json").read_text())
    assert config["adapter"]["reader"]["kind"] == "features"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("probabilities", ["held_out", "cross_fit"])
def test_a_refresh_estimates_with_words_and_leaves_the_adapter_alone(
    tiny_bert: Path, feature_collection: Collection, tmp_path: Path, probabilities: str
) -> None:
    part, development = feature_collection.split("train"), feature_collection.split("dev")
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    queries, documents, _ = embeddings = embed_collection(part, encoder)
    words = WordIndex.of(part.document_texts)
    mined = mine_collection(part, embeddings, 5, words=words)
    first = replace(mined, probability=np.full(mined.candidates.shape, 0.2, np.float32))
    resampler = Resampler(part, first, num_negatives=2)
    refresh = Refresh(
        resampler,
        tmp_path / "refresh",
        every_steps=1,
        development=development,
        probabilities=probabilities,
        arguments=FIT,
        folds=2,
    )
    refresh.on_step_end(
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
        TrainerState(global_step=1, max_steps=9),
        TrainerControl(),
        model=encoder,
    )
    labelled = LabelledQueries(
        encode(encoder, development.query_texts, task="query"),
        development.positive_rows,
        words.count(development.query_texts),
    )
    given: dict[str, Any] = {"query_words": words.count(part.query_texts), "document_words": words}
    if probabilities == "cross_fit":
        estimated = cross_fit(
            mined, queries, documents, development=labelled, arguments=FIT, folds=2, **given
        )
        expected = estimated.probability
    else:
        adapter = fit_adapter(
            labelled.embeddings,
            documents,
            labelled.positives,
            arguments=FIT,
            query_words=labelled.words,
            document_words=words,
        )
        assert adapter.reads_words
        expected = judge_candidates(
            adapter, queries, mined.candidates, documents, *given.values(), mined.positives
        ).probability
    assert_array_equal(resampler.pool.candidates, mined.candidates)
    assert_allclose(resampler.pool.probability, expected, rtol=1e-5)
    assert [path.name for path in (tmp_path / "refresh/step-1").iterdir() if path.is_dir()] == ["pool"]


@pytest.mark.usefixtures("quick")
def test_words_are_indexed_once_for_all_refreshes(
    tiny_bert: Path, feature_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = feature_collection.split("train")
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    mined = mine_collection(part, embed_collection(part, encoder), 5)
    first = replace(mined, probability=np.full(mined.candidates.shape, 0.2, np.float32))
    refresh = Refresh(
        Resampler(part, first, num_negatives=2),
        tmp_path / "refresh",
        every_steps=1,
        development=feature_collection.split("dev"),
        arguments=FIT,
    )
    indexed: list[int] = []
    index = WordIndex.of
    monkeypatch.setattr(WordIndex, "of", lambda texts: indexed.append(len(texts)) or index(texts))
    for step in (1, 2):
        refresh.on_step_end(
            TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            TrainerState(global_step=step, max_steps=9),
            TrainerControl(),
            model=encoder,
        )
    assert indexed == [30]
