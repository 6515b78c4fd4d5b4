"""What hub knows of a model by its files alone is what the model classes say."""

from __future__ import annotations

import json
from pathlib import Path

from retriever_models import make_reader_of_words
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAConfig
from rrra_hf.hub.layout import MODULES_NAME
from rrra_hf.hub.saved import ADAPTER_DEFAULTS, KINDS, MODEL_DEFAULTS, RESIDUAL_DEFAULTS, read_saved
from rrra_hf.models import layout_rrra
from rrra_hf.models.adapter_rrra import MODEL_TYPE


def test_names_and_defaults_are_those_of_the_model_classes() -> None:
    assert {RRRAConfig.model_type: "model", MODEL_TYPE: "adapter"} == KINDS
    assert MODULES_NAME == layout_rrra.MODULES_NAME
    model = RRRAConfig(text_config={"model_type": "bert"})
    assert {name: getattr(model, name) for name in MODEL_DEFAULTS} == MODEL_DEFAULTS
    adapter = AdapterConfig(embedding_dim=4)
    assert {name: getattr(adapter, name) for name in ADAPTER_DEFAULTS} == ADAPTER_DEFAULTS
    reader = RetrieverAdapter(AdapterConfig(embedding_dim=4, reader={"kind": "residual"})).reader
    assert {"kind": "residual", **reader.settings()}.items() >= RESIDUAL_DEFAULTS.items()


def test_an_adapter_is_read_as_it_was_saved(tmp_path: Path) -> None:
    reader = {"kind": "features", "ranking": ["cosine", "hubness"], "queries": 3, "documents": 2, "pairs": 4}
    config = AdapterConfig(embedding_dim=4, reader=reader, document_map=True, query_map=True, lambda_=0.25)
    RetrieverAdapter(config).save_pretrained(tmp_path)
    saved = read_saved(tmp_path)
    assert (saved.kind, saved.maps, saved.features) == ("adapter", "both sides", ["cosine", "hubness"])
    assert saved.remembers and not saved.reads_word_pieces
    assert saved.adapter is not None and saved.adapter["lambda_"] == 0.25
    assert (saved.base_model, saved.trained, saved.documents) == (None, None, None)


def test_an_adapter_of_format_version_2_is_read_as_what_it_is_called_now(tmp_path: Path) -> None:
    make_reader_of_words(4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["format_version"], config["reader"]["kind"] = 2, "features"
    path.write_text(json.dumps(config))
    saved = read_saved(tmp_path)
    assert saved.reader["kind"] == RetrieverAdapter.from_pretrained(tmp_path).config.reader["kind"]
    assert (saved.features, saved.reads_word_pieces, saved.comes_trained) == (["words"], True, False)


def test_the_adapter_that_comes_trained_is_of_any_dimension(tmp_path: Path) -> None:
    RetrieverAdapter.pretrained().save_pretrained(tmp_path)
    saved = read_saved(tmp_path)
    assert saved.comes_trained and not saved.remembers
    assert saved.adapter is not None and saved.adapter["embedding_dim"] is None
