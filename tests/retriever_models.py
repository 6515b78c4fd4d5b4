"""A small retriever whose adapter disagrees with its encoder, and a corpus."""

from __future__ import annotations

from pathlib import Path

import torch

from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.retrieval import Retriever

CORPUS = {
    "cp": {"title": "copy", "text": "copy files to the new folder"},
    "ls": {"title": "list", "text": "list files in a folder"},
    "find": {"title": "find", "text": "find a file"},
    "sort": {"title": "sort", "text": "sort the lines of a text"},
    "mv": "old files in the new folder",
    "grep": "find a line of text in files",
}
QUERY = "how do i copy files"
RESIDUAL = {"kind": "residual", "hidden_size": 8}


def make_adapter(seed: int = 0, dim: int = 32, **config: object) -> RetrieverAdapter:
    """Return a residual adapter with random weights, which disagrees with the retriever."""
    torch.manual_seed(seed)
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=dim, reader=RESIDUAL, **config))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter.eval()


def make_retriever(tiny_bert: Path) -> Retriever:
    """Return a retriever of an `RRRAModel`, without an index."""
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL, "lambda_": 0.5})
    model.adapter.load_state_dict(make_adapter().state_dict())
    return Retriever(model)


def make_reader_of_words(dim: int) -> RetrieverAdapter:
    """Return an adapter of format version 2, which can't read embeddings alone."""
    sizes = {"names": ["words"], "queries": 1, "documents": 1, "pairs": 1, "vocabulary": 4}
    reader = {"kind": "features_v2", **sizes}
    return RetrieverAdapter(AdapterConfig(embedding_dim=dim, reader=reader, lambda_=0.5)).eval()
