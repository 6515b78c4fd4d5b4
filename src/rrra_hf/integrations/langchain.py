"""A retriever as LangChain's retriever, and as a compressor that reranks another retriever's documents."""

from __future__ import annotations

from collections.abc import Sequence

from ..retrieval import Retriever
from .hits import find, rank_texts

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field
except ImportError as error:
    raise ImportError("This module needs langchain-core: pip install 'rrra-hf[langchain]'") from error


class RRRARetriever(BaseRetriever):
    """Finds the documents of the retriever's index.

    A document has the retriever's id and text, and in its metadata `relevance_score`, `title` (if it has one)
    and `probability` (if the retriever has an adapter).

    Args:
        retriever: A retriever with an index.
        top_k: Documents to return.
        depth: Documents to rerank; at least `top_k` are.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> retriever = RRRARetriever(retriever=ours.index({"cp": "copy files", "ls": "list files"}), top_k=1)
        >>> [document.id for document in retriever.invoke("how to copy")]
        ['cp']
    """

    retriever: Retriever
    top_k: int = Field(default=10, ge=1)
    depth: int = Field(default=100, ge=1)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [
            Document(
                id=found.id,
                page_content=found.text,
                metadata={"relevance_score": found.score, **found.metadata},
            )
            for found in find(self.retriever, query, self.top_k, self.depth)
        ]


class RRRACompressor(BaseDocumentCompressor):
    """Reranks documents and keeps the best.

    For `ContextualCompressionRetriever`, or alone. Each document is returned as a copy with `relevance_score`
    in its metadata; documents without text are left out.

    Args:
        retriever: The retriever; its index is not used.
        top_k: Documents to keep, None for all.

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
        """Return the documents in the order of their reranking scores.

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
