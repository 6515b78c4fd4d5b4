"""What hub knows of a model by its files alone is what the model classes say."""

from __future__ import annotations

from pathlib import Path

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
    reader = {"kind": "features", "names": ["mapped", "hubness"], "queries": 3, "documents": 2, "pairs": 4}
    config = AdapterConfig(embedding_dim=4, reader=reader, document_map=True, query_map=True, lambda_=0.25)
    RetrieverAdapter(config).save_pretrained(tmp_path)
    saved = read_saved(tmp_path)
    assert (saved.kind, saved.maps, saved.features) == ("adapter", "both sides", ["mapped", "hubness"])
    assert saved.remembers and not saved.reads_words
    assert saved.adapter is not None and saved.adapter["lambda_"] == 0.25
    assert (saved.base_model, saved.trained, saved.documents) == (None, None, None)
