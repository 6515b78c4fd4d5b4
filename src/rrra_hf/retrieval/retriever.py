"""The retriever: index a corpus, search it, rerank the results, and save everything in one folder."""

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
from ..hub import push_folder
from ..hub.layout import ADAPTER_FOLDER, INDEX_FOLDER
from ..indexes import Index, make_index
from ..indexes.choose import check_kind
from ..models.adapter_rrra import CONFIG_NAME, WEIGHTS_NAME, RetrieverAdapter
from ..models.download_rrra import check_downloads, named_connection_errors
from ..models.files_rrra import write_aside
from ..models.modeling_rrra import OWNED as OWNED_BY_MODELS
from ..models.modeling_rrra import RRRAModel
from .corpus_index import FILE_NAMES, CorpusIndex, no_features
from .documents import Corpus, document_table, document_texts
from .reranking import Reranked, relevance, rerank
from .results import Hit, RankedDocument

# Files of an earlier model and its index in the folder that a retriever is saved to.
OWNED = [
    *OWNED_BY_MODELS,
    *(f"{ADAPTER_FOLDER}/{name}" for name in (CONFIG_NAME, WEIGHTS_NAME)),
    *(f"{INDEX_FOLDER}/{name}" for name in FILE_NAMES),
]
# Embeddings handled at a time. They may be memory-mapped, and each query brings a matrix of candidates.
BLOCK_SIZE = 4096


class Retriever:
    """Finds the documents of a corpus that are relevant to a query: search by cosine, then reranking.

    An `RRRAModel`, also one inside a `SentenceTransformer`, brings its own adapter. To any other
    `SentenceTransformer` you can give an adapter that was fitted on its embeddings. If that has linear maps,
    the retriever applies them. Without an adapter, nothing is reranked.

    Args:
        encoder: The encoder.
        adapter: An adapter for an encoder that has none.

    Attributes:
        encoder: The encoder, as a `SentenceTransformer`.

    Raises:
        ValueError: If the encoder has an adapter already, or the adapter has another dimension than the
            encoder.

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
        """The adapter, None if there is none."""
        model = _inner_model(self.encoder)
        return self._adapter if model is None else model.adapter

    @property
    def documents(self) -> pa.Table:
        """The indexed documents: columns `id`, `title` and `text`."""
        return self.corpus_index.documents

    def document(self, corpus_id: str) -> dict[str, str]:
        """Return a document's `id`, `title` and `text`.

        Args:
            corpus_id: Id of the document, as in a hit.

        Raises:
            KeyError: If there is no document with that id.
            ValueError: If there is no index.
        """
        return self.corpus_index.document(corpus_id)

    @property
    def corpus_index(self) -> CorpusIndex:
        """The index, with the documents and the fingerprints of model and corpus."""
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
        """Encode and index the documents of a corpus. They replace those that were indexed before.

        Args:
            corpus: A `Collection`; a `datasets.Dataset` with columns `id`, `text` and, if there are
                titles, `title`; a dictionary from id to text or to `{"title": ..., "text": ...}`; or a
                list of texts, whose ids are their positions, `"0"`, `"1"`, ...
            cache_dir: Folder of the embedding cache, see `encode`.
            batch_size: Encoder batch size.
            kind: Kind of index, see `make_index`: `"flat"` is exact, `"auto"` is exact up to 50,000
                documents and approximate beyond.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

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
        # All at once: an approximate index is trained on a sample of what it is given first.
        index.add(self._map_documents(embeddings))
        return index

    def _map_documents(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the document embeddings to index. Mapped ones are in a temporary file."""
        # The embeddings of an RRRAModel are mapped already.
        if self._adapter is None or self._adapter.document_map is None:
            return embeddings
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, np.float32, "w+", shape=embeddings.shape)
        for start in range(0, len(embeddings), BLOCK_SIZE):
            block = slice(start, start + BLOCK_SIZE)
            mapped[block] = self._adapter.map_documents(embeddings[block])
        return mapped

    def _document_features(self, index: Index, texts: list[str]) -> DocumentFeatures:
        if self.adapter is None:
            return no_features(len(index))
        blocks = (
            index.reconstruct(np.arange(start, min(start + BLOCK_SIZE, len(index))))
            for start in range(0, len(index), BLOCK_SIZE)
        )
        return DocumentFeatures.of(self.adapter.reader, blocks, self.count_words(texts))

    def count_words(self, texts: Sequence[str]) -> csr_array | None:
        """Count the word pieces of each text, if the adapter reads words; return None otherwise.

        Args:
            texts: Queries or documents, `n`.

        Returns:
            `(n, vocabulary)`.

        Raises:
            ValueError: If the adapter reads words and the encoder has no tokenizer of transformers.
        """
        if self.adapter is None or not self.adapter.reads_words:
            return None
        words = count_words(self.encoder, texts)
        if words is None:
            raise ValueError("The adapter reads words; the encoder has no tokenizer of transformers.")
        return words

    def _fingerprint(self) -> str:
        """Return a fingerprint of everything that decides what the index holds about a document."""
        fingerprint = encoder_fingerprint(self.encoder)
        weights = []
        if self._adapter is not None and self._adapter.document_map is not None:
            weights.append(self._adapter.document_map.weight)
        if self.adapter is not None:
            # The features of documents come from the reader's memory, if it has one.
            buffers = self.adapter.reader.named_buffers()
            weights += [weight for name, weight in buffers if name.startswith("memory.")]
        if not weights:
            return fingerprint
        digest = hashlib.sha256(fingerprint.encode())
        for weight in weights:
            digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[: len(fingerprint)]

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

        The `max(depth, top_k)` documents with the highest cosines are retrieved, and the first `depth` of
        them are sorted by their reranking scores. Equal scores keep the retriever's order.

        Args:
            queries: A query, a list of queries, or a dictionary from id to query.
            top_k: Number of documents to return per query; all if the corpus has fewer.
            rerank: Rerank with the adapter, if there is one.
            depth: Number of documents to rerank per query. The score of hits below it is their cosine.
            probabilities: Add the probability that it is relevant to each hit.
            batch_size: Encoder batch size.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

        Returns:
            A list of hits, best first, per query, in the format of `semantic_search` of
            sentence-transformers. For one query, this is a list with one list of hits. For a dictionary of
            queries, it is a dictionary from id to hits.

        Raises:
            ValueError: If there is no index, a query is empty or not a string, a number is less than 1,
                `probabilities` is given without an adapter, or the encoder gives NaN.
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
        """Find the best documents for each query, given the queries' embeddings.

        Args:
            query_embeddings: Embeddings from `encode(retriever.encoder, queries, task="query")`, of any
                length, `(n, dim)`.
            top_k: As in `search`, as are the others.
            rerank: Rerank with the adapter, if there is one.
            depth: Number of documents to rerank per query.
            probabilities: Add the probability that it is relevant to each hit.
            query_texts: The queries, `n`; needed if the adapter reads words.

        Returns:
            A list of hits, best first, per query.

        Raises:
            ValueError: As in `search`, and if the embeddings have a wrong shape or are not finite.
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
            # The adapter compares a document with the others that were found.
            found = max(top_k, depth) if rerank or probabilities else top_k
            ranked = self._ranked(
                self.corpus_index.index,
                self.corpus_index.features,
                queries,
                words,
                found,
                depth if rerank else 0,
                probabilities,
            )
            hits += self._hits(ranked, top_k, probabilities)
        return hits

    def _ranked(
        self,
        index: Index,
        features: DocumentFeatures,
        queries: np.ndarray,
        words: csr_array | None,
        k: int,
        depth: int,
        probabilities: bool = False,
    ) -> Reranked:
        """Return the `k` nearest documents, the first `depth` of them reranked.

        The probabilities are of all of them with `probabilities`, of the reranked ones otherwise.
        """
        cosines, rows = index.search(queries, k)
        ranked = Reranked(rows, cosines, np.empty((len(rows), 0), dtype=np.float32))
        if self.adapter is None:
            return ranked
        if depth > 0:
            ranked = rerank(self.adapter, index, queries, rows, cosines, depth, features, words)
        if probabilities and ranked.probabilities.shape != rows.shape:
            found = relevance(self.adapter, index, queries, ranked.rows, features, words)
            ranked = ranked._replace(probabilities=found)
        return ranked

    def _hits(self, ranked: Reranked, top_k: int, probabilities: bool) -> list[list[Hit]]:
        ids = self.corpus_index.ids
        rows, scores, relevant = (values[:, :top_k].tolist() for values in ranked)
        hits: list[list[Hit]] = [
            [{"corpus_id": ids[row], "score": score} for row, score in zip(*columns, strict=True)]
            for columns in zip(rows, scores, strict=True)
        ]
        if probabilities:
            for query_hits, values in zip(hits, relevant, strict=True):
                for hit, probability in zip(query_hits, values, strict=True):
                    hit["probability"] = probability
        return hits

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
        """Rank documents for a query, with the signature of `CrossEncoder.rank`. The index is not used.

        Args:
            query: The query.
            documents: The documents' texts.
            top_k: Number of documents to return; all by default.
            return_documents: Return the documents' texts too.
            batch_size: Encoder batch size.

        Returns:
            `corpus_id` (the position in `documents`), `score` and, with `return_documents`, `text` of each
            document, best first.

        Raises:
            ValueError: If the query or a document is empty or not a string, or `top_k` is less than 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1 or None, got {top_k}.")
        _check_queries([query], [0])
        if not documents:
            return []
        texts = document_texts(document_table(documents))
        index = self._embed_documents(texts, "flat", batch_size=batch_size, show_progress_bar=False)
        embedding = encode(self.encoder, [query], task="query", show_progress_bar=False)
        rows, scores, _ = self._ranked(
            index,
            self._document_features(index, texts),
            self.map_queries(embedding),
            self.count_words([query]),
            k=len(index),
            depth=len(index),
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

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, form: str = "full", with_index: bool = True
    ) -> None:
        """Write encoder, adapter and index to a folder, complete or not at all.

        The folder is the encoder's, as `SentenceTransformer` writes it; `RRRAModel` and `AutoModel` open it
        too if the encoder is an `RRRAModel`. It has two subfolders: `adapter/` if the adapter is not the
        encoder's own, and `index/` if a corpus was indexed. A `SentenceTransformer` opened from the folder
        doesn't apply the linear maps of an adapter in `adapter/`; a retriever does.

        Args:
            directory: The folder; it is made if it doesn't exist. A model and an index in it are replaced.
            form: `"full"`; for an `RRRAModel` also `"lora"` or `"merged"`, see its `save_pretrained`.
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
        # Without its index a folder is still a model. With the index of another model it would be neither.
        last = [CONFIG_NAME, INDEX_FOLDER]
        with write_aside(target, owned=OWNED, keep_others=True, last=last) as new:
            self.encoder.save_pretrained(str(new), create_model_card=False)
            if form != "full":
                model = RRRAModel.from_sentence_transformer(self.encoder)
                # As sentence-transformers calls it, which keeps the settings that it wrote.
                model.save_pretrained(new, form=form, safe_serialization=True)
            if self._adapter is not None:
                self._adapter.save_pretrained(new / ADAPTER_FOLDER)
            if corpus is not None:
                corpus.save(new / INDEX_FOLDER)

    def _check_index(self, corpus: CorpusIndex, form: str) -> None:
        if form == "merged":
            raise ValueError(
                "with_index can't go with form='merged': merged weights make slightly different embeddings. "
                "Save the merged model without an index, load it, and index the corpus with it."
            )
        if corpus.encoder != self._fingerprint():
            raise ValueError(
                f"The model was changed after the corpus was indexed (fingerprint {corpus.encoder}, "
                f"now {self._fingerprint()}); index the corpus again before saving."
            )

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> Retriever:
        """Load a retriever, or any model that `SentenceTransformer` loads as a retriever without an index.

        Args:
            name_or_path: Folder or Hub repository.
            options: Arguments of `SentenceTransformer`: `device`, `revision`, `token`, `cache_folder`,
                `local_files_only`, `truncate_dim`, ...

        Raises:
            OSError: If there is no such model.
            ValueError: If the index was made by another model, or a file is missing, damaged or doesn't
                belong to the others; the message names it. A download with other contents than the Hub
                declares is removed from the cache.
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
        """Upload the folder that `save_pretrained` writes, with a model card, in one commit.

        If the upload breaks off, call it again: files that arrived are not sent again.

        Args:
            repo_id: `namespace/name`; the repository is made if it doesn't exist.
            form: `"full"`; for an `RRRAModel` also `"lora"` or `"merged"`, see its `save_pretrained`.
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
            ValueError: If the retriever can't be saved, or not in this form, or `private` is given and the
                repository is public.
        """
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


def _inner_model(encoder: SentenceTransformer) -> RRRAModel | None:
    """Return the `RRRAModel` inside an encoder, None if the encoder is another model."""
    inner = getattr(encoder[0], "model", None)
    return inner if isinstance(inner, RRRAModel) else None


def _check_queries(texts: list[str], names: Iterable[object]) -> None:
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"queries must be strings, got {type(text).__name__} for query {name!r}.")
        if not text.strip():
            raise ValueError(f"queries must not be empty, query {name!r} is.")


def _download(repo_id: str, options: dict[str, Any]) -> Path:
    """Download and check the adapter and the index of a repository."""
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
