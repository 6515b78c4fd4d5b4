"""The retriever: index a corpus, search it, rerank what was found, save it all in one folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from huggingface_hub import CommitInfo, snapshot_download
from huggingface_hub.errors import DryRunError
from safetensors import SafetensorError
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer

from ..candidates import DocumentFeatures, count_words
from ..embeddings import check_embeddings, encode, encoder_fingerprint, texts_fingerprint
from ..indexes import Index, make_index
from ..indexes.choose import check_kind
from ..models.adapter_rrra import CONFIG_NAME, WEIGHTS_NAME, RetrieverAdapter
from ..models.download_rrra import check_downloads, named_connection_errors
from ..models.files_rrra import write_aside
from ..models.modeling_rrra import RRRAModel
from .corpus_index import FILE_NAMES, CorpusIndex
from .documents import Corpus, document_table, document_texts
from .reranking import relevance, rerank
from .results import Hit, RankedDocument

INDEX_FOLDER = "index"
ADAPTER_FOLDER = "adapter"
# What an earlier model and its index may have left in a folder that a retriever is saved to.
OWNED = [
    "model*.safetensors*",
    *(f"{ADAPTER_FOLDER}/{name}" for name in (CONFIG_NAME, WEIGHTS_NAME)),
    *(f"{INDEX_FOLDER}/{name}" for name in FILE_NAMES),
]
# Embeddings handled at a time: they may be memory-mapped, and a matrix of candidates goes with each.
BLOCK_SIZE = 4096


class Retriever:
    """Finds the documents of a corpus that are relevant to a query: search by cosine, then reranking.

    With an `RRRAModel`, also one inside a `SentenceTransformer`, the adapter is the model's. Any other
    `SentenceTransformer` can be given an adapter that was fitted on its embeddings; if that holds linear
    maps of a frozen stage 1, the retriever applies them. Without an adapter, nothing is reranked.

    Args:
        encoder: The encoder.
        adapter: An adapter for an encoder that has none.

    Attributes:
        encoder: The encoder, as a `SentenceTransformer`.

    Raises:
        ValueError: If both have an adapter, or the adapter is of another dimension than the encoder.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> retriever = Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"})
        >>> hits = retriever.search("how do I sort a list")[0]
        >>> [(hit["corpus_id"], round(hit["score"], 3)) for hit in hits]
        [('sorted', 1.0), ('cp', 0.0)]
    """

    def __init__(self, encoder: SentenceTransformer | RRRAModel, adapter: RetrieverAdapter | None = None):
        self.encoder = encoder.to_sentence_transformer() if isinstance(encoder, RRRAModel) else encoder
        self._adapter = adapter
        self._corpus: CorpusIndex | None = None
        if adapter is None:
            return
        if _inner_model(self.encoder) is not None:
            raise ValueError("adapter must not be given with an RRRAModel, which has one; set model.adapter.")
        dim = self.encoder.get_embedding_dimension()
        if dim is not None and dim != adapter.config.embedding_dim:
            raise ValueError(f"adapter must be of dimension {dim}, got {adapter.config.embedding_dim}.")

    @property
    def adapter(self) -> RetrieverAdapter | None:
        """The adapter that reranks, None if there is none."""
        model = _inner_model(self.encoder)
        return self._adapter if model is None else model.adapter

    @property
    def documents(self) -> pa.Table:
        """The documents indexed: columns `id`, `title` and `text`."""
        return self.corpus_index.documents

    def document(self, corpus_id: str) -> dict[str, str]:
        """Return a document's `id`, `title` and `text`.

        Args:
            corpus_id: Id of the document, as in a hit.

        Raises:
            KeyError: If there is no document of that id.
            ValueError: If there is no index.
        """
        return self.corpus_index.document(corpus_id)

    @property
    def corpus_index(self) -> CorpusIndex:
        """The index itself, with the documents and the fingerprints of model and corpus."""
        if self._corpus is None:
            raise ValueError("There is no index yet: call index(corpus) first.")
        return self._corpus

    # ---------------------------------------------------------------- indexing

    def index(
        self,
        corpus: Corpus,
        cache_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        *,
        kind: str = "auto",
        show_progress_bar: bool | None = None,
    ) -> Retriever:
        """Encode the documents of a corpus and index them, in place of those indexed before.

        Args:
            corpus: A `Collection`; a `datasets.Dataset` with columns `id`, `text` and, if there are
                titles, `title`; a dictionary from id to text or to `{"title": ..., "text": ...}`; or a
                list of texts, whose ids are their positions, `"0"`, `"1"`, ...
            cache_dir: Folder of the cache of embeddings, see `encode`.
            batch_size: Texts a forward pass.
            kind: Kind of index, see `make_index`: `"flat"` is exact, `"auto"` is exact up to 50,000
                documents and approximate beyond.
            show_progress_bar: None shows one on a terminal only.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If the corpus is empty or malformed, there is no such kind, or the encoder gives NaN.
        """
        check_kind(kind)
        documents = document_table(corpus)
        texts = document_texts(documents)
        index = self._embed_documents(
            texts, kind, cache_dir=cache_dir, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        features = self._document_features(index, texts)
        self._corpus = CorpusIndex(index, documents, self._fingerprint(), texts_fingerprint(texts), features)
        return self

    def _embed_documents(self, texts: list[str], kind: str, **options: Any) -> Index:
        embeddings = encode(self.encoder, texts, task="document", **options)
        index = make_index(embeddings.shape[1], len(embeddings), kind)
        # All at once, since an approximate index is trained on a sample of what it is given first.
        index.add(self._map_documents(embeddings))
        return index

    def _map_documents(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the document embeddings to index: mapped into a file, if the adapter given has a map."""
        # The maps of an RRRAModel are in its embeddings already.
        if self._adapter is None or self._adapter.document_map is None:
            return embeddings
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, np.float32, "w+", shape=embeddings.shape)
        for start in range(0, len(embeddings), BLOCK_SIZE):
            block = slice(start, start + BLOCK_SIZE)
            mapped[block] = self._adapter.map_documents(embeddings[block])
        return mapped

    def _document_features(self, index: Index, texts: list[str]) -> DocumentFeatures | None:
        head = None if self.adapter is None else self.adapter.features
        if head is None:
            return None
        blocks = (
            index.reconstruct(np.arange(start, min(start + BLOCK_SIZE, len(index))))
            for start in range(0, len(index), BLOCK_SIZE)
        )
        return DocumentFeatures.of(head, blocks, self.count_words(texts))

    def count_words(self, texts: Sequence[str]) -> csr_array | None:
        """Return how often each text has each word piece, if the adapter reads words; None otherwise.

        Args:
            texts: Queries or documents, `n`.

        Returns:
            `(n, vocabulary)`.

        Raises:
            ValueError: If the adapter reads words and the encoder has no tokenizer of transformers.
        """
        if self.adapter is None or self.adapter.features is None or not self.adapter.features.reads_words:
            return None
        words = count_words(self.encoder, texts)
        if words is None:
            raise ValueError("The adapter reads words; the encoder has no tokenizer of transformers.")
        return words

    def _fingerprint(self) -> str:
        """Return a fingerprint of everything that decides what is kept of a document in the index."""
        fingerprint = encoder_fingerprint(self.encoder)
        weights = []
        if self._adapter is not None and self._adapter.document_map is not None:
            weights.append(self._adapter.document_map.weight)
        if self.adapter is not None and self.adapter.features is not None:
            weights += self.adapter.features.buffers(recurse=False)
        if not weights:
            return fingerprint
        digest = hashlib.sha256(fingerprint.encode())
        for weight in weights:
            digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[: len(fingerprint)]

    # ---------------------------------------------------------------- searching

    def map_queries(self, query_embeddings: np.ndarray) -> np.ndarray:
        """Return the query embeddings to search with: mapped, if the adapter that was given has a map.

        Args:
            query_embeddings: `(n, dim)`, as the encoder makes them.
        """
        if self._adapter is None or self._adapter.query_map is None:
            return query_embeddings
        return self._adapter.map_queries(query_embeddings)

    @overload
    def search(
        self,
        queries: str | Sequence[str],
        top_k: int = ...,
        rerank: bool = ...,
        depth: int = ...,
        *,
        probabilities: bool = ...,
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
        probabilities: bool = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
    ) -> dict[str, list[Hit]]: ...

    def search(
        self,
        queries: str | Sequence[str] | Mapping[str, str],
        top_k: int = 10,
        rerank: bool = True,
        depth: int = 100,
        *,
        probabilities: bool = False,
        batch_size: int = 64,
        show_progress_bar: bool | None = None,
    ) -> list[list[Hit]] | dict[str, list[Hit]]:
        """Find the best documents for each query.

        The `max(depth, top_k)` documents of greatest cosine are retrieved, and the first `depth` of them
        put in the order of their reranking score; equal scores keep the retriever's order.

        Args:
            queries: A query, a list of them, or a dictionary from id to query.
            top_k: Documents to return a query; all if the corpus has fewer.
            rerank: Rerank with the adapter, if there is one.
            depth: Documents to rerank a query. Hits below it have their cosine as score.
            probabilities: Give each hit the probability that it is relevant.
            batch_size: Queries a forward pass of the encoder.
            show_progress_bar: None shows one on a terminal only.

        Returns:
            A list of hits, best first, for each query, as `semantic_search` of sentence-transformers
            returns it: a list of them, of one list for one query. For a dictionary, a dictionary from
            the query's id to its hits.

        Raises:
            ValueError: If there is no index, a query is empty or no string, a number is less than 1,
                probabilities are asked for without an adapter, or the encoder gives NaN.
        """
        self._check_search(top_k, depth, probabilities)
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
                embeddings, top_k, rerank, depth, probabilities=probabilities, query_texts=texts
            )
        return dict(zip(queries, hits, strict=True)) if isinstance(queries, Mapping) else hits

    def search_embeddings(
        self,
        query_embeddings: np.ndarray,
        top_k: int = 10,
        rerank: bool = True,
        depth: int = 100,
        *,
        probabilities: bool = False,
        query_texts: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """Find the best documents for each query, given what the encoder makes of the queries.

        Args:
            query_embeddings: `(n, dim)`, of any length, as `encode(retriever.encoder, queries,
                task="query")` returns them.
            top_k: See `search`, as for the others.
            rerank: Rerank with the adapter, if there is one.
            depth: Documents to rerank a query.
            probabilities: Give each hit the probability that it is relevant.
            query_texts: The queries themselves, `n`, needed where the adapter reads words.

        Returns:
            A list of hits, best first, for each query.

        Raises:
            ValueError: As in `search`, and if the embeddings are of a wrong shape or not finite.
        """
        self._check_search(top_k, depth, probabilities)
        embeddings = check_embeddings(query_embeddings, "query_embeddings", self.corpus_index.index.dim)
        if query_texts is not None and len(query_texts) != len(embeddings):
            raise ValueError(
                f"query_texts must be of the {len(embeddings)} queries, got {len(query_texts)} texts."
            )
        hits: list[list[Hit]] = []
        for start in range(0, len(embeddings), BLOCK_SIZE):
            block = slice(start, start + BLOCK_SIZE)
            words = None if query_texts is None else self.count_words(query_texts[block])
            queries = self.map_queries(embeddings[block])
            hits += self._search_block(queries, words, top_k, depth, rerank, probabilities)
        return hits

    def _search_block(
        self,
        queries: np.ndarray,
        words: csr_array | None,
        top_k: int,
        depth: int,
        rerank: bool,
        probabilities: bool,
    ) -> list[list[Hit]]:
        corpus = self.corpus_index
        # Features of a document is read beside that of the others that were found.
        found = max(top_k, depth) if rerank or probabilities else top_k
        rows, scores = self._ranked(
            corpus.index, corpus.features, queries, words, found, depth if rerank else 0
        )
        hits: list[list[Hit]] = [
            [
                {"corpus_id": corpus.ids[row], "score": score}
                for row, score in zip(found_rows, found_scores, strict=True)
            ]
            for found_rows, found_scores in zip(
                rows[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True
            )
        ]
        if probabilities:
            assert self.adapter is not None
            judged = rows if corpus.features is not None else rows[:, :top_k]
            relevant = relevance(self.adapter, corpus.index, queries, judged, corpus.features, words)
            for query_hits, values in zip(hits, relevant[:, :top_k].tolist(), strict=True):
                for hit, probability in zip(query_hits, values, strict=True):
                    hit["probability"] = probability
        return hits

    def _ranked(
        self,
        index: Index,
        features: DocumentFeatures | None,
        queries: np.ndarray,
        words: csr_array | None,
        k: int,
        depth: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and scores of the `k` nearest documents, the first `depth` of them reranked."""
        cosines, rows = index.search(queries, k)
        if self.adapter is None or depth == 0:
            return rows, cosines
        return rerank(self.adapter, index, queries, rows, cosines, depth, features, words)

    def _check_search(self, top_k: int, depth: int, probabilities: bool) -> None:
        for name, number in (("top_k", top_k), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        if probabilities and self.adapter is None:
            raise ValueError("probabilities need an adapter; the retriever has none.")
        _ = self.corpus_index  # raises if there is none

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 64,
    ) -> list[RankedDocument]:
        """Rank documents for a query, as `CrossEncoder.rank` does; the index is not used.

        Args:
            query: The query.
            documents: The documents' texts.
            top_k: Documents to return, None for all.
            return_documents: Give each its text.
            batch_size: Documents a forward pass of the encoder.

        Returns:
            `corpus_id` (the position in `documents`), `score` and, if asked for, `text` of each document,
            best first.

        Raises:
            ValueError: If the query or a document is empty or no string, or `top_k` is less than 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1 or None, got {top_k}.")
        _check_queries([query], [0])
        if not documents:
            return []
        texts = document_texts(document_table(documents))
        index = self._embed_documents(texts, "flat", batch_size=batch_size, show_progress_bar=False)
        embedding = encode(self.encoder, [query], task="query", show_progress_bar=False)
        rows, scores = self._ranked(
            index,
            self._document_features(index, texts),
            self.map_queries(embedding),
            self.count_words([query]),
            len(index),
            len(index),
        )
        ranked: list[RankedDocument] = [
            {"corpus_id": row, "score": score}
            for row, score in zip(rows[0, :top_k].tolist(), scores[0, :top_k].tolist(), strict=True)
        ]
        if return_documents:
            for document in ranked:
                document["text"] = documents[document["corpus_id"]]
        return ranked

    # ---------------------------------------------------------------- saving and loading

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write encoder, adapter and index to a folder, complete or not at all.

        The folder is the encoder's, as `SentenceTransformer` writes it (and `RRRAModel` and `AutoModel`
        open it, if it is an `RRRAModel`'s), with two subfolders: `adapter/` if the adapter is not the
        encoder's own, and `index/` if a corpus was indexed. A `SentenceTransformer` opened from the
        folder doesn't apply the linear maps of an adapter in `adapter/`; a retriever does.

        Args:
            directory: Made if it isn't there; a model and an index in it are replaced.

        Raises:
            NotADirectoryError: If there is a file of that name.
            ValueError: If the encoder was changed after the corpus was indexed.
        """
        target = Path(directory)
        if target.is_file():
            raise NotADirectoryError(f"directory must be a folder, {target} is a file.")
        if self._corpus is not None and self._corpus.encoder != self._fingerprint():
            raise ValueError(
                f"The model was changed after the corpus was indexed (fingerprint {self._corpus.encoder}, "
                f"now {self._fingerprint()}); index the corpus again before saving."
            )
        # Without its index a folder is still a model; with another model's it would be neither.
        last = [CONFIG_NAME, INDEX_FOLDER]
        with write_aside(target, owned=OWNED, keep_others=True, last=last) as new:
            self.encoder.save_pretrained(str(new), create_model_card=False)
            if self._adapter is not None:
                self._adapter.save_pretrained(new / ADAPTER_FOLDER)
            if self._corpus is not None:
                self._corpus.save(new / INDEX_FOLDER)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> Retriever:
        """Load a retriever, or any model that `SentenceTransformer` loads, which then has no index yet.

        Args:
            name_or_path: Folder or Hub repository.
            options: Arguments of `SentenceTransformer`: `device`, `revision`, `token`, `cache_folder`,
                `local_files_only`, `truncate_dim`, ...

        Raises:
            OSError: If there is no such model.
            ValueError: If the index was made by another model, or a file is missing, damaged or doesn't
                belong to the others; the message names it. A download of adapter or index that isn't what
                the Hub declares is removed from the cache.
        """
        name = os.fspath(name_or_path)
        try:
            encoder = SentenceTransformer(name, **options)
        except OSError as error:
            raise OSError(f"Can't load a model named {name!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"Can't load a model named {name!r}: {error}") from error
        except SafetensorError as error:
            raise ValueError(f"A weights file of {name} is damaged: {error}") from error
        folder = Path(name) if Path(name).is_dir() else _download(name, options)
        adapter = None
        if (folder / ADAPTER_FOLDER / CONFIG_NAME).exists() and _inner_model(encoder) is None:
            adapter = RetrieverAdapter.from_pretrained(folder / ADAPTER_FOLDER).to(encoder.device)
        retriever = cls(encoder, adapter)
        if (folder / INDEX_FOLDER).is_dir():
            retriever._corpus = CorpusIndex.load(folder / INDEX_FOLDER, retriever._fingerprint())
        return retriever

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
        """Upload the folder that `save_pretrained` writes, and a model card, in one commit.

        Call it again if the upload breaks off: files that arrived are not sent again.

        Args:
            repo_id: `namespace/name`; made if it isn't there.
            form: `"full"`; for an `RRRAModel` also `"lora"` or `"merged"`, see its `save_pretrained`.
            with_index: Upload the index too. It holds the documents' texts: mind who may read them.
            private: Make a new repository private; refuse one that is public.
            revision: Branch to commit to; made from `main` if it isn't there.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Message of the commit.

        Returns:
            The commit's address, a string, with `oid` and `pr_url`.

        Raises:
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off; nothing was committed.
            ValueError: If the retriever can't be saved, or not in this form; if `with_index` is given and
                there is no index; or if `private` was asked for and the repository is public.
        """
        from ..hub import push_folder

        with tempfile.TemporaryDirectory() as temporary:
            self.save_pretrained(temporary)
            return push_folder(
                temporary,
                repo_id,
                form=form,
                with_index=with_index,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                commit_message=commit_message,
            )


def _inner_model(encoder: SentenceTransformer) -> RRRAModel | None:
    """Return the `RRRAModel` inside an encoder, None if it is another model."""
    inner = getattr(encoder[0], "model", None)
    return inner if isinstance(inner, RRRAModel) else None


def _check_queries(texts: list[str], names: Iterable[object]) -> None:
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"queries must be strings, got {type(text).__name__} for query {name!r}.")
        if not text.strip():
            raise ValueError(f"queries must not be empty, query {name!r} is.")


def _download(repo_id: str, options: dict[str, Any]) -> Path:
    """Download what a repository has beside its encoder, and check it."""
    names = {"revision": "revision", "token": "token", "cache_folder": "cache_dir"}
    hub = {theirs: options[ours] for ours, theirs in names.items() if ours in options}
    hub["allow_patterns"] = [f"{ADAPTER_FOLDER}/*", f"{INDEX_FOLDER}/**"]
    hub["local_files_only"] = options.get("local_files_only", False)
    try:
        files = snapshot_download(repo_id, dry_run=True, **hub)
    except DryRunError:  # without a connection nothing is downloaded
        files = []
    with named_connection_errors(repo_id):
        folder = Path(snapshot_download(repo_id, **hub))
    check_downloads(folder / file.filename for file in files if file.will_download)
    return folder
