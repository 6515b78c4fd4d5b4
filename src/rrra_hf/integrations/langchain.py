"""LangChain classes: a retriever, a compressor that reranks documents, and embeddings for a vector store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..candidates import DEPTH
from ..retrieval import Retriever
from .embedding import embed_documents, embed_query
from .hits import find, rank_texts

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
    from pydantic import AliasChoices, ConfigDict, Field
except ImportError as error:
    raise ImportError("This module needs langchain-core: pip install 'rrra-hf[langchain]'") from error


class RRRARetriever(BaseRetriever):
    """Searches the index of a retriever.

    Documents have the id, the text and the metadata that were indexed. To the metadata come a
    `relevance_score`, a `title`, if the document has one, and a `probability`, if the retriever has an
    adapter.

    The number of documents and the filter are also arguments of a search, as in `invoke(query, k=3)`. The
    number may be called `k`, as in LangChain, or `top_k`.

    Args:
        retriever: A retriever with an index.
        top_k: Number of documents to return, also called `k`.
        depth: Number of documents to rerank, at least `top_k`.
        filter: Metadata of the documents to search among, see `Retriever.search`; all by default.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> retriever = RRRARetriever(retriever=ours.index({"cp": "copy files", "ls": "list files"}), k=2)
        >>> [document.id for document in retriever.invoke("how to copy")]
        ['cp', 'ls']
        >>> [document.id for document in retriever.invoke("how to copy", k=1)]
        ['cp']
    """

    # An argument that isn't known is refused, not ignored.
    model_config = ConfigDict(extra="forbid")

    retriever: Retriever
    top_k: int = Field(default=10, ge=1, validation_alias=AliasChoices("top_k", "k"))
    depth: int = Field(default=DEPTH, ge=1)
    filter: dict[str, Any] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        if k is not None and top_k is not None:
            raise ValueError(f"k and top_k mean the same; give one of them, got {k} and {top_k}.")
        asked = k if top_k is None else top_k
        number = self.top_k if asked is None else asked
        among = self.filter if filter is None else filter
        return [
            Document(
                id=found.id,
                page_content=found.text,
                metadata={"relevance_score": found.score, **found.metadata},
            )
            for found in find(self.retriever, query, number, self.depth, among)
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **options
        )


class RRRACompressor(BaseDocumentCompressor):
    """Reranks documents and keeps the best.

    Use it alone or in a `ContextualCompressionRetriever`. It returns copies of the documents, with a
    `relevance_score` in their metadata. Documents without text are left out.

    Args:
        retriever: A retriever. It needs no index.
        top_k: Number of documents to keep, None for all.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> documents = [Document("list files"), Document("copy files")]
        >>> compressor = RRRACompressor(retriever=ours, top_k=1)
        >>> [document.page_content for document in compressor.compress_documents(documents, "how to copy")]
        ['copy files']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever
    top_k: int | None = Field(default=10, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Sort documents by reranking score.

        Args:
            documents: The documents.
            query: The query.
            callbacks: Not used.

        Raises:
            ValueError: If the query is empty.
        """
        ranked = rank_texts(
            self.retriever, query, [document.page_content for document in documents], self.top_k
        )
        return [
            documents[position].model_copy(
                update={"metadata": {**documents[position].metadata, "relevance_score": score}}
            )
            for position, score in ranked
        ]


class RRRAEmbeddings(Embeddings):
    """Embeddings for a vector store: those of the retriever, with its prompts and its linear maps.

    A store that holds the encoder's embeddings can be searched with a retriever whose adapter maps queries
    alone (`FitArguments(maps="query")`). If it maps documents, too, fill the store anew.

    Args:
        retriever: A retriever. It needs no index.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> store = InMemoryVectorStore.from_texts(["copy files", "sort files"], RRRAEmbeddings(ours))
        >>> [document.page_content for document in store.similarity_search("how to sort", k=1)]
        ['sort files']
    """

    def __init__(self, retriever: Retriever):
        self.retriever = retriever

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return embeddings of documents, of length 1.

        Args:
            texts: The documents.

        Raises:
            ValueError: If a document isn't a string.
        """
        return embed_documents(self.retriever, texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a query, of length 1.

        Args:
            text: The query.

        Raises:
            ValueError: If the query isn't a string.
        """
        return embed_query(self.retriever, text)
