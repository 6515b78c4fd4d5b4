"""Changing the documents of an indexed corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from sentence_transformers import SentenceTransformer

from ..candidates import DocumentFeatures
from ..embeddings import encode
from ..indexes import Index, WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from .corpus_index import CorpusIndex
from .documents import document_texts, stack_tables
from .indexing import document_features, mapped, reads_word_pieces


def changed(
    corpus: CorpusIndex,
    encoder: SentenceTransformer,
    beside: RetrieverAdapter | None,
    adapter: RetrieverAdapter | None,
    gone: Sequence[str],
    table: pa.Table | None,
    *,
    show_progress_bar: bool | None,
    **options: Any,
) -> CorpusIndex:
    """Return an index without some documents of a corpus and, after the others, with new ones.

    The index of the corpus stays as it is, so that searches may go on in it.

    Args:
        corpus: The indexed corpus.
        encoder: The encoder.
        beside: An adapter that is not the encoder's own, whose map is applied to the embeddings.
        adapter: The adapter, also if it is the encoder's own.
        gone: Ids of the documents that are to go. Unknown ids are ignored.
        table: The new documents, of `document_table`, split if the others are; None if there are none.
        show_progress_bar: Show a progress bar; by default, only on a terminal.
        options: Arguments of `encode`.

    Raises:
        ValueError: If no document would be left, or the encoder gives NaN.
    """
    without = set(gone)
    kept = np.array([name not in without for name in corpus.document_ids])
    rows = np.flatnonzero(kept)
    documents = corpus.documents.filter(pa.array(kept))
    texts = [] if table is None else document_texts(table)
    embeddings = None
    if table is not None:
        documents = stack_tables(documents, table)
        embeddings = mapped(
            encode(encoder, texts, task="document", show_progress_bar=show_progress_bar, **options), beside
        )
    if not documents.num_rows:
        raise ValueError("An index must keep a document; delete the retriever's folder to delete them all.")
    words = None
    if corpus.words is not None:
        words = corpus.words.updated(rows, texts, show_progress_bar=show_progress_bar)
    index = corpus.index.updated(rows, embeddings)
    features = _features(corpus, encoder, adapter, rows, index, words, documents)
    return replace(corpus, index=index, words=words, features=features, documents=documents)


def _features(
    corpus: CorpusIndex,
    encoder: SentenceTransformer,
    adapter: RetrieverAdapter | None,
    rows: np.ndarray,
    index: Index,
    words: WordIndex | None,
    documents: pa.Table,
) -> DocumentFeatures:
    """Return the features of documents, of which the first are computed already."""
    if reads_word_pieces(adapter):
        return document_features(encoder, adapter, index, words, document_texts(documents))
    if adapter is None or not adapter.reader.remembers:
        return document_features(encoder, adapter, index, words, [])
    embeddings = index.reconstruct(np.arange(len(rows), len(index)))
    added = DocumentFeatures.of(adapter.reader, [embeddings], words)
    return DocumentFeatures(np.concatenate([corpus.features.statics[rows], added.statics]), added.words)
