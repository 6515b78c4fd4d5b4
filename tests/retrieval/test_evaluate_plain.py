"""Evaluating the plain form: the encoder alone is the one without the adapter's maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrievers import make_model
from rrra_hf.retrieval import evaluate_saved
from tiny import word_collection


@pytest.mark.parametrize("maps", [{}, {"query_map": True}], ids=["no maps", "maps"])
def test_both_forms_have_the_same_figures(tiny_bert: Path, tmp_path: Path, maps: dict[str, bool]) -> None:
    collection = word_collection(20, train=5, test=15)
    model = make_model(tiny_bert, lambda_=0.5, **maps)
    figures = []
    for form in ("full", "plain"):
        model.save_pretrained(tmp_path / form, form=form)
        figures.append(evaluate_saved(tmp_path / form, collection)["quality"]["all"])
    assert list(figures[0]) == ["encoder", *(["maps"] if maps else []), "adapter"]
    assert figures[1].keys() == figures[0].keys()
    for system, measures in figures[0].items():
        assert figures[1][system] == pytest.approx(measures)
