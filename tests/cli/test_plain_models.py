"""Commands open the plain form of a model as the model that it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alike import assert_alike
from command_line import rrra
from retriever_models import CORPUS, QUERY, RESIDUAL, make_adapter
from rrra_hf import RRRAModel
from rrra_hf.cli.opening import Opening, load_model

MAPS = {"query_map": True, "document_map": True}


@pytest.fixture
def folders(tiny_bert: Path, tmp_path: Path) -> list[Path]:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL, "lambda_": 0.5, **MAPS})
    model.adapter.load_state_dict(make_adapter(**MAPS).state_dict())
    for form in ("full", "plain"):
        model.save_pretrained(tmp_path / form, form=form)
    return [tmp_path / "full", tmp_path / "plain"]


def test_a_model_keeps_its_adapter(folders: list[Path]) -> None:
    full, plain = (load_model(str(folder), None, Opening()) for folder in folders)
    assert plain.adapter.config == full.adapter.config
    weights = full.adapter.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.adapter.state_dict().items())


def test_reranking_gives_the_same_scores(folders: list[Path], tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    texts = [text if isinstance(text, str) else text["text"] for text in CORPUS.values()]
    documents.write_text("\n".join(texts))
    found = []
    for folder in folders:
        outcome = rrra("rerank", folder, QUERY, documents, "--json")
        assert outcome.status == 0, outcome.err
        found.append(outcome.json)
    assert_alike(found[1], found[0])
