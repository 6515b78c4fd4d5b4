"""A retriever as Haystack's retriever component, and as a ranker of another retriever's documents.

Both are named by folder or Hub repository, so that a pipeline can be saved. To open a saved pipeline, allow
this package: `Pipeline.loads(text, allowed_modules=["rrra_hf.*"])`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..retrieval import Retriever
from .hits import find, rank_texts

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise ImportError("This module needs haystack-ai: pip install 'rrra-hf[haystack]'") from error


@component
class RRRARetriever:
    """Finds the documents of a saved retriever's index.

    A document has the retriever's id and text, a score, and in its `meta` `title` (if it has one) and
    `probability` (if the retriever has an adapter).

    Args:
        model: Folder or Hub repository of a retriever that was saved with its index.
        top_k: Documents to return.
        depth: Documents to rerank; at least `top_k` are.
        options: Arguments of `Retriever.from_pretrained`, such as `device` or `revision`.

    Example:
        >>> RRRARetriever("my/retriever", top_k=3).to_dict()["init_parameters"]
        {'model': 'my/retriever', 'top_k': 3, 'depth': 100, 'options': None}
    """

    def __init__(
        self, model: str, top_k: int = 10, depth: int = 100, options: dict[str, Any] | None = None
    ) -> None:
        self.model = model
        self.top_k = top_k
        self.depth = depth
        self.options = options
        self._retriever: Retriever | None = None

    def warm_up(self) -> None:
        """Load the model, if that wasn't done."""
        if self._retriever is None:
            self._retriever = Retriever.from_pretrained(self.model, **(self.options or {}))

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """Find the best documents for a query.

        Args:
            query: The query.
            top_k: Documents to return, if not those of the component.

        Raises:
            OSError: If there is no such model.
            ValueError: If it has no index, the query is empty or a number is less than 1.
        """
        self.warm_up()
        assert self._retriever is not None
        found = find(self._retriever, query, self.top_k if top_k is None else top_k, self.depth)
        return {
            "documents": [
                Document(id=hit.id, content=hit.text, meta=hit.metadata, score=hit.score) for hit in found
            ]
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the component as Haystack saves it."""
        return default_to_dict(
            self, model=self.model, top_k=self.top_k, depth=self.depth, options=self.options
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RRRARetriever:
        """Return the component that `to_dict` described."""
        return default_from_dict(cls, data)


@component
class RRRARanker:
    """Reranks documents and keeps the best; documents without content are left out.

    Args:
        model: Folder or Hub repository of a retriever; its index, if it has one, is not used.
        top_k: Documents to keep.
        options: Arguments of `Retriever.from_pretrained`, such as `device` or `revision`.

    Example:
        >>> RRRARanker("my/retriever").to_dict()["init_parameters"]
        {'model': 'my/retriever', 'top_k': 10, 'options': None}
    """

    def __init__(self, model: str, top_k: int = 10, options: dict[str, Any] | None = None) -> None:
        self.model = model
        self.top_k = top_k
        self.options = options
        self._retriever: Retriever | None = None

    def warm_up(self) -> None:
        """Load the model, if that wasn't done."""
        if self._retriever is None:
            self._retriever = Retriever.from_pretrained(self.model, **(self.options or {}))

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the documents in the order of their reranking scores.

        Args:
            query: The query.
            documents: The documents.
            top_k: Documents to keep, if not those of the component.

        Raises:
            OSError: If there is no such model.
            ValueError: If the query is empty or `top_k` is less than 1.
        """
        self.warm_up()
        assert self._retriever is not None
        contents = [document.content for document in documents]
        ranked = rank_texts(self._retriever, query, contents, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[position], score=score) for position, score in ranked]}

    def to_dict(self) -> dict[str, Any]:
        """Return the component as Haystack saves it."""
        return default_to_dict(self, model=self.model, top_k=self.top_k, options=self.options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RRRARanker:
        """Return the component that `to_dict` described."""
        return default_from_dict(cls, data)
