"""A retriever as a similarity function and as a cross-encoder, for evaluators of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import util
from torch import Tensor

from ..candidates import DEPTH
from ..models.adapter_rrra import RetrieverAdapter
from ..models.modeling_rrra import RRRAModel
from ..retrieval import Retriever
from ..retrieval.indexing import reads_word_pieces

# Pairs of query and document that the adapter reads at a time.
PAIRS = 2048


def reranking_similarity(retriever: Retriever, depth: int = DEPTH) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a similarity function that scores embeddings as a dense `Retriever.search` does.

    Pass it to `RerankingEvaluator` as `similarity_fct`, or to `InformationRetrievalEvaluator` in
    `score_functions`, and call the evaluator with `retriever.encoder`. For each query, the `depth` documents
    with the highest cosines get their reranking scores. All others follow in the order of their cosines.

    `InformationRetrievalEvaluator` reranks `depth` documents per corpus chunk. To measure what a search would
    find, set its `corpus_chunk_size` to at least the size of the corpus.

    The function gets embeddings only: documents are neither found by words nor reranked by them. To measure a
    hybrid search, use `rrra_hf.retrieval.evaluate`.

    Args:
        retriever: A retriever with an adapter. It needs no index.
        depth: Number of documents to rerank per query.

    Returns:
        A function that takes query embeddings, `(n, dim)` or `(dim,)`, and document embeddings, `(m, dim)`,
        as returned by the encoder, and returns scores, `(n, m)`.

    Raises:
        ValueError: If the retriever has no adapter, or one of an earlier version that needs word pieces, or
            `depth` is less than 1.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])])
        >>> retriever = Retriever(encoder)
        >>> queries, documents = encoder.encode_query(["sort"]), encoder.encode_document(["copy", "sort"])
        >>> scores = reranking_similarity(retriever)(torch.tensor(queries), torch.tensor(documents))
        >>> scores.argmax(dim=1)
        tensor([1])
    """
    if retriever.adapter is None:
        raise ValueError("retriever must have an adapter, this one has none.")
    if reads_word_pieces(retriever.adapter):
        raise ValueError(
            "retriever must have an adapter that can do without words, this one needs word pieces; use "
            "rrra_hf.retrieval.evaluate or RRRACrossEncoder."
        )
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")

    @torch.no_grad()
    def similarity(queries: Tensor, documents: Tensor) -> Tensor:
        adapter = retriever.adapter
        assert adapter is not None
        queries = torch.atleast_2d(queries)
        # The embeddings of an RRRAModel are mapped already.
        if not isinstance(getattr(retriever.encoder[0], "model", None), RRRAModel):
            queries, documents = adapter.map_queries(queries), adapter.map_documents(documents)
        cosines = util.cos_sim(queries, documents)
        rows = cosines.argsort(dim=1, descending=True, stable=True)[:, :depth]
        found = cosines.gather(1, rows)
        scores = _reranking_scores(adapter, queries, documents, rows, found)
        below = scores.min(dim=1, keepdim=True).values - 1 + cosines - found[:, -1:]
        return below.scatter(1, rows, scores)

    return similarity


def _reranking_scores(
    adapter: RetrieverAdapter, queries: Tensor, documents: Tensor, rows: Tensor, cosines: Tensor
) -> Tensor:
    step = max(1, PAIRS // rows.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(rows), step)]
    adapter.eval()
    scores = [adapter.rerank(queries[b], documents[rows[b]], cosines[b]) for b in blocks]
    return torch.cat(scores).to(cosines)


class RRRACrossEncoder:
    """Wraps a retriever as a `CrossEncoder` for evaluators and `mine_hard_negatives`.

    It has the methods of `CrossEncoder` that these call. To rank documents, call `Retriever.rank`, which has
    the signature of `CrossEncoder.rank`.

    The adapter compares a query's documents with each other. So scores of pairs are those of a ranking of all
    documents that are given with the query.

    Args:
        retriever: A retriever. It needs no index.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> retriever = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> RRRACrossEncoder(retriever).predict([("sort", "copy"), ("sort", "sort")]).argmax()
        np.int64(1)
    """

    def __init__(self, retriever: Retriever):
        self.retriever = retriever

    @property
    def model_card_data(self) -> Any:
        """The model card data of the encoder, where evaluators store their results."""
        return self.retriever.encoder.model_card_data

    def predict(
        self,
        inputs: Sequence[Sequence[str]],
        prompt_name: str | None = None,
        batch_size: int = 64,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        pool: object = None,
    ) -> np.ndarray | Tensor | list[float]:
        """Return reranking scores for pairs of query and document.

        Args:
            inputs: Pairs of query and document.
            prompt_name: Must be None. The encoder uses its own prompts.
            batch_size: Encoder batch size.
            show_progress_bar: Ignored.
            convert_to_numpy: Return an array. If neither this nor `convert_to_tensor` is set, return a list.
            convert_to_tensor: Return a tensor.
            pool: Must be None. Multi-process pools are not supported.

        Returns:
            Scores, one per pair, `(n,)`.

        Raises:
            ValueError: If an input isn't a pair, a text is empty, or `prompt_name` or `pool` is given.
        """
        for name, value in (("prompt_name", prompt_name), ("pool", pool)):
            if value is not None:
                raise ValueError(f"{name} must be None, got {value!r}.")
        positions: dict[str, list[int]] = {}
        for position, pair in enumerate(inputs):
            if isinstance(pair, str) or len(pair) != 2:
                raise ValueError(f"inputs must be pairs of query and document, got {pair!r}.")
            positions.setdefault(pair[0], []).append(position)
        scores = np.empty(len(inputs), dtype=np.float32)
        for query, places in positions.items():
            documents = [inputs[place][1] for place in places]
            for ranked in self.retriever.rank(query, documents, batch_size=batch_size):
                scores[places[ranked["corpus_id"]]] = ranked["score"]
        if convert_to_tensor:
            return torch.from_numpy(scores)
        return scores if convert_to_numpy else scores.tolist()
