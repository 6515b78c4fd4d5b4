"""A search model for MTEB 2: `mteb.evaluate(RRRASearchModel(retriever), tasks)`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..candidates import DEPTH
from ..hub.citations import CITATIONS
from ..retrieval import Retriever
from ..retrieval.opening import inner_model
from .hits import rank_texts

try:
    from mteb.models.model_meta import ModelMeta
except ImportError as error:
    raise ImportError("This module needs mteb: pip install 'rrra-hf[mteb]'") from error

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata

logger = logging.getLogger(__name__)


class RRRASearchModel:
    """Evaluates a retriever on MTEB's retrieval and reranking tasks.

    It implements MTEB's `SearchProtocol`. The corpus of each task replaces the index of the retriever. MTEB
    sorts by score and breaks ties by id. To keep the ranking of the retriever, scores are lowered where
    needed, see `descending`. Documents without text are left out.

    MTEB stores metadata of the model with the results: sizes, prompts, base model and citation, and under
    `experiment_kwargs` whether and how deep it reranks, so that results of different settings don't replace
    each other. What the encoder was trained on isn't known, so `training_datasets` is None. The adapter that
    comes trained was taught by training queries of SciFact, among others.

    Args:
        retriever: A retriever. It needs no index.
        name: Name of the model in MTEB's results, `organization/name`.
        revision: Revision of the model in MTEB's results.
        rerank: Search by words too, and rerank with the adapter, if there is one. Set it to False to evaluate
            the encoder alone.
        depth: Number of documents to rerank per query in retrieval tasks. Reranking tasks come with the
            documents to rerank.

    Attributes:
        mteb_model_meta: The metadata. To add to it, assign `mteb_model_meta.model_copy(update={...})`.

    Raises:
        ValueError: If the name has no `/`.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> retriever = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> model = RRRASearchModel(retriever, "me/mine")
        >>> model.mteb_model_meta.name, model.mteb_model_meta.embed_dim
        ('me/mine', 2)
    """

    def __init__(
        self,
        retriever: Retriever,
        name: str | None = None,
        revision: str | None = None,
        *,
        rerank: bool = True,
        depth: int = DEPTH,
    ):
        self.retriever = retriever
        self.rerank = rerank
        self.depth = depth
        filled = {"name": name, "revision": revision, **_known(retriever)}
        filled["experiment_kwargs"] = {"rerank": rerank, "depth": depth}
        known = {key: value for key, value in filled.items() if value is not None}
        self.mteb_model_meta = ModelMeta.model_validate({**ModelMeta.create_empty().model_dump(), **known})
        self._corpus: Dataset | None = None

    def index(
        self,
        corpus: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: dict[str, Any],
        num_proc: int | None = None,
        **_: Any,
    ) -> None:
        """Set the corpus of a task. It is encoded by the first search over all of it.

        Args:
            corpus: Dataset with columns `id`, `text` and optionally `title`.
            task_metadata: Ignored.
            hf_split: Ignored.
            hf_subset: Ignored.
            encode_kwargs: Ignored.
            num_proc: Ignored.

        Raises:
            ValueError: If the corpus has no texts.
        """
        if "text" not in corpus.column_names:
            raise ValueError(f"corpus must have the columns id and text, got {corpus.column_names}.")
        written = [row for row, text in enumerate(_document_texts(corpus)) if text]
        if len(written) < len(corpus):
            logger.warning("%d documents have no text and are left out.", len(corpus) - len(written))
        self._corpus = corpus.select(written)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: dict[str, Any],
        top_ranked: dict[str, list[str]] | None = None,
        num_proc: int | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Search the corpus, or rank the given documents, for each query.

        Args:
            queries: Dataset with columns `id`, `text` and optionally `instruction`.
            task_metadata: Ignored.
            hf_split: Ignored.
            hf_subset: Ignored.
            top_k: Number of documents per query.
            encode_kwargs: `batch_size` and `show_progress_bar`; others are ignored.
            top_ranked: Ids of the documents to rank per query, in reranking tasks.
            num_proc: Ignored.

        Returns:
            Document ids and scores per query id, best first.

        Raises:
            ValueError: If no corpus is set, a query isn't a string (for example a conversation), or the
                encoder returns NaN.
        """
        if self._corpus is None:
            raise ValueError("There is no corpus yet: call index(corpus, ...) first.")
        texts = dict(zip(queries["id"], _query_texts(queries), strict=True))
        options = {name: encode_kwargs[name] for name in _ENCODE_OPTIONS if name in encode_kwargs}
        if top_ranked is not None:
            return self._rank(texts, top_ranked, top_k)
        self.retriever.index(self._corpus, **options)
        found = self.retriever.search(texts, top_k=top_k, rerank=self.rerank, depth=self.depth, **options)
        return {
            query_id: descending((hit["corpus_id"], hit["score"]) for hit in hits)
            for query_id, hits in found.items()
        }

    def _rank(
        self, queries: dict[str, str], candidates: dict[str, list[str]], top_k: int
    ) -> dict[str, dict[str, float]]:
        """Rank the candidates of each query."""
        assert self._corpus is not None
        text_of = dict(zip(self._corpus["id"], _document_texts(self._corpus), strict=True))
        results = {}
        for query_id, query in queries.items():
            ids = [name for name in candidates.get(query_id, []) if name in text_of]
            texts = [text_of[name] for name in ids]
            ranked = self._rank_one(query, texts, top_k) if texts else []
            results[query_id] = descending((ids[position], score) for position, score in ranked)
        return results

    def _rank_one(self, query: str, texts: list[str], top_k: int) -> list[tuple[int, float]]:
        if self.rerank:
            return rank_texts(self.retriever, query, texts, top_k)
        found = self.retriever.index(texts, show_progress_bar=False).search(query, top_k=top_k, rerank=False)[
            0
        ]
        return [(int(hit["corpus_id"]), hit["score"]) for hit in found]


_ENCODE_OPTIONS = ("batch_size", "show_progress_bar")


def _known(retriever: Retriever) -> dict[str, Any]:
    """Return the fields of the metadata that can be told from a retriever, None for those that can't."""
    encoder, own = retriever.encoder, inner_model(retriever.encoder)
    beside = [] if own or not retriever.adapter else retriever.adapter.parameters()
    parameters = [*encoder.parameters(), *beside]
    transformer = getattr(encoder[0], "model", None)
    tokens = None if transformer is None else transformer.get_input_embeddings().weight.numel()
    return {
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "n_embedding_parameters": tokens,
        "memory_usage_mb": sum(parameter.nbytes for parameter in parameters) / 2**20,
        "max_tokens": encoder.max_seq_length,
        "embed_dim": encoder.get_embedding_dimension(),
        "similarity_fn_name": "cosine",
        "framework": ["Sentence Transformers", "PyTorch"],
        "use_instructions": any(encoder.prompts.values()),
        "adapted_from": own.config.base_model_name if own else encoder.model_card_data.base_model,
        "citation": CITATIONS["rrra"],
    }


def descending(hits: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Lower scores where needed, so that each is less than the one before.

    Sorting by score would change the ranking of the retriever in two cases: documents below the reranking
    depth have cosines as scores, and scores can be equal.

    Args:
        hits: Document ids and scores, best first.

    Example:
        >>> scores = descending([("a", -3.0), ("b", 0.9), ("c", -7.0)])
        >>> scores["a"] > scores["b"] > scores["c"] == -7.0
        True
    """
    lowered = {}
    limit = np.float32(np.inf)
    for document_id, score in hits:
        # trec_eval compares scores as float32.
        value = min(np.float32(score), limit)
        lowered[document_id] = float(value)
        limit = np.nextafter(value, np.float32(-np.inf))
    return lowered


def _document_texts(corpus: Dataset) -> list[str]:
    titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
    return [f"{title or ''} {text}".strip() for title, text in zip(titles, corpus["text"], strict=True)]


def _query_texts(queries: Dataset) -> list[str]:
    """Return the queries with their instructions appended, as MTEB passes them to encoders."""
    texts = list(queries["text"])
    if "instruction" not in queries.column_names:
        return texts
    return [
        f"{text} {instruction}" if instruction else text
        for text, instruction in zip(texts, queries["instruction"], strict=True)
    ]
