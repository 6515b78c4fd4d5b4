"""Haystack components: a retriever, and a ranker for the documents of another retriever.

Both take the name of a folder or Hub repository, so that a pipeline can be saved. To load a saved pipeline,
allow this package: `Pipeline.loads(text, allowed_modules=["rrra_hf.*"])`. What is saved holds no token: set
HF_TOKEN for private repositories.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from typing_extensions import Self

from ..candidates import DEPTH
from ..retrieval import Retriever
from .hits import find, rank_texts

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise ImportError("This module needs haystack-ai: pip install 'rrra-hf[haystack]'") from error


class _LoadedOnce:
    """Loads the retriever at first use, and is saved by its name."""

    model: str
    options: dict[str, Any] | None

    @cached_property
    def retriever(self) -> Retriever:
        """The retriever."""
        return Retriever.from_pretrained(self.model, **(self.options or {}))

    def warm_up(self) -> None:
        """Load the retriever, unless it is loaded already."""
        _ = self.retriever

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component that `to_dict` described."""
        return default_from_dict(cls, data)

    def _saved_options(self) -> dict[str, Any] | None:
        if isinstance((self.options or {}).get("token"), str):
            raise ValueError("options must not hold a token when a pipeline is saved; set HF_TOKEN instead.")
        return self.options


@component
class RRRARetriever(_LoadedOnce):
    """Searches the index of a saved retriever.

    Documents have the id, the text and the metadata that were indexed, and a score. To their `meta` come a
    `title`, if the document has one, and a `probability`, if the retriever has an adapter.

    Args:
        model: Folder or Hub repository of a retriever saved with its index.
        top_k: Number of documents to return.
        depth: Number of documents to rerank, at least `top_k`.
        options: Arguments of `Retriever.from_pretrained`, such as `device` or `revision`.

    Example:
        >>> retriever = RRRARetriever("my/retriever", top_k=3, options={"device": "cpu"})
        >>> retriever.warm_up()  # doctest: +SKIP
        >>> retriever.run(query="how to copy files")  # doctest: +SKIP
        {'documents': [Document(id=cp, content: 'copy files', meta: {'probability': 0.93}, score: 15.1)]}
    """

    def __init__(
        self, model: str, top_k: int = 10, depth: int = DEPTH, options: dict[str, Any] | None = None
    ) -> None:
        self.model = model
        self.top_k = top_k
        self.depth = depth
        self.options = options

    def to_dict(self) -> dict[str, Any]:
        """Return the component's type and arguments.

        Raises:
            ValueError: If the options hold a token, which would be saved as it is.
        """
        return default_to_dict(
            self, model=self.model, top_k=self.top_k, depth=self.depth, options=self._saved_options()
        )

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filter: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Find the best documents for a query.

        Args:
            query: The query.
            top_k: Number of documents to return, by default that of the component.
            filter: Metadata of the documents to search among, see `Retriever.search`; all by default.

        Raises:
            OSError: If the model doesn't exist.
            ValueError: If the retriever has no index, the query is empty or a number is less than 1.
        """
        found = find(self.retriever, query, self.top_k if top_k is None else top_k, self.depth, filter)
        return {
            "documents": [
                Document(id=hit.id, content=hit.text, meta=hit.metadata, score=hit.score) for hit in found
            ]
        }


@component
class RRRARanker(_LoadedOnce):
    """Reranks documents and keeps the best. Documents without content are left out.

    Args:
        model: Folder or Hub repository of a retriever. It needs no index.
        top_k: Number of documents to keep.
        options: Arguments of `Retriever.from_pretrained`, such as `device` or `revision`.

    Example:
        >>> ranker = RRRARanker("my/retriever", top_k=3)
        >>> ranker.run(query="how to copy files", documents=documents)  # doctest: +SKIP
    """

    def __init__(self, model: str, top_k: int = 10, options: dict[str, Any] | None = None) -> None:
        self.model = model
        self.top_k = top_k
        self.options = options

    def to_dict(self) -> dict[str, Any]:
        """Return the component's type and arguments.

        Raises:
            ValueError: If the options hold a token, which would be saved as it is.
        """
        return default_to_dict(self, model=self.model, top_k=self.top_k, options=self._saved_options())

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Sort documents by reranking score.

        Args:
            query: The query.
            documents: The documents.
            top_k: Number of documents to keep, by default that of the component.

        Raises:
            OSError: If the model doesn't exist.
            ValueError: If the query is empty or `top_k` is less than 1.
        """
        contents = [document.content for document in documents]
        ranked = rank_texts(self.retriever, query, contents, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[position], score=score) for position, score in ranked]}
