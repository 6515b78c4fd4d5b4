"""LlamaIndex classes: a retriever, a postprocessor that reranks nodes, and embeddings for a vector store."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

from ..candidates import DEPTH
from ..retrieval import Retriever
from .embedding import embed_documents, embed_query
from .hits import find, rank_texts

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ImportError("This module needs llama-index-core: pip install 'rrra-hf[llama-index]'") from error


class RRRARetriever(BaseRetriever):
    """Searches the index of a retriever and returns nodes.

    Nodes have the id, the text and the metadata that were indexed. To the metadata come a `title`, if the
    document has one, and a `probability`, if the retriever has an adapter. Language models and embedding
    models don't see the probability.

    Args:
        retriever: A retriever with an index.
        top_k: Number of nodes to return.
        depth: Number of documents to rerank, at least `top_k`.
        filter: Metadata of the documents to search among, see `Retriever.search`; all by default.
        options: Arguments of LlamaIndex's `BaseRetriever`.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> retriever = RRRARetriever(ours.index({"cp": "copy files", "ls": "list files"}), top_k=1)
        >>> [node.node_id for node in retriever.retrieve("how to copy")]
        ['cp']
    """

    def __init__(
        self,
        retriever: Retriever,
        top_k: int = 10,
        depth: int = DEPTH,
        filter: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.retriever = retriever
        self.top_k = top_k
        self.depth = depth
        self.filter = filter

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hidden = ["probability"]
        found = find(self.retriever, query_bundle.query_str, self.top_k, self.depth, self.filter)
        return [
            NodeWithScore(
                node=TextNode(
                    id_=hit.id,
                    text=hit.text,
                    metadata=hit.metadata,
                    excluded_embed_metadata_keys=hidden,
                    excluded_llm_metadata_keys=hidden,
                ),
                score=hit.score,
            )
            for hit in found
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await to_thread(self._retrieve, query_bundle)


class RRRARerank(BaseNodePostprocessor):
    """Reranks nodes and keeps the best. Nodes without text are left out.

    It reads the text that LlamaIndex would pass to an embedding model, including metadata.

    Args:
        retriever: A retriever. It needs no index.
        top_n: Number of nodes to keep.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("list files", "copy files")]
        >>> best = RRRARerank(ours, top_n=1).postprocess_nodes(nodes, query_str="how to copy")
        >>> [node.text for node in best]
        ['copy files']
    """

    top_n: int = Field(default=10, ge=1, description="Number of nodes to keep.")
    _retriever: Retriever = PrivateAttr()

    def __init__(self, retriever: Retriever, top_n: int = 10, **options: Any):
        super().__init__(top_n=top_n, **options)
        self._retriever = retriever

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serialises."""
        return "RRRARerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("query_bundle or query_str must be given, got neither.")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = rank_texts(self._retriever, query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[position].node, score=score) for position, score in ranked]


class RRRAEmbedding(BaseEmbedding):
    """Embeddings for a vector store: those of the retriever, with its prompts and its linear maps.

    A store that holds the encoder's embeddings can be searched with a retriever whose adapter maps queries
    alone (`FitArguments(maps="query")`). If it maps documents, too, fill the store anew.

    Args:
        retriever: A retriever. It needs no index.
        embed_batch_size: Number of documents to embed at a time.
        options: Arguments of LlamaIndex's `BaseEmbedding`.

    Example:
        >>> from llama_index.core import VectorStoreIndex
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> ours = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> nodes = [TextNode(text="copy files"), TextNode(text="sort files")]
        >>> index = VectorStoreIndex(nodes, embed_model=RRRAEmbedding(ours))
        >>> [node.text for node in index.as_retriever(similarity_top_k=1).retrieve("how to sort")]
        ['sort files']
    """

    _retriever: Retriever = PrivateAttr()

    def __init__(self, retriever: Retriever, embed_batch_size: int = 512, **options: Any):
        super().__init__(embed_batch_size=embed_batch_size, **options)
        self._retriever = retriever

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serialises."""
        return "RRRAEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed_query(self._retriever, query)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return embed_documents(self._retriever, texts)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await to_thread(self._get_query_embedding, query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]
