"""Fingerprints of what an index was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from torch import Tensor

from ..embeddings import encoder_fingerprint
from ..embeddings.fingerprint import LENGTH
from ..models.adapter_rrra import RetrieverAdapter


def embeddings_fingerprint(encoder: SentenceTransformer, beside: RetrieverAdapter | None) -> str:
    """Return a fingerprint of everything that decides the embeddings of an index.

    Args:
        encoder: The encoder, with its own maps if it is an `RRRAModel`.
        beside: An adapter that is not the encoder's own.
    """
    return _digest(encoder_fingerprint(encoder), _document_map(beside))


def memory_fingerprint(adapter: RetrieverAdapter | None) -> str:
    """Return a fingerprint of the memory that decides the features of documents, empty if there is none."""
    memory = _memory(adapter)
    return _digest("", memory) if any(weight.numel() for weight in memory) else ""


def version_3_fingerprint(
    encoder: SentenceTransformer, beside: RetrieverAdapter | None, adapter: RetrieverAdapter | None
) -> str:
    """Return the fingerprint of an index of format version 3 or before, of embeddings and memory together.

    Args:
        encoder: The encoder.
        beside: An adapter that is not the encoder's own.
        adapter: The adapter, also if it is the encoder's own.
    """
    return _digest(encoder_fingerprint(encoder), [*_document_map(beside), *_memory(adapter)])


def _document_map(beside: RetrieverAdapter | None) -> list[Tensor]:
    return [] if beside is None or beside.document_map is None else [beside.document_map.weight]


def _memory(adapter: RetrieverAdapter | None) -> list[Tensor]:
    buffers = [] if adapter is None else adapter.reader.named_buffers()
    return [weight for name, weight in buffers if name.startswith("memory.")]


def _digest(start: str, weights: Sequence[Tensor]) -> str:
    if not weights:
        return start
    digest = hashlib.sha256(start.encode())
    for weight in weights:
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:LENGTH]
