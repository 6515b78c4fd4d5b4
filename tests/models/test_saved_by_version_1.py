"""Folders that were saved in format version 1 open, and give what they gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAConfig, RRRAModel
from rrra_hf.models.adapter_rrra import READERS
from rrra_hf.retrieval import Retriever

FOLDERS = Path(__file__).parents[1] / "data" / "saved_by_version_1"
OPENERS: dict[str, Callable[[Path], SentenceTransformer]] = {
    "RRRAModel": lambda folder: RRRAModel.from_pretrained(folder).eval().to_sentence_transformer(),
    "AutoModel": lambda folder: AutoModel.from_pretrained(folder).eval().to_sentence_transformer(),
    "SentenceTransformer": lambda folder: SentenceTransformer(str(folder), device="cpu"),
}
CHANGES = [
    ({"format_version": 99}, r"format version 99; this package reads versions up to 3\. Install a newer"),
    ({"linear_skip": True}, "fitted with linear_skip, which is not supported any more; fit it again"),
]


class Saved(NamedTuple):
    """A saved folder and what the code that saved it made of it."""

    kind: str
    folder: Path
    expected: dict[str, Any]

    @property
    def reader(self) -> str:
        """Kind of the reader that reads it now."""
        return {"features": "features_v2"}.get(self.kind, self.kind)

    def check_encoder(self, encoder: SentenceTransformer) -> None:
        texts = list(self.expected["documents"].values())[:3]
        assert_allclose(encoder.encode_document(texts), self.expected["embeddings"], atol=1e-4)

    def check_search(self, retriever: Retriever) -> None:
        found = retriever.search(self.expected["queries"], top_k=5, rerank=True, probabilities=True)
        for hits, expected in zip(found, self.expected["hits"], strict=True):
            assert [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in expected]
            for name in ("score", "probability"):
                values = [hit[name] for hit in hits]
                assert_allclose(values, [hit[name] for hit in expected], rtol=1e-4, atol=1e-4)

    def check_everything(self, folder: Path) -> None:
        for open_folder in OPENERS.values():
            encoder = open_folder(folder)
            self.check_encoder(encoder)
            self.check_search(Retriever(encoder).index(self.expected["documents"]))


@pytest.fixture(params=["residual", "features"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Saved:
    # A copy, so that nothing is written to the original.
    folder = shutil.copytree(FOLDERS / request.param, tmp_path / request.param)
    expected = json.loads((folder / "expected.json").read_text())
    return Saved(request.param, folder, expected)


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.get("adapter", config).update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def adapter_folder(saved: Saved, folder: Path) -> Path:
    """Write the adapter alone, as version 1 did."""
    folder.mkdir()
    config = json.loads((saved.folder / "config.json").read_text())["adapter"]
    (folder / "config.json").write_text(json.dumps({"model_type": "rrra_adapter", **config}))
    weights = load_file(saved.folder / "model.safetensors")
    of_adapter = {
        name.removeprefix("adapter."): value for name, value in weights.items() if "adapter." in name
    }
    save_file(of_adapter, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("opener", OPENERS)
def test_a_model_gives_the_embeddings_and_hits_that_it_gave(saved: Saved, opener: str) -> None:
    encoder = OPENERS[opener](saved.folder)
    saved.check_encoder(encoder)
    retriever = Retriever(encoder).index(saved.expected["documents"])
    assert isinstance(retriever.adapter.reader, READERS[saved.reader])
    saved.check_search(retriever)


def test_the_adapter_alone_opens_from_either_folder(saved: Saved, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved.folder)
    for folder in (saved.folder, adapter_folder(saved, tmp_path / "adapter")):
        adapter = RetrieverAdapter.from_pretrained(folder)
        assert isinstance(adapter.reader, READERS[saved.reader])
        assert adapter.config == model.adapter.config
        assert adapter.state_dict().keys() == model.adapter.state_dict().keys()
        for name, value in model.adapter.state_dict().items():
            assert torch.equal(adapter.state_dict()[name].to(value.dtype), value), name
        assert np.ptp(adapter.state_dict()["query_map.weight"].numpy()) > 0


def test_a_retriever_opens_with_its_index(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDERS / "features", tmp_path / "features")
    expected = json.loads((folder / "expected.json").read_text())
    saved = Saved("features", folder, expected)
    retriever = Retriever.from_pretrained(folder)
    assert len(retriever.documents) == len(expected["documents"])
    saved.check_search(retriever)

    retriever.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again/index/evidence.safetensors").exists()
    again = Retriever.from_pretrained(tmp_path / "again")
    assert len(again.documents) == len(expected["documents"])
    saved.check_search(again)
    retriever.save_pretrained(folder)
    assert not (folder / "index/evidence.safetensors").exists()
    saved.check_search(Retriever.from_pretrained(folder))


@pytest.mark.parametrize("opener", OPENERS)
def test_a_model_that_is_saved_again_is_of_format_version_3(
    saved: Saved, opener: str, tmp_path: Path
) -> None:
    encoder = OPENERS[opener](saved.folder)
    again = tmp_path / "again"
    RRRAModel.from_sentence_transformer(encoder).save_pretrained(again)
    config = json.loads((again / "config.json").read_text())["adapter"]
    assert config["format_version"] == 3
    assert config["reader"]["kind"] == saved.reader
    assert not config.keys() & {"evidence", "hidden_size", "num_classes", "scoring", "dropout", "linear_skip"}
    names = {name for name in load_file(again / "model.safetensors") if name.startswith("adapter.")}
    model = RRRAModel.from_pretrained(again)
    assert names == {f"adapter.{name}" for name in model.adapter.state_dict()}
    saved.check_everything(again)


def test_an_encoder_that_is_saved_again_by_sentence_transformers_opens(saved: Saved, tmp_path: Path) -> None:
    SentenceTransformer(str(saved.folder), device="cpu").save_pretrained(str(tmp_path / "again"))
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["adapter"]["format_version"] == 3
    saved.check_everything(tmp_path / "again")


def test_a_folder_that_is_saved_over_opens(saved: Saved) -> None:
    RRRAModel.from_pretrained(saved.folder).save_pretrained(saved.folder)
    saved.check_everything(saved.folder)


def test_an_adapter_that_is_saved_again_opens(saved: Saved, tmp_path: Path) -> None:
    folder = adapter_folder(saved, tmp_path / "adapter")
    adapter = RetrieverAdapter.from_pretrained(folder)
    adapter.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["format_version"] == 3
    again = RetrieverAdapter.from_pretrained(folder)
    assert again.config == adapter.config
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_what_can_not_be_read_any_more_is_refused_by_name(
    saved: Saved, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = adapter_folder(saved, tmp_path / "adapter")
    edit_config(folder, **changes)
    edit_config(saved.folder, **changes)
    for path in (folder, saved.folder):
        with pytest.raises(ValueError, match=rf"config\.json of .*{path.name} can't be used: .*{message}"):
            RetrieverAdapter.from_pretrained(path)
    for open_model in (RRRAModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match=message):
            open_model(saved.folder)


@pytest.mark.parametrize(
    ("values", "reader"),
    [
        ({"hidden_size": 8, "dropout": 0.1, "scoring": "product"}, {"hidden_size": 8, "scoring": "product"}),
        ({"num_classes": 4, "evidence": None, "linear_skip": False}, {"num_classes": 4}),
    ],
)
def test_settings_of_a_residual_adapter_of_version_1_are_understood(
    values: dict[str, object], reader: dict[str, object]
) -> None:
    expected = AdapterConfig(embedding_dim=8, lambda_=0.5, reader={"kind": "residual", **reader})
    assert AdapterConfig.from_dict({"embedding_dim": 8, "lambda_": 0.5, **values}) == expected


def test_settings_of_an_adapter_of_features_of_version_1_are_understood() -> None:
    sizes = {"names": ["mapped"], "queries": 3, "documents": 2, "pairs": 3}
    values = {"embedding_dim": 8, "hidden_size": 384, "linear_skip": False, "evidence": sizes}
    expected = AdapterConfig(embedding_dim=8, reader={"kind": "features_v2", **sizes})
    assert AdapterConfig.from_dict(values) == expected
    text_config = {"model_type": "bert", "hidden_size": 8}
    assert RRRAConfig(text_config=text_config, adapter=values).adapter == expected.to_dict()


def test_settings_of_an_adapter_of_features_of_version_2_are_understood() -> None:
    sizes = {"names": ["mapped"], "queries": 3, "documents": 2, "pairs": 3}
    values = {"embedding_dim": 8, "format_version": 2, "reader": {"kind": "features", **sizes}}
    expected = AdapterConfig(embedding_dim=8, reader={"kind": "features_v2", **sizes})
    assert AdapterConfig.from_dict(values) == expected
    assert AdapterConfig.from_dict(expected.to_dict()) == expected
