"""Indexing documents in Milvus, and changing them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from sentence_transformers import SentenceTransformer

from ..embeddings import encode
from ..indexes import MilvusIndex
from ..indexes.language import language_of
from ..indexes.milvus import check_storable
from ..indexes.stop_lists import AUTO, check_language
from ..models.adapter_rrra import RetrieverAdapter
from .documents import document_texts
from .indexing import mapped, reads_word_pieces
from .milvus_corpus import MilvusCorpus

KIND = "milvus"


def index_in_milvus(
    documents: pa.Table,
    encoder: SentenceTransformer,
    beside: RetrieverAdapter | None,
    adapter: RetrieverAdapter | None,
    language: str,
    place: dict[str, Any],
    made_by: tuple[str, str, bool],
    **options: Any,
) -> MilvusCorpus:
    """Store the documents of a corpus in Milvus, instead of those that are in the same collection of it.

    Args:
        documents: The documents, of `document_table`.
        encoder: The encoder.
        beside: An adapter that is not the encoder's own, whose map is applied to the embeddings.
        adapter: The adapter, also if it is the encoder's own.
        language: Language of the words, see `WordIndex.of`.
        place: Arguments of `MilvusIndex`.
        made_by: The last arguments of `MilvusCorpus`.
        options: Arguments of `encode`.

    Raises:
        ValueError: If Milvus can't hold a document, the adapter needs word pieces, or the encoder gives NaN.
    """
    check_language(language)
    check_adapter(adapter)
    _check_storable(documents)
    texts = document_texts(documents)
    # Connect before all are encoded, which takes longer.
    first = encode(encoder, texts[:1], task="document", show_progress_bar=False)
    stored = MilvusIndex(first.shape[1], **place)
    embeddings = mapped(encode(encoder, texts, task="document", **options), beside)
    language = language_of(texts) if language == AUTO else language
    return MilvusCorpus.of(stored, documents, embeddings, language, made_by)


def changed_in_milvus(
    corpus: MilvusCorpus,
    encoder: SentenceTransformer,
    beside: RetrieverAdapter | None,
    adapter: RetrieverAdapter | None,
    gone: Sequence[str],
    table: pa.Table | None,
    **options: Any,
) -> None:
    """Delete, add and replace documents. The arguments are those of `changed`.

    Args:
        corpus: The corpus, which is changed where it is.
        encoder: The encoder.
        beside: An adapter that is not the encoder's own, whose map is applied to the embeddings.
        adapter: The adapter, also if it is the encoder's own.
        gone: Ids of the documents that are to go, or to be replaced.
        table: The new documents, of `document_table`; None if there are none.
        options: Arguments of `encode`.
    """
    if table is None:
        corpus.delete(gone)
    else:
        texts = document_texts(table)
        _check_storable(table)
        corpus.put(table, mapped(encode(encoder, texts, task="document", **options), beside))


def check_adapter(adapter: RetrieverAdapter | None) -> None:
    """Refuse an adapter that reads what Milvus doesn't hold.

    Raises:
        ValueError: If the adapter needs word pieces.
    """
    if reads_word_pieces(adapter):
        raise ValueError("adapter must be of this version with Milvus: earlier ones read word pieces.")


def _check_storable(documents: pa.Table) -> None:
    columns = documents.to_pydict()
    check_storable(columns.pop("id"), columns)
