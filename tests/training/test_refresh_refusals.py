"""What a refresh cannot do is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from refreshed import FIT, Run, losses
from rrra_hf import RRRAModel
from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection
from rrra_hf.fitting import FitArguments, ResidualFitArguments
from rrra_hf.losses import RRRALoss


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_steps": None}, "Give either every_steps or every_epochs"),
        ({"every_steps": 1, "every_epochs": 1}, "Give either every_steps or every_epochs"),
        ({"every_steps": 0}, "every_steps must be at least 1, got 0"),
        ({"every_epochs": -1}, "every_epochs must be at least 1, got -1"),
        ({"probabilities": "guessed"}, "probabilities must be one of held_out, cross_fit, got 'guessed'"),
        ({"development": None}, "'held_out' needs development with at least two queries"),
        ({"probabilities": "cross_fit", "folds": 1}, "folds must lie between 2 and .* 26; got 1"),
        ({"arguments": ResidualFitArguments(maps="query")}, "maps must be 'none' in a Refresh, got 'query'"),
        ({"arguments": FitArguments(maps="none")}, "refit_adapter needs arguments=ResidualFitArguments"),
    ],
)
def test_illegal_arguments_are_refused(
    make_run: Callable[..., Run], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_run().refresh(tmp_path, **settings)


def test_development_queries_that_cannot_be_fitted_on_are_refused(
    make_run: Callable[..., Run], collection: Collection, tmp_path: Path
) -> None:
    run, development = make_run(), collection.split("dev")
    few = replace(development, queries=development.queries.select([0]))
    with pytest.raises(ValueError, match="development with at least two queries"):
        run.refresh(tmp_path, development=few)
    unlabelled = replace(collection, qrels_by_split={"dev": collection.qrels_by_split["dev"]})
    with pytest.raises(ValueError, match="26 of 34 have none, the first is 'q0'"):
        run.refresh(tmp_path, development=unlabelled)
    other = replace(development, corpus=collection.corpus.select(range(29, -1, -1)))
    with pytest.raises(ValueError, match="development must have the documents"):
        run.refresh(tmp_path, development=other)


def test_a_pool_with_other_positives_is_refused(
    make_model: Callable[[], RRRAModel], collection: Collection, pool: CandidatePool, tmp_path: Path
) -> None:
    changed = replace(pool, positives=[np.array([29]), *pool.positives[1:]])
    with pytest.raises(ValueError, match="positives of its collection"):
        Run(make_model(), collection, changed).refresh(tmp_path)


def test_a_loss_without_a_pool_is_refused(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(ValueError, match="loss must have a pool"):
        run.refresh(tmp_path, loss=RRRALoss(run.encoder))


def test_models_whose_adapter_cannot_be_refitted_are_refused(
    make_run: Callable[..., Run], tiny_bert: Path, tmp_path: Path
) -> None:
    run = make_run()
    refresh = run.refresh(tmp_path, arguments=replace(FIT, hidden_size=9))
    with pytest.raises(ValueError, match=r"adapter with hidden_size=9, .* has hidden_size=8"):
        run.train(tmp_path, refresh)
    refresh = run.refresh(tmp_path, arguments=replace(FIT, objective="four_class"))
    with pytest.raises(ValueError, match=r"adapter with num_classes=4, .* has num_classes=1"):
        run.train(tmp_path, refresh)
    run.encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    with pytest.raises(ValueError, match="needs a model with an adapter, this one has none"):
        run.train(tmp_path, run.refresh(tmp_path))


def test_workers_that_would_miss_a_refresh_are_refused(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(ValueError, match="every_steps needs dataloader_num_workers=0"):
        run.train(tmp_path, run.refresh(tmp_path), dataloader_num_workers=1)


def test_workers_see_a_refresh_between_epochs(make_run: Callable[..., Run], tmp_path: Path) -> None:
    found = []
    for workers in (0, 1):
        run, folder = make_run(), tmp_path / str(workers)
        refresh = run.refresh(folder, every_epochs=1)
        found.append(losses(run.train(folder, refresh, dataloader_num_workers=workers, num_train_epochs=2)))
    assert found[0] == found[1]
