"""The retriever: index a corpus, search it, rerank the results, and save everything in one folder."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, overload

import numpy as np
import pyarrow as pa
from huggingface_hub import CommitInfo
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer

from ..candidates import DEPTH, count_pieces
from ..data.surrogates import check_unicode
from ..embeddings import check_embeddings, encode
from ..embeddings.similarity import check_similarity
from ..hub import push_folder
from ..hub.layout import ADAPTER_FOLDER, INDEX_FOLDER
from ..indexes import WordIndex
from ..indexes.checks import check_ids
from ..indexes.choose import check_kind
from ..indexes.stop_lists import AUTO
from ..models.adapter_rrra import RetrieverAdapter, check_given
from ..models.files_rrra import write_aside
from ..models.modeling_rrra import RRRAModel
from .corpus_index import CorpusIndex, IndexedDocuments
from .documents import Corpus, document_table, document_texts
from .filters import Condition, parse_filter
from .fingerprints import embeddings_fingerprint, memory_fingerprint
from .in_milvus import KIND as MILVUS
from .in_milvus import changed_in_milvus, check_adapter, index_in_milvus
from .indexing import check_document_features, document_features, index_texts, reads_word_pieces
from .milvus_corpus import MilvusCorpus
from .opening import (
    OWNED,
    check_made_by,
    inner_model,
    open_adapter,
    open_encoder,
    open_folder,
    open_index,
)
from .passages import split_documents
from .reranking import search_and_rerank
from .results import Hit, RankedDocument, hits_of
from .searching import MODES, EncodedQueries
from .updating import changed

PRETRAINED: Final = "pretrained"
NOT_LEARNT = (
    "The adapter was never fitted, and knows nothing: fit it (fit_model, `rrra fit`), or take "
    "RetrieverAdapter.pretrained()."
)

logger = logging.getLogger(__name__)


class Retriever:
    """Finds the documents of a corpus that are relevant to a query: search, then reranking.

    Documents are searched by the encoder's embeddings and by words (BM25). The adapter that comes trained
    reranks what both found. It needs no fit, and works with any encoder. You can give another adapter that
    was fitted on the encoder's embeddings. If that has linear maps, the retriever applies them. An
    `RRRAModel`, also one inside a `SentenceTransformer`, brings its own adapter.

    Args:
        encoder: The encoder.
        adapter: `"pretrained"` for the model's own adapter if it is an `RRRAModel`, otherwise the one that
            comes trained; an adapter for an encoder that has none; or None to rerank nothing and search by
            embeddings alone.

    Attributes:
        encoder: The encoder, as a `SentenceTransformer`.

    Raises:
        ValueError: If `adapter` is something else, the encoder has an adapter already, the adapter has
            another dimension than the encoder, or the encoder isn't one for cosines.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> retriever = Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"})
        >>> hits = retriever.search("how do I sort a list", probabilities=True)[0]
        >>> [hit["corpus_id"] for hit in hits], hits[0]["probability"] > hits[1]["probability"]
        (['sorted', 'cp'], True)
        >>> retriever = Retriever(encoder, adapter=None).index({"cp": "copy a file", "sorted": "sort a list"})
        >>> [round(hit["score"], 3) for hit in retriever.search("how do I sort a list")[0]]
        [1.0, 0.0]
    """

    def __init__(
        self,
        encoder: SentenceTransformer | RRRAModel,
        adapter: RetrieverAdapter | Literal["pretrained"] | None = PRETRAINED,
    ):
        self.encoder = encoder.to_sentence_transformer() if isinstance(encoder, RRRAModel) else encoder
        check_similarity(self.encoder)
        self._reranks = adapter is not None
        self._adapter = self._beside(adapter)
        # An index doesn't change: a search ends with the one that it began with. Changes wait for each other.
        self._corpus: CorpusIndex | MilvusCorpus | None = None
        self._changing = Lock()
        if self._reranks and self.adapter is None:
            logger.warning("%s Nothing is reranked.", NOT_LEARNT)

    def _beside(self, adapter: RetrieverAdapter | str | None) -> RetrieverAdapter | None:
        """Return the adapter to use beside the encoder, None if the encoder's own is used or none at all."""
        check_given(adapter)
        own = inner_model(self.encoder) is not None
        dim = self.encoder.get_embedding_dimension()
        if not isinstance(adapter, RetrieverAdapter):
            pretrained = adapter is not None and not own
            return RetrieverAdapter.pretrained(dim).to(self.encoder.device) if pretrained else None
        if own:
            raise ValueError("adapter must not be given with an RRRAModel, which has one; set model.adapter.")
        if None not in (dim, adapter.config.embedding_dim) and dim != adapter.config.embedding_dim:
            raise ValueError(f"adapter must be of dimension {dim}, got {adapter.config.embedding_dim}.")
        return adapter

    @property
    def adapter(self) -> RetrieverAdapter | None:
        """The adapter, None if nothing is reranked, or the adapter was never fitted."""
        model = inner_model(self.encoder)
        adapter = self._adapter if model is None else model.adapter
        return adapter if self._reranks and adapter is not None and adapter.has_learnt else None

    @property
    def documents(self) -> pa.Table:
        """The indexed documents: columns `id`, `title`, `text` and, if any have them, `metadata` (JSON).

        If documents were split, these are passages, with the columns `document_id` and `start`.
        """
        return self.corpus_index.documents

    def document(self, corpus_id: str) -> dict[str, Any]:
        """Return a document's `id`, `title`, `text` and, if any documents have them, `metadata`.

        Args:
            corpus_id: Id of the document, as in a hit.

        Raises:
            KeyError: If there is no document with that id.
            ValueError: If there is no index.
        """
        return self.corpus.document(corpus_id)

    @property
    def has_index(self) -> bool:
        """Whether there are documents to search."""
        return self._corpus is not None

    @property
    def corpus(self) -> CorpusIndex | MilvusCorpus:
        """The documents: in an index of this process, or in Milvus."""
        if self._corpus is None:
            raise ValueError("There is no index yet: call index(corpus) first.")
        return self._corpus

    @property
    def corpus_index(self) -> CorpusIndex:
        """The index, with the documents and the fingerprints of model and corpus.

        Raises:
            ValueError: If there is none, or the documents are in Milvus.
        """
        corpus = self.corpus
        if isinstance(corpus, MilvusCorpus):
            raise ValueError("The documents are in Milvus, and not in this process. Only search them there.")
        return corpus

    # ---------------------------------------------------------------- indexing

    def index(
        self,
        corpus: Corpus,
        cache_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        *,
        kind: str = "auto",
        storage: str = "float32",
        split: int | None = None,
        language: str = "auto",
        show_progress_bar: bool | None = None,
        **milvus: Any,
    ) -> Retriever:
        """Index the embeddings and the words of documents. They replace those that were indexed before.

        Args:
            corpus: A `Collection`; a `datasets.Dataset` with columns `id`, `text` and, if there are any,
                `title` and `metadata`; a dictionary from id to text or to
                `{"title": ..., "text": ..., "metadata": {...}}`; or a list of texts, whose ids are their
                positions, `"0"`, `"1"`, ... Metadata are dictionaries, which `search` filters by.
            cache_dir: Folder of the embedding cache, see `encode`.
            batch_size: Encoder batch size.
            kind: Kind of index of the embeddings, see `make_index`: `"flat"` is exact, `"auto"` is exact up
                to 50,000 documents and approximate beyond. `"milvus"` keeps documents, embeddings and words
                in Milvus, in a file or a cluster.
            storage: How embeddings are kept: `"float32"`, or `"int8"` or `"binary"` in a quarter or less of
                the memory, see `QuantizedIndex`. These search all documents, with `kind` `"auto"` or
                `"flat"`.
            split: Maximum number of tokens of a passage, to split longer documents. Passages are indexed and
                found, each with the title and the metadata of its document. Their ids are that of the
                document, `#`, and a number. By default, a document is one text, of which the encoder reads
                the beginning.
            language: Language of the documents, for stop words and stems, such as `"english"`. `"auto"` looks
                for stop words in them, `"none"` does without.
            show_progress_bar: Show a progress bar; by default, only on a terminal.
            milvus: For `kind="milvus"`, arguments of `MilvusIndex`: `uri` (by default the file
                `documents.db`), `collection_name`, `token` and `index_type`. Documents that are in the same
                collection of Milvus are replaced.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If the corpus is empty or malformed, there is no such kind, storage or language, kind
                and storage don't go together, an argument is for another kind, passages would be longer than
                the encoder reads, Milvus can't hold a document, or the encoder gives NaN.
            ImportError: If `split` is given, and semantic-text-splitter is missing.
        """
        check_kind(kind, storage, MILVUS)
        if milvus and kind != MILVUS:
            raise ValueError(f"{', '.join(milvus)} must be given with kind='milvus' only, got kind={kind!r}.")
        if split is not None and kind == MILVUS:
            raise ValueError(f"split must be None with kind='milvus', got {split}.")
        documents = self._split(document_table(corpus), split)
        options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "batch_size": batch_size,
            "show_progress_bar": show_progress_bar,
        }
        made_by = (*self._fingerprints(), self._reranks)
        if kind == MILVUS:
            model = self.encoder, self._adapter, self.adapter
            self._corpus = index_in_milvus(documents, *model, language, milvus, made_by, **options)
            return self
        indexed = self._indexed(document_texts(documents), kind, language, storage=storage, **options)
        self._corpus = CorpusIndex(
            indexed.index,
            indexed.features,
            indexed.words,
            documents,
            *made_by,
            split=split,
        )
        return self

    def _split(self, documents: pa.Table, split: int | None) -> pa.Table:
        return documents if split is None else split_documents(documents, self.encoder, split)

    def add(
        self,
        documents: Corpus,
        batch_size: int = 64,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        show_progress_bar: bool | None = None,
    ) -> Retriever:
        """Add documents to the index. A search meanwhile finds all of them or none.

        The words and the features of the others follow: searches find the same as if all documents had been
        indexed at once. Statistics of all words are computed anew, so add many documents at a time. Milvus
        gets a thousand documents at a time, and a search meanwhile may find some of them.

        Args:
            documents: As in `index`. A list has no ids; give a dictionary.
            batch_size: Encoder batch size.
            cache_dir: Folder of the embedding cache, see `encode`.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If an id is indexed already, the documents are malformed, the model was changed since
                the corpus was indexed, or there is no index.

        Example:
            >>> from sentence_transformers.sentence_transformer.modules import BoW
            >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
            >>> retriever = Retriever(encoder).index({"cp": "copy a file", "ls": "list a file"})
            >>> retriever = retriever.add({"sorted": "sort a list"}).update({"ls": "list the files"})
            >>> retriever.delete(["cp"]), retriever.documents["id"].to_pylist()
            (1, ['sorted', 'ls'])
        """
        table = document_table(documents)
        with self._changing:
            there = self.corpus.present(table["id"].to_pylist())
            if there:
                raise ValueError(
                    f"documents must have new ids, {len(there)} are indexed, the first is {there[0]!r}; "
                    "update() replaces documents."
                )
            options = {"batch_size": batch_size, "cache_dir": cache_dir}
            self._change([], table, show_progress_bar=show_progress_bar, **options)
        return self

    def update(
        self,
        documents: Corpus,
        batch_size: int = 64,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        show_progress_bar: bool | None = None,
    ) -> Retriever:
        """Replace documents in the index, and add those that aren't there. See `add`.

        Args:
            documents: As in `index`. A list has no ids; give a dictionary.
            batch_size: Encoder batch size.
            cache_dir: Folder of the embedding cache, see `encode`.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

        Returns:
            The retriever itself.

        Raises:
            ValueError: As in `add`, but ids may be indexed already.
        """
        table = document_table(documents)
        with self._changing:
            replaced = table["id"].to_pylist()
            options = {"batch_size": batch_size, "cache_dir": cache_dir}
            self._change(replaced, table, show_progress_bar=show_progress_bar, **options)
        return self

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents from the index. See `add`.

        Args:
            ids: Ids of the documents. Unknown ids are ignored.

        Returns:
            Number of documents deleted.

        Raises:
            ValueError: If an id isn't a string, no document would be left, the model was changed since the
                corpus was indexed, or there is no index.
        """
        with self._changing:
            gone = self.corpus.present(check_ids(ids))
            if gone:
                self._change(gone, None, show_progress_bar=False)
            return len(gone)

    def _change(self, gone: Sequence[str], table: pa.Table | None, **options: Any) -> None:
        """Put an index without some documents and with others in the place of the index."""
        corpus = self.corpus
        self._check_unchanged(corpus)
        model = self.encoder, self._adapter, self.adapter
        if isinstance(corpus, MilvusCorpus):
            changed_in_milvus(corpus, *model, gone, table, **options)
        else:
            table = None if table is None else self._split(table, corpus.split)
            self._corpus = changed(corpus, *model, gone, table, **options)

    def _indexed(self, texts: list[str], kind: str, language: str, **options: Any) -> IndexedDocuments:
        return index_texts(texts, self.encoder, self._adapter, self.adapter, kind, language, **options)

    # ---------------------------------------------------------------- searching

    def map_queries(self, query_embeddings: np.ndarray) -> np.ndarray:
        """Apply the linear map of the adapter to query embeddings, if the encoder hasn't done so.

        Args:
            query_embeddings: Embeddings from the encoder, `(n, dim)`.

        Returns:
            The embeddings to search with, `(n, dim)`.
        """
        if self._adapter is None or self._adapter.query_map is None:
            return query_embeddings
        return self._adapter.map_queries(query_embeddings)

    def map_documents(self, document_embeddings: np.ndarray) -> np.ndarray:
        """Apply the linear map of the adapter to document embeddings, if the encoder hasn't done so.

        Args:
            document_embeddings: Embeddings from the encoder, `(n, dim)`.

        Returns:
            The embeddings to search among, `(n, dim)`.
        """
        if self._adapter is None or self._adapter.document_map is None:
            return document_embeddings
        return self._adapter.map_documents(document_embeddings)

    def prepare_queries(
        self, embeddings: np.ndarray, texts: Sequence[str] | None, documents: IndexedDocuments
    ) -> EncodedQueries:
        """Return queries as they are searched with.

        Args:
            embeddings: Embeddings from the encoder, `(n, dim)`.
            texts: The queries, `n`; None to search and rerank without words.
            documents: The documents to search.
        """
        return EncodedQueries(self.map_queries(embeddings), self._count_words(texts, documents.words))

    def _count_words(self, texts: Sequence[str] | None, words: WordIndex | None) -> csr_array | None:
        if texts is None:
            return None
        if reads_word_pieces(self.adapter):
            return count_pieces(self.encoder, texts)
        return None if words is None else words.count(texts)

    def is_hybrid(self, mode: str | None = None, rerank: bool = True, with_texts: bool = True) -> bool:
        """Return whether a search finds documents by words too.

        Args:
            mode: As in `search`.
            rerank: As in `search`.
            with_texts: Whether the queries' texts are given.

        Raises:
            ValueError: If there is no such mode, or it is `"hybrid"` and there are no words.
        """
        if mode not in (None, *MODES):
            raise ValueError(f"mode must be one of {', '.join(MODES)} or None, got {mode!r}.")
        corpus = self.corpus
        if mode == "hybrid":
            if not corpus.has_words or reads_word_pieces(self.adapter):
                raise ValueError(
                    "mode must be 'dense' or None, got 'hybrid': index or adapter are of an earlier version, "
                    "which has no words to search by. Index the corpus again, with another adapter."
                )
            if not with_texts:
                raise ValueError("mode must be 'dense' or None without query_texts, got 'hybrid'.")
            return True
        return mode is None and rerank and with_texts and self._reads_words_of(corpus)

    def _reads_words_of(self, documents: IndexedDocuments | MilvusCorpus) -> bool:
        return documents.has_words and self.adapter is not None and self.adapter.reads_words

    @overload
    def search(
        self,
        queries: str | Sequence[str],
        top_k: int = ...,
        rerank: bool = ...,
        depth: int = ...,
        *,
        mode: str | None = ...,
        filter: Mapping[str, Any] | Condition | None = ...,
        probabilities: bool = ...,
        return_documents: bool = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
    ) -> list[list[Hit]]: ...

    @overload
    def search(
        self,
        queries: Mapping[str, str],
        top_k: int = ...,
        rerank: bool = ...,
        depth: int = ...,
        *,
        mode: str | None = ...,
        filter: Mapping[str, Any] | Condition | None = ...,
        probabilities: bool = ...,
        return_documents: bool = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
    ) -> dict[str, list[Hit]]: ...

    def search(
        self,
        queries: str | Sequence[str] | Mapping[str, str],
        top_k: int = 10,
        rerank: bool = True,
        depth: int = DEPTH,
        *,
        mode: str | None = None,
        filter: Mapping[str, Any] | Condition | None = None,
        probabilities: bool = False,
        return_documents: bool = False,
        batch_size: int = 64,
        show_progress_bar: bool | None = None,
    ) -> list[list[Hit]] | dict[str, list[Hit]]:
        """Find the best documents for each query.

        In a hybrid search, `depth` candidates are found by embeddings and by words, half of them by each if
        none is found by both. In a dense search, they are the documents with the highest cosines. The
        candidates are sorted by their reranking scores, equal scores in the order of the search. Below them
        follow the other documents with the highest cosines.

        Args:
            queries: A query, a list of queries, or a dictionary from id to query.
            top_k: Number of documents to return per query; all if the corpus has fewer.
            rerank: Rerank with the adapter, if there is one.
            depth: Number of documents to rerank per query. The score of hits below it is their cosine.
            mode: `"hybrid"` or `"dense"`. By default, hybrid if an adapter that reads words reranks, and the
                index has words. A hybrid search that isn't reranked merges both rankings by reciprocal rank
                fusion, and scores are the fused ones.
            filter: Search only documents with these metadata, `{"lang": "en", "year": {"$gte": 2020}}`, see
                `parse_filter`. Candidates that it leaves have the scores and probabilities that they have
                without it.
            probabilities: Add the probability that it is relevant to each hit. It is estimated among the
                candidates of the query, and is the same with and without `rerank`.
            return_documents: Add `title`, `text` and, if any documents have them, `metadata` to each hit.
            batch_size: Encoder batch size.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

        Returns:
            A list of hits, best first, per query, in the format of `semantic_search` of
            sentence-transformers. For one query, this is a list with one list of hits. For a dictionary of
            queries, it is a dictionary from id to hits.

        Raises:
            ValueError: If there is no index, a query is empty, isn't a string or has a lone surrogate, a
                number is less than 1, `mode` is unknown or needs words and the index has none, the filter
                isn't legal, `probabilities` is given without an adapter, or the encoder gives NaN.
        """
        self._check_search(top_k, depth, probabilities)
        self.is_hybrid(mode, rerank)  # raises for an illegal mode, before the queries are encoded
        filter = None if filter is None else parse_filter(filter)
        if isinstance(queries, Mapping):
            names: Iterable[object] = queries.keys()
            texts = list(queries.values())
        else:
            texts = [queries] if isinstance(queries, str) else list(queries)
            names = range(len(texts))
        _check_queries(texts, names)
        hits: list[list[Hit]] = []
        if texts:
            embeddings = encode(
                self.encoder,
                texts,
                task="query",
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
            )
            hits = self.search_embeddings(
                embeddings,
                top_k,
                rerank,
                depth,
                mode=mode,
                filter=filter,
                probabilities=probabilities,
                return_documents=return_documents,
                query_texts=texts,
            )
        return dict(zip(queries, hits, strict=True)) if isinstance(queries, Mapping) else hits

    def search_embeddings(
        self,
        query_embeddings: np.ndarray,
        top_k: int = 10,
        rerank: bool = True,
        depth: int = DEPTH,
        *,
        mode: str | None = None,
        filter: Mapping[str, Any] | Condition | None = None,
        probabilities: bool = False,
        return_documents: bool = False,
        query_texts: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """Find the best documents for each query, given the queries' embeddings.

        Args:
            query_embeddings: Embeddings from `encode(retriever.encoder, queries, task="query")`, of any
                length, `(n, dim)`.
            top_k: As in `search`, as are the others.
            rerank: Rerank with the adapter, if there is one.
            depth: Number of documents to rerank per query.
            mode: `"hybrid"` or `"dense"`.
            filter: Search only documents with these metadata.
            probabilities: Add the probability that it is relevant to each hit.
            return_documents: Add `title`, `text` and `metadata` to each hit.
            query_texts: The queries, `n`. Without them, words are neither searched nor read.

        Returns:
            A list of hits, best first, per query.

        Raises:
            ValueError: As in `search`, and if the embeddings have a wrong shape or are not finite, or
                `query_texts` are needed and not given.
        """
        self._check_search(top_k, depth, probabilities)
        fused, hybrid = (self.is_hybrid(mode, reranks, query_texts is not None) for reranks in (rerank, True))
        corpus = self.corpus
        embeddings = check_embeddings(query_embeddings, "query_embeddings", corpus.dim)
        if query_texts is not None and len(query_texts) != len(embeddings):
            raise ValueError(
                f"query_texts must be of the {len(embeddings)} queries, got {len(query_texts)} texts."
            )
        condition = None if filter is None else parse_filter(filter)
        hits: list[list[Hit]] = []
        for start in range(0, len(embeddings), corpus.block_size):
            block = slice(start, start + corpus.block_size)
            texts = None if query_texts is None else query_texts[block]
            documents, allowed = self.searchable(
                corpus,
                embeddings[block],
                texts,
                max(top_k, depth),
                condition,
                by_words=hybrid or fused,
                with_texts=return_documents,
            )
            if not (len(documents) if allowed is None else len(allowed)):
                hits += [[] for _ in embeddings[block]]
                continue
            queries = self.prepare_queries(embeddings[block], texts, documents)
            ranked = search_and_rerank(
                self.adapter,
                documents,
                queries,
                top_k,
                depth,
                reranks=rerank,
                hybrid=hybrid,
                fused=fused,
                probabilities=probabilities,
                allowed=allowed,
            )
            hits += hits_of(ranked, documents, probabilities, return_documents)
        return hits

    def searchable(
        self,
        corpus: CorpusIndex | MilvusCorpus,
        embeddings: np.ndarray,
        texts: Sequence[str] | None,
        k: int,
        condition: Condition | None = None,
        **options: Any,
    ) -> tuple[CorpusIndex, np.ndarray | None]:
        """Return an index of the documents that some queries can find, for `search_and_rerank`.

        Args:
            corpus: The corpus of this retriever.
            embeddings: The queries' embeddings from the encoder, `(n, dim)`; at most `corpus.block_size`.
            texts: The queries, `n`; None to search without words.
            k: Number of documents to find per query.
            condition: Filter of the documents.
            options: `by_words` and `with_texts` of `MilvusCorpus.part`.

        Returns:
            The index, and the rows in it that may be found, None if all may.
        """
        if isinstance(corpus, CorpusIndex):
            allowed = None if condition is None else corpus.metadata.rows(condition)
            # If a filter leaves all, the candidates needn't be searched for twice.
            return corpus, None if allowed is None or len(allowed) == len(corpus) else allowed
        mapped = self.map_queries(embeddings)
        # An adapter compares allowed documents with those of a search among all.
        ids = [] if condition is None else corpus.part(mapped, texts, k, condition, **options).ids
        part = corpus.part(mapped, texts, k, ids=ids, **options)
        part.features = document_features(self.encoder, self.adapter, part.index, part.words, [])
        allowed = None if condition is None else np.sort([part.row_of[name] for name in ids]).astype(int)
        return part, allowed

    def _check_search(self, top_k: int, depth: int, probabilities: bool) -> None:
        for name, number in (("top_k", top_k), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        self._check_probabilities(probabilities)
        _ = self.corpus  # raises if there is none

    def _check_probabilities(self, probabilities: bool) -> None:
        if probabilities and self.adapter is None:
            why = NOT_LEARNT if self._reranks else "The retriever has none."
            raise ValueError(f"probabilities need an adapter. {why}")

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 64,
        document_embeddings: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> list[RankedDocument]:
        """Rank documents for a query, with the signature of `CrossEncoder.rank`. The index is not used.

        The adapter compares the documents with each other, by embeddings and by words. How rare a word is, is
        counted in them, too. So give all documents of a query at once.

        Args:
            query: The query.
            documents: The documents' texts: a list, an array, a column of a data frame, ...
            top_k: Number of documents to return; all by default.
            return_documents: Return the documents' texts too.
            batch_size: Encoder batch size.
            document_embeddings: Embeddings of the documents from the encoder, `(n, dim)`; by default, the
                documents are encoded here.
            probabilities: Return the probability that it is relevant of each document too.

        Returns:
            `corpus_id` (the position in `documents`), `score` and, if asked for, `text` and `probability` of
            each document, best first.

        Raises:
            ValueError: If the query or a document is empty, isn't a string or has a lone surrogate, `top_k`
                is less than 1, there isn't one embedding per document, or `probabilities` is given without
                an adapter.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1 or None, got {top_k}.")
        self._check_probabilities(probabilities)
        _check_queries([query], [0])
        if not isinstance(documents, str | Mapping):  # which `document_table` refuses or knows
            documents = list(documents)  # of an array or a column of a data frame
        if not documents:
            return []
        texts = document_texts(document_table(documents))
        if document_embeddings is not None:
            document_embeddings = check_embeddings(document_embeddings, "document_embeddings")
            if len(document_embeddings) != len(texts):
                raise ValueError(
                    f"document_embeddings must have one row per document, got {len(document_embeddings)} for "
                    f"{len(texts)} documents."
                )
        given = self._indexed(
            texts,
            "flat",
            self._language,
            batch_size=batch_size,
            show_progress_bar=False,
            embeddings=document_embeddings,
        )
        embedding = encode(self.encoder, [query], task="query", show_progress_bar=False)
        queries = self.prepare_queries(embedding, [query], given)
        hybrid = self._reads_words_of(given)
        found = search_and_rerank(self.adapter, given, queries, len(texts), len(texts), hybrid=hybrid)
        rows, scores, relevant = (values[0, :top_k].tolist() for values in found[:3])
        ranked: list[RankedDocument] = [
            {"corpus_id": row, "score": score} for row, score in zip(rows, scores, strict=True)
        ]
        if probabilities:
            for document, probability in zip(ranked, relevant, strict=True):
                document["probability"] = probability
        if return_documents:
            for document in ranked:
                document["text"] = documents[document["corpus_id"]]
        return ranked

    @property
    def _language(self) -> str:
        """Language of the index, to read given documents as indexed ones."""
        return AUTO if self._corpus is None else self._corpus.language

    # ---------------------------------------------------------------- saving and loading

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, form: str = "full", with_index: bool = True
    ) -> None:
        """Write encoder, adapter and index to a folder, complete or not at all.

        Of documents in Milvus, the folder has the address and the statistics of words, but no token.

        The folder is the encoder's, as `SentenceTransformer` writes it; `RRRAModel` and `AutoModel` open it
        too if the encoder is an `RRRAModel`. It has two subfolders: `adapter/` if the adapter is not the
        encoder's own, and `index/` if a corpus was indexed. A `SentenceTransformer` opened from the folder
        doesn't apply the linear maps of an adapter in `adapter/`; a retriever does. The adapter that comes
        trained is written, too, so that the folder ranks the same with a later version.

        Args:
            directory: The folder; it is made if it doesn't exist. A model and an index in it are replaced.
            form: `"full"`; for an `RRRAModel` also `"lora"`, `"merged"` or `"plain"`, see its
                `save_pretrained`. Other encoders are plain anyhow.
            with_index: Write the index, if there is one.

        Raises:
            NotADirectoryError: If there is a file of that name.
            ValueError: If the encoder was changed after the corpus was indexed, or the retriever can't be
                saved in this form.
        """
        target = Path(directory)
        if target.is_file():
            raise NotADirectoryError(f"directory must be a folder, {target} is a file.")
        corpus = self._corpus if with_index else None
        if corpus is not None:
            self._check_index(corpus, form)
        if form == "plain" and self._adapter is not None and self._adapter.has_maps:
            raise ValueError(
                "form='plain' needs linear maps inside of the model, and these are beside it; save the "
                "retriever, open the folder with RRRAModel.from_pretrained, and save that."
            )
        with write_aside(target, owned=OWNED, keep_others=True) as new:
            self.encoder.save_pretrained(str(new), create_model_card=False)
            if form != "full" and not (form == "plain" and inner_model(self.encoder) is None):
                model = RRRAModel.from_sentence_transformer(self.encoder)
                # As sentence-transformers calls it, which keeps the settings that it wrote.
                model.save_pretrained(new, form=form, safe_serialization=True)
                if form == "plain" and corpus is not None:
                    corpus = replace(corpus, encoder=_fingerprint_of(new))
            if self._adapter is not None:
                self._adapter.save_pretrained(new / ADAPTER_FOLDER)
            if corpus is not None:
                corpus.save(new / INDEX_FOLDER)

    def _fingerprints(self) -> tuple[str, str]:
        """Return the fingerprints of what makes the embeddings, and of the memory that makes features."""
        return embeddings_fingerprint(self.encoder, self._adapter), memory_fingerprint(self.adapter)

    def _check_index(self, corpus: CorpusIndex | MilvusCorpus, form: str) -> None:
        model = inner_model(self.encoder)
        if form in ("merged", "plain") and model is not None and model.config.lora:
            raise ValueError(
                f"with_index can't go with form={form!r}: merged weights make slightly different embeddings. "
                "Save the merged model without an index, load it, and index the corpus with it."
            )
        self._check_unchanged(corpus)

    def _check_unchanged(self, corpus: CorpusIndex | MilvusCorpus) -> None:
        then = f"{corpus.encoder} {corpus.memory}".strip()
        now = " ".join(self._fingerprints()).strip()
        if then != now:
            raise ValueError(
                f"The model was changed after the corpus was indexed (fingerprint {then}, now {now}); "
                "index the corpus again."
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        adapter: RetrieverAdapter | Literal["pretrained"] | None = PRETRAINED,
        **options: Any,
    ) -> Retriever:
        """Load a retriever, or any model that `SentenceTransformer` loads as a retriever without an index.

        Args:
            name_or_path: Folder or Hub repository.
            adapter: `"pretrained"` for the adapter that is saved there, none if the index was saved without
                one, and the one that comes trained if there is neither; an adapter to use instead; or None to
                rerank nothing.
            options: Arguments of `SentenceTransformer`: `device`, `revision`, `token`, `cache_folder`,
                `local_files_only`, `truncate_dim`, ...

        If the documents are in Milvus, its token is read from the environment variable `MILVUS_TOKEN`.

        Raises:
            OSError: If there is no such model.
            ValueError: If the index was made by another model, or a file is missing, damaged or doesn't
                belong to the others; the message names it. A download with other contents than the Hub
                declares is removed from the cache. Also if a repository has an approximate index, see
                `ApproximateIndex.load`: download it to a folder and open that if you trust its author.
        """
        name = os.fspath(name_or_path)
        encoder = open_encoder(name, options)
        folder = open_folder(name, options)
        model = inner_model(encoder)
        saved = open_adapter(folder, encoder) if model is None else None
        corpus = None
        if (folder / INDEX_FOLDER).is_dir():
            own = saved if model is None else model.adapter
            corpus = open_index(folder / INDEX_FOLDER, encoder, saved, own)
        if adapter == PRETRAINED and corpus is not None and not corpus.adapter:
            adapter = None
        elif adapter == PRETRAINED and model is None and saved is not None:
            adapter = saved
        retriever = cls(encoder, adapter)
        if corpus is not None:
            retriever._adopt(corpus, folder / INDEX_FOLDER)
        return retriever

    def _adopt(self, corpus: CorpusIndex | MilvusCorpus, directory: Path) -> None:
        """Search an index that was read from a folder, if it fits."""
        encoder, memory = self._fingerprints()
        check_made_by(directory, corpus.encoder, encoder)
        if isinstance(corpus, MilvusCorpus):
            check_adapter(self.adapter)
        elif memory != corpus.memory or not memory:
            texts = document_texts(corpus.documents) if reads_word_pieces(self.adapter) else []
            corpus.features = document_features(self.encoder, self.adapter, corpus.index, corpus.words, texts)
        elif self.adapter is not None:
            check_document_features(corpus.features, self.adapter, corpus.index.dim, directory)
            if self.adapter.reads_words:
                corpus.features = replace(corpus.features, words=corpus.words)
        corpus.memory, corpus.adapter = memory, self._reranks
        self._corpus = corpus

    def push_to_hub(
        self,
        repo_id: str,
        *,
        form: str = "full",
        with_index: bool = False,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Upload retriever",
    ) -> CommitInfo:
        """Upload the folder that `save_pretrained` writes, with a model card, in one commit.

        If the upload breaks off, call it again: files that arrived are not sent again.

        Args:
            repo_id: `namespace/name`; the repository is made if it doesn't exist.
            form: As in `save_pretrained`.
            with_index: Upload the index too. It holds the documents' texts: mind who may read them.
            private: Make a new repository private, and refuse one that is public.
            revision: Branch to commit to; it is made from `main` if it doesn't exist.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Commit message.

        Returns:
            URL of the commit, a string with the attributes `oid` and `pr_url`.

        Raises:
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off. Nothing was committed then.
            FileNotFoundError: If `with_index` is given and there is no index.
            ValueError: If the retriever can't be saved, or not in this form, the index is in Milvus, or
                `private` is given and the repository is public.
        """
        if with_index and isinstance(self._corpus, MilvusCorpus):
            raise ValueError("with_index must be False for documents in Milvus, which stay where they are.")
        with tempfile.TemporaryDirectory() as temporary:
            self.save_pretrained(temporary, form=form, with_index=with_index)
            return push_folder(
                temporary,
                repo_id,
                with_index=with_index,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                commit_message=commit_message,
            )


def _fingerprint_of(folder: Path) -> str:
    """Return the fingerprint of a plain model, in which an index finds the same embeddings."""
    return embeddings_fingerprint(SentenceTransformer(str(folder), device="cpu"), None)


def _check_queries(texts: list[str], names: Iterable[object]) -> None:
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"queries must be strings, got {type(text).__name__} for query {name!r}.")
        if not text.strip():
            raise ValueError(f"queries must not be empty, query {name!r} is.")
    check_unicode("query", texts, names)
