"""Long documents, split into passages that are indexed and found each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from ..candidates.hybrid import merge_ranks
from .documents import SCHEMA

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter

DOCUMENT_ID: Final = "document_id"
START: Final = "start"
# Columns of a table of passages, behind those of documents and before the metadata.
PASSAGE_SCHEMA = pa.schema([*SCHEMA, (DOCUMENT_ID, pa.large_string()), (START, pa.int64())])


def split_documents(documents: pa.Table, encoder: SentenceTransformer, split: int) -> pa.Table:
    """Split documents into passages, at the ends of paragraphs, sentences or words.

    Each passage has the title and the metadata of its document. Its id is that of the document, `#`, and its
    number. White space between passages belongs to none.

    Args:
        documents: The documents, of `document_table`.
        encoder: The encoder, whose tokenizer counts tokens. If it has none of `tokenizers`, words are
            counted.
        split: Maximum number of tokens of a passage's text, without the title.

    Returns:
        The passages, with two more columns: `document_id`, and `start`, the position of the first character
        in the document's text.

    Raises:
        ValueError: If `split` is less than 1, or more tokens than the encoder reads.
        ImportError: If semantic-text-splitter is missing.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from .documents import document_table
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["fish", "sea"])])
        >>> documents = document_table({"d1": "A herring is a fish. It lives in the sea."})
        >>> split_documents(documents, encoder, 5).select(["id", "text", "start"]).to_pylist()[1]
        {'id': 'd1#1', 'text': 'It lives in the sea.', 'start': 21}
    """
    _check_split(split, encoder.max_seq_length)
    splitter = _splitter(encoder, split)
    # A document without text is one passage, for its title.
    passages = [splitter.chunk_indices(text) or [(0, text)] for text in documents["text"].to_pylist()]
    counts = [len(found) for found in passages]
    of_document = documents.take(np.repeat(np.arange(len(counts)), counts))
    names = of_document["id"].to_pylist()
    numbers = [number for count in counts for number in range(count)]
    columns = {name: of_document[name] for name in documents.column_names}
    columns["id"] = [f"{name}#{number}" for name, number in zip(names, numbers, strict=True)]
    columns["text"] = [text for found in passages for _, text in found]
    columns[DOCUMENT_ID] = names
    columns[START] = [start for found in passages for start, _ in found]
    metadata = [field for field in documents.schema if field.name not in SCHEMA.names]
    return pa.table(columns, schema=pa.schema([*PASSAGE_SCHEMA, *metadata]))


def _check_split(split: int, longest: float | None) -> None:
    if split < 1:
        raise ValueError(f"split must be at least 1, got {split}.")
    if longest is not None and split > longest:
        raise ValueError(
            f"split must be at most {longest}, the number of tokens that the encoder reads, got {split}."
        )


def _splitter(encoder: SentenceTransformer, split: int) -> TextSplitter:
    try:
        from semantic_text_splitter import TextSplitter
    except ImportError as error:
        raise ImportError("Splitting needs a package: pip install 'rrra-hf[split]'") from error
    tokenizer = getattr(encoder[0], "tokenizer", None)
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        return TextSplitter.from_callback(lambda text: len(text.split()), split)
    # A copy, which doesn't truncate what it counts.
    whole = Tokenizer.from_str(tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    return TextSplitter.from_huggingface_tokenizer(whole, split)


def are_passages_of(passages: pa.Table, documents: pa.Table) -> bool:
    """Return whether passages are all of these documents and of no others.

    Args:
        passages: The passages, of `split_documents`.
        documents: The documents, of `document_table`.
    """
    return _without_space(passages, DOCUMENT_ID) == _without_space(documents, "id")


def _without_space(table: pa.Table, name: str) -> dict[tuple[str, str], str]:
    """Return the texts by document and title, without white space, which belongs to no passage."""
    texts: dict[tuple[str, str], list[str]] = {}
    for row in table.select([name, "title", "text"]).to_pylist():
        texts.setdefault((row[name], row["title"]), []).extend(row["text"].split())
    return {document: "".join(words) for document, words in texts.items()}


def rank_documents(passages: np.ndarray, document_of: np.ndarray) -> np.ndarray:
    """Return rankings of documents by their best passages.

    Args:
        passages: Rows of passages, best first, `(n, k)`; -1 where there is none.
        document_of: Number of the document of each passage, `(m,)`.

    Returns:
        Numbers of documents, `(n, k)`, each once per line; -1 at the end.

    Example:
        >>> rank_documents(np.array([[3, 2, 0, 1]]), np.array([0, 0, 1, 1])).tolist()
        [[1, 0, -1, -1]]
    """
    documents = np.where(passages >= 0, document_of[passages], -1)
    return merge_ranks(documents, documents[:, :0], documents.shape[1])
