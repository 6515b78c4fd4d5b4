"""Every loader opens a model whose adapter reads features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.data import Collection


def test_every_loader_opens_a_model_that_reads_features(
    feature_model: RRRAModel, feature_collection: Collection, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    feature_model.save_pretrained(folder)
    for name in ("reader", "reader_v2", "residual", "features", "memory", "heads"):
        assert (folder / f"{name}_rrra.py").exists()
    expected = feature_model.to_sentence_transformer()
    texts = feature_collection.document_texts[:5]
    loaded = RRRAModel.from_pretrained(folder).eval(), AutoModel.from_pretrained(folder).eval()
    encoders = [
        *(m.to_sentence_transformer() for m in loaded),
        SentenceTransformer(str(folder), device="cpu"),
    ]
    for encoder in encoders:
        assert_allclose(encoder.encode_query(texts), expected.encode_query(texts), atol=1e-5)
        assert_allclose(encoder.encode_document(texts), expected.encode_document(texts), atol=1e-5)
    for other in (*loaded, encoders[-1][0].model):
        assert isinstance(other, RRRAModel)
        for name, value in feature_model.adapter.state_dict().items():
            assert torch.equal(other.adapter.state_dict()[name].to(value.dtype), value), name
    adapter = RetrieverAdapter.from_pretrained(folder)
    # JSON makes lists of tuples, which the record of fitting has.
    assert replace(adapter.config, fit={}) == replace(feature_model.adapter.config, fit={})
