"""LangChain classes: a retriever, and a compressor that reranks the documents of another retriever."""

from __future__ import annotations

from collections.abc import Sequence

from ..candidates import DEPTH
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
    """Searches the index of a retriever.

    Documents have the id and text that were indexed. Their metadata has a `relevance_score`, a `title`, if
    the document has one, and a `probability`, if the retriever has an adapter.

    Args:
        retriever: A retriever with an index.
        top_k: Number of documents to return.
        depth: Number of documents to rerank, at least `top_k`.

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
    depth: int = Field(default=DEPTH, ge=1)

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
