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
from ..retrieval import RankedDocument, Retriever
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
    """Stands in for a `CrossEncoder`: the same arguments, results and errors, and the scores of a retriever.

    The adapter compares a query's documents with each other. So scores of pairs are those of a ranking of all
    documents that are given with the query. Unlike a `CrossEncoder`, it refuses texts that are empty.

    Args:
        retriever: A retriever. It needs no index.

    Attributes:
        num_labels: Number of scores per pair, 1.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> retriever = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> model = RRRACrossEncoder(retriever)
        >>> model.predict([("sort", "copy"), ("sort", "sort")]).argmax()
        np.int64(1)
        >>> [document["text"] for document in model.rank("sort", ["copy", "sort"], return_documents=True)]
        ['sort', 'copy']
    """

    num_labels = 1

    def __init__(self, retriever: Retriever):
        self.retriever = retriever

    @property
    def model_card_data(self) -> Any:
        """The model card data of the encoder, where evaluators store their results."""
        return self.retriever.encoder.model_card_data

    def predict(
        self,
        inputs: Sequence[Sequence[str]] | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Tensor], Tensor] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | list[str] | None = None,
        pool: object = None,
        chunk_size: int | None = None,
    ) -> np.ndarray | Tensor | list[Tensor]:
        """Return reranking scores for pairs of query and document.

        Args:
            inputs: Pairs of query and document, or one pair.
            prompt_name: Must be None. The encoder uses its own prompts.
            prompt: Must be None, likewise.
            batch_size: Encoder batch size.
            show_progress_bar: Ignored.
            activation_fn: Function of the scores, none by default.
            apply_softmax: Ignored, as by a `CrossEncoder` with one label.
            convert_to_numpy: Return an array. If neither this nor `convert_to_tensor` is set, return a list
                of tensors.
            convert_to_tensor: Return a tensor.
            device: Must be None. The retriever stays on its device.
            pool: Must be None. Multi-process pools are not supported.
            chunk_size: Ignored, as by a `CrossEncoder` without a pool.

        Returns:
            Scores, one per pair, `(n,)`. For one pair, one score.

        Raises:
            ValueError: If an input isn't a pair of strings, a text is empty, `batch_size` is less than 1, or
                something is given that must be None.
        """
        refused = {"prompt_name": prompt_name, "prompt": prompt, "device": device, "pool": pool}
        for name, value in refused.items():
            if value is not None:
                raise ValueError(f"{name} must be None, got {value!r}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size}.")
        single = isinstance(inputs, str) or (len(inputs) > 0 and isinstance(inputs[0], str))
        scores = self._scores([inputs] if single else list(inputs), batch_size)
        if activation_fn is not None:
            scores = activation_fn(scores)
        found = scores if convert_to_tensor else scores.numpy() if convert_to_numpy else list(scores)
        return found[0] if single else found

    def _scores(self, pairs: Sequence[Any], batch_size: int) -> Tensor:
        positions: dict[str, list[int]] = {}
        for position, pair in enumerate(pairs):
            if isinstance(pair, str) or not isinstance(pair, Sequence | np.ndarray) or len(pair) != 2:
                raise ValueError(f"inputs must be pairs of query and document, got {pair!r}.")
            positions.setdefault(pair[0], []).append(position)
        scores = torch.empty(len(pairs))
        for query, places in positions.items():
            documents = [pairs[place][1] for place in places]
            for ranked in self.retriever.rank(query, documents, batch_size=batch_size):
                scores[places[ranked["corpus_id"]]] = ranked["score"]
        return scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Tensor], Tensor] | None = None,
        device: str | list[str] | None = None,
        pool: object = None,
        chunk_size: int | None = None,
    ) -> list[RankedDocument]:
        """Rank documents for a query.

        Args:
            query: The query.
            documents: The documents.
            top_k: Number of documents to return; all by default.
            return_documents: Return the documents' texts too.
            prompt_name: As in `predict`, as are the others.
            prompt: Must be None.
            batch_size: Encoder batch size.
            show_progress_bar: Ignored.
            activation_fn: Function of the scores, none by default.
            device: Must be None.
            pool: Must be None.
            chunk_size: Ignored.

        Returns:
            `corpus_id` (the position in `documents`), `score` and, with `return_documents`, `text` of each
            document, best first.

        Raises:
            ValueError: As in `predict`.
        """
        scores = self.predict(
            [(query, document) for document in documents],
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            activation_fn=activation_fn,
            convert_to_tensor=True,
            device=device,
            pool=pool,
        )
        order = torch.as_tensor(scores).argsort(descending=True, stable=True).tolist()
        ranked: list[RankedDocument] = [
            {"corpus_id": position, "score": float(scores[position])} for position in order[:top_k]
        ]
        if return_documents:
            for document in ranked:
                document["text"] = documents[document["corpus_id"]]
        return ranked
