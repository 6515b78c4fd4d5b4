"""A ranker for the `rerankers` package.

Importing this module also registers it for `Reranker(folder, model_type="RRRARanker")`.
"""

from __future__ import annotations

from typing import Any

from ..retrieval import Retriever
from .hits import rank_texts

try:
    from rerankers.documents import Document
    from rerankers.models import AVAILABLE_RANKERS
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs
except ImportError as error:
    raise ImportError("This module needs rerankers: pip install 'rrra-hf[rerankers]'") from error


class RRRARanker(BaseRanker):
    """Ranks documents by reranking score. Documents without text are left out.

    Args:
        model: A retriever, or the folder or Hub repository of one. It needs no index.
        verbose: Ignored.
        options: Arguments of `Retriever.from_pretrained`, such as `device` or `revision`.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> retriever = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> ranked = RRRARanker(retriever).rank("how to copy", ["list files", "copy files"], doc_ids=[7, 8])
        >>> [result.doc_id for result in ranked]
        [8, 7]
    """

    def __init__(self, model: str | Retriever, verbose: int = 1, **options: Any):
        self.retriever = (
            model if isinstance(model, Retriever) else Retriever.from_pretrained(model, **options)
        )

    def score(self, query: str, doc: str) -> float:
        """Return the reranking score of one document.

        The adapter that comes trained compares a query's documents, and says little of one alone: call
        `rank`.

        Raises:
            ValueError: If the query or the document is empty.
        """
        return self.retriever.rank(query, [doc])[0]["score"]

    def rank(
        self,
        query: str,
        docs: str | Document | list[str] | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """Rank documents for a query.

        Args:
            query: The query.
            docs: One or several texts or documents.
            doc_ids: Ids of the documents, by default their positions.
            metadata: Metadata of the documents.

        Raises:
            ValueError: If the query is empty.
        """
        documents = prep_docs(docs, doc_ids, metadata) if docs else []
        ranked = rank_texts(self.retriever, query, [document.text for document in documents])
        results = [
            Result(document=documents[position], score=score, rank=rank)
            for rank, (position, score) in enumerate(ranked, start=1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)


AVAILABLE_RANKERS["RRRARanker"] = RRRARanker
