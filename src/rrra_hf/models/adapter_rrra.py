"""The retriever adapter: from the embeddings of a query and its candidates to scores and probabilities."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .adapter_weights_rrra import WEIGHTS_NAME, read_weights
from .configuration_rrra import AdapterConfig
from .download_rrra import checked_downloads
from .features_rrra import CandidateFeatures
from .files_rrra import read_json, write_aside, write_json
from .hub_files_rrra import find_file
from .reader_rrra import FeatureReader
from .reader_v2_rrra import Version2Reader
from .residual_rrra import ResidualReader

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

Array = TypeVar("Array", np.ndarray, Tensor)

MODEL_TYPE = "rrra_adapter"
CONFIG_NAME = "config.json"
# Folder of an adapter beside an encoder.
ADAPTER_FOLDER = "adapter"

# What an adapter may be made of; each has the methods and attributes of the other.
Reader = FeatureReader | ResidualReader | Version2Reader
READERS: dict[str, type[Reader]] = {
    "features": FeatureReader,
    "residual": ResidualReader,
    "features_v2": Version2Reader,
}
# The adapter that comes with the package.
PRETRAINED = Path(__file__).parent / "pretrained"


class Reading(NamedTuple):
    """What `RetrieverAdapter.read` returns, three tensors `(n, k)`.

    Args:
        cosines: The retriever's cosines; -inf where there is no candidate.
        ranking: What the ranking adds to the retriever's score, before its weight.
        relevance: Calibrated log-odds of relevance.
    """

    cosines: Tensor
    ranking: Tensor
    relevance: Tensor


class RetrieverAdapter(nn.Module):
    """Reranks the candidates of a query, and estimates the probability that each is relevant.

    An adapter is made of linear maps (optional) and a reader:

    * The maps move query and document embeddings before search. `map_queries` and `map_documents` apply
      them; every other method takes mapped embeddings, those that were searched with.
    * The reader reads the candidates that the search found. It is a `FeatureReader`, or the paper's
      `ResidualReader`; both satisfy the same interface.

    `RetrieverAdapter.pretrained()` is ready to use with any encoder. `fit_adapter` fits one on labels. An
    adapter that is neither changes no ranking.

    Args:
        config: Sizes and settings.
        reader: The reader; made from `config.reader` if not given.

    Raises:
        ValueError: If the reader's settings are not legal.

    Example:
        >>> adapter = RetrieverAdapter(AdapterConfig(embedding_dim=8))
        >>> queries, candidates = np.eye(8, dtype=np.float32)[:2], np.ones((2, 3, 8), dtype=np.float32)
        >>> adapter.rerank(queries, candidates).shape
        (2, 3)
    """

    def __init__(self, config: AdapterConfig, reader: Reader | None = None):
        super().__init__()
        self.reader: Reader = _make_reader(config) if reader is None else reader
        # All settings of the reader, so that a saved adapter doesn't depend on their defaults.
        settings = {"kind": config.reader["kind"], **self.reader.settings()}
        self.config = replace(config, reader=settings)
        dim = config.embedding_dim
        self.query_map = nn.Linear(dim, dim, bias=False) if config.query_map and dim else None
        self.document_map = nn.Linear(dim, dim, bias=False) if config.document_map and dim else None
        for linear_map in (self.query_map, self.document_map):
            if linear_map is not None:
                nn.init.eye_(linear_map.weight)

    @property
    def reads_words(self) -> bool:
        """Whether the reader can read words of queries and documents."""
        return self.reader.reads_words

    @property
    def reads_pairs(self) -> bool:
        """Whether the reader can read one query and one document by themselves, see `forward`."""
        return self.reader.reads_pairs

    @property
    def has_learnt(self) -> bool:
        """Whether it was fitted or comes trained. Otherwise it ranks nothing and knows no probability."""
        return bool(self.config.fit) or self.config.lambda_ > 0

    # ---------------------------------------------------------------- maps

    @property
    def has_maps(self) -> bool:
        """Whether queries or documents are mapped before search."""
        return self.query_map is not None or self.document_map is not None

    @torch.no_grad()
    def set_dim(self, embedding_dim: int) -> None:
        """Let the adapter read embeddings of another dimension, unless it was fitted to those of one.

        Raises:
            ValueError: If it was: it has linear maps, remembers queries, or has a network of that dimension.
        """
        reader = self.config.reader
        if self.has_maps or reader["kind"] != "features" or reader.get("queries"):
            raise ValueError(
                f"The adapter was fitted to embeddings of dimension {self.config.embedding_dim}, "
                f"and can't read embeddings of dimension {embedding_dim}."
            )
        self.config = replace(self.config, embedding_dim=embedding_dim)

    def map_queries(self, queries: Array) -> Array:
        """Return the query embeddings to search with, normalised: `(n, dim)` to `(n, dim)`."""
        return self._map(queries, self.query_map, "queries")

    @torch.no_grad()
    def map_documents(self, documents: Array) -> Array:
        """Return the document embeddings to index, normalised: `(n, dim)` to `(n, dim)`."""
        return self._map(documents, self.document_map, "documents")

    def _map(self, embeddings: Array, linear_map: nn.Linear | None, name: str) -> Array:
        x = self._as_tensor(embeddings, name, ndim=2)
        self._check_dim(x, name)
        if linear_map is not None:
            x = linear_map(x)
        return self._like(F.normalize(x, dim=-1), embeddings)

    # ---------------------------------------------------------------- reading

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Return the calibrated log-odds of relevance of pairs, with gradients, `(...)`.

        Args:
            q: Query embeddings of any length, `(..., dim)`.
            c: Document embeddings, `(..., dim)`, broadcastable against `q`.

        Raises:
            ValueError: If the reader compares a query's candidates, see `reads_pairs`.
        """
        return self.reader(q, c) / self.config.temperature

    @torch.no_grad()
    def read(
        self,
        q: Tensor,
        c: Tensor,
        cosines: Tensor | None = None,
        features: CandidateFeatures | None = None,
        *,
        normalized: bool = False,
    ) -> Reading:
        """Read the candidates of each query.

        Args:
            q: Query embeddings, as searched with, `(n, dim)`.
            c: Embeddings of each query's candidates, as indexed, `(n, k, dim)`.
            cosines: Cosines of the candidates, `(n, k)`; computed if not given.
            features: What is known about the candidates in addition to their embeddings.
            normalized: Whether the embeddings are of length 1 already.
        """
        if not normalized:
            q, c = F.normalize(q, dim=-1), F.normalize(c, dim=-1)
        if cosines is None:
            cosines = torch.einsum("nd,nkd->nk", q, c)
        known = features or CandidateFeatures()
        ranking, relevance = self.reader.read(q, c, cosines, known, self.config.temperature)
        if known.present is not None:
            cosines = cosines.masked_fill(~known.present, -torch.inf)
        return Reading(cosines, ranking, relevance)

    @torch.no_grad()
    def probability(
        self, queries: Array, candidates: Array, features: CandidateFeatures | None = None
    ) -> Array:
        """Return the probability that each candidate is relevant to its query.

        For a candidate without a label, this is its false-negative probability.

        Args:
            queries: Query embeddings, `(n, dim)`.
            candidates: Embeddings of each query's candidates, `(n, k, dim)`.
            features: What is known about the candidates in addition to their embeddings.

        Returns:
            Probabilities in [0, 1], `(n, k)`, of the type of `queries`.

        Raises:
            ValueError: If a shape is wrong, a value is not finite, or words are needed and not given.
        """
        q, c = self._check_pair(queries, candidates)
        return self._like(torch.sigmoid(self.read(q, c, features=features).relevance), queries)

    @torch.no_grad()
    def rerank(
        self,
        queries: Array,
        candidates: Array,
        scores: Array | None = None,
        features: CandidateFeatures | None = None,
    ) -> Array:
        """Return the reranking score of each candidate; sort by it, descending.

        Args:
            queries: Query embeddings, `(n, dim)`.
            candidates: Embeddings of each query's candidates, `(n, k, dim)`.
            scores: Cosines of the candidates, `(n, k)`; computed from the embeddings if not given.
            features: What is known about the candidates in addition to their embeddings.

        Returns:
            Reranking scores, `(n, k)`, of the type of `queries`.

        Raises:
            ValueError: If a shape is wrong, a value is not finite, or words are needed and not given.

        Example:
            >>> adapter = RetrieverAdapter(AdapterConfig(embedding_dim=2, lambda_=0.1))
            >>> query, documents = np.array([[1.0, 0.0]]), np.array([[[0.0, 1.0], [1.0, 1.0]]])
            >>> adapter.rerank(query, documents).argmax()
            np.int64(1)
        """
        q, c = self._check_pair(queries, candidates)
        cosines = None
        if scores is not None:
            cosines = self._as_tensor(scores, "scores", ndim=2)
            if cosines.shape != c.shape[:2]:
                raise ValueError(
                    f"scores must be {tuple(c.shape[:2])} as candidates are, got {tuple(cosines.shape)}."
                )
        reading = self.read(q, c, cosines, features)
        return self._like(self.combine(reading.cosines, reading.ranking), queries)

    def combine(self, cosines: Tensor, ranking: Tensor, lambda_: float | None = None) -> Tensor:
        """Return the reranking scores from the retriever's cosines and what the reader says.

        Args:
            cosines: The retriever's cosines, of any shape.
            ranking: `Reading.ranking`, of the same shape.
            lambda_: Weight of the adapter; the configuration's if not given.
        """
        weight = self.config.lambda_ if lambda_ is None else lambda_
        return self.reader.score(cosines, ranking, self.config.tau, weight)

    # ---------------------------------------------------------------- input and output

    def _check_pair(self, queries: Array, candidates: Array) -> tuple[Tensor, Tensor]:
        q = self._as_tensor(queries, "queries", ndim=2)
        c = self._as_tensor(candidates, "candidates", ndim=3)
        self._check_dim(q, "queries")
        self._check_dim(c, "candidates")
        if len(q) != len(c):
            raise ValueError(f"queries and candidates must be of one length, got {len(q)} and {len(c)}.")
        return q, c

    def _as_tensor(self, values: np.ndarray | Tensor, name: str, ndim: int) -> Tensor:
        weight = next(self.parameters())
        if isinstance(values, np.ndarray) and not values.flags.writeable:
            values = values.copy()  # a read-only memory map; torch warns of such
        x = torch.as_tensor(values).to(device=weight.device, dtype=weight.dtype)
        if x.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} dimensions, got shape {tuple(x.shape)}.")
        # A sum is a quarter of the work; it is finite only if all are.
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            raise ValueError(
                f"{name} must be finite, got {int((~torch.isfinite(x)).sum())} NaN or infinite values."
            )
        return x

    def _check_dim(self, x: Tensor, name: str) -> None:
        if self.config.embedding_dim not in (None, x.shape[-1]):
            raise ValueError(f"{name} must have dimension {self.config.embedding_dim}, got {x.shape[-1]}.")

    @staticmethod
    def _like(result: Tensor, given: Array) -> Array:
        return result.detach().float().cpu().numpy() if isinstance(given, np.ndarray) else result

    # ---------------------------------------------------------------- saving and loading

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` to a directory, complete or not at all.

        Args:
            directory: The folder. It is created if needed, and must not hold a model of another type.

        Raises:
            ValueError: If the directory holds a model of another type.
        """
        directory = Path(directory)
        if (directory / CONFIG_NAME).exists():
            found = read_json(directory / CONFIG_NAME, dict).get("model_type")
            if found != MODEL_TYPE:
                raise ValueError(
                    f"{directory} holds a model of type {found!r:.80}; save the adapter elsewhere."
                )
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with write_aside(directory, keep_others=True) as new:
            new.mkdir()
            save_file(weights, new / WEIGHTS_NAME, metadata={"format": "pt"})
            write_json(new / CONFIG_NAME, {"model_type": MODEL_TYPE, **self.config.to_dict()})

    @classmethod
    def pretrained(cls, embedding_dim: int | None = None) -> RetrieverAdapter:
        """Load the adapter that comes with the package. It was taught on other collections, and needs no fit.

        Args:
            embedding_dim: Dimension of the embeddings; None for any.

        Example:
            >>> adapter = RetrieverAdapter.pretrained()
            >>> queries, documents = np.eye(8, dtype=np.float32)[:2], np.ones((2, 3, 8), dtype=np.float32)
            >>> adapter.probability(queries, documents).shape
            (2, 3)
        """
        adapter = cls.from_pretrained(PRETRAINED)
        adapter.config = replace(adapter.config, embedding_dim=embedding_dim)
        return adapter

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> RetrieverAdapter:
        """Load an adapter from a folder or Hub repository: its own, or that of a model or a retriever.

        Args:
            name_or_path: Folder, or Hub repository id.
            revision: Branch, tag or commit of the repository.
            token: Hub token.
            cache_dir: Where downloads are kept.
            local_files_only: Never download.

        Raises:
            OSError: If there is no such folder or repository, or it has no config or no weights.
            ValueError: If the folder holds something else, or its weights are damaged or incomplete. A
                download that isn't what the Hub declares is removed from the cache.
        """
        hub = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        config_path = _resolve(name_or_path, CONFIG_NAME, hub)
        values = read_json(config_path, dict)
        model_type = values.pop("model_type", None)
        if model_type not in (MODEL_TYPE, "rrra"):
            beside = find_beside(str(name_or_path), hub)
            if beside is not None:
                return cls.from_pretrained(beside)
            raise ValueError(f"{name_or_path} holds a model of type {model_type!r:.80}, not an adapter.")
        prefix = "" if model_type == MODEL_TYPE else "adapter."
        try:
            # Takes no memory, whatever sizes are declared.
            with torch.device("meta"):
                adapter = cls(AdapterConfig.from_dict(values["adapter"] if prefix else values))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{CONFIG_NAME} of {name_or_path} can't be used: {error}") from error
        with checked_downloads(config_path.parent, str(name_or_path)):
            weights = read_weights(str(name_or_path), prefix, hub)
        expected = adapter.state_dict()
        missing = sorted(expected.keys() - weights.keys())
        if missing:
            raise ValueError(f"{name_or_path} lacks the adapter weights {', '.join(missing)}.")
        kept = {name: value.to(expected[name].dtype) for name, value in weights.items() if name in expected}
        try:
            adapter.load_state_dict({**weights, **kept}, assign=True)
            adapter.check_weights()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"The adapter weights of {name_or_path} don't fit its config: {error}"
            ) from error
        return adapter.eval()

    def check_weights(self) -> None:
        """Refuse weights that no fit gives, for example those of a damaged file.

        Raises:
            ValueError: If a weight isn't finite, or what is remembered contradicts itself.
        """
        for name, weight in self.state_dict().items():
            if not weight.isfinite().all():
                raise ValueError(f"{name} must be finite.")
            if name.endswith(".deviation") and not (weight > 0).all():
                raise ValueError(f"{name} must be positive.")
        if not isinstance(self.reader, ResidualReader):
            self.reader.memory.check()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Upload retriever adapter",
    ) -> CommitInfo:
        """Upload the adapter and a model card to the Hub in one commit.

        Args:
            repo_id: `namespace/name`. The repository is created if it doesn't exist.
            private: Make a new repository private, and refuse one that is public.
            revision: Branch to commit to. It is created from `main` if it doesn't exist.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Commit message.

        Returns:
            URL of the commit, a string with the attributes `oid` and `pr_url`.

        Raises:
            ImportError: If the package isn't installed, but the adapter's code came with a model.
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off. Nothing was committed then.
            ValueError: If `private` is set and the repository is public.
        """
        try:
            from rrra_hf.hub import push_folder
        except ImportError as error:
            raise ImportError("Install rrra-hf to upload the adapter.") from error
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(
                folder,
                repo_id,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                commit_message=commit_message,
            )


def find_beside(name: str, hub: dict[str, Any]) -> Path | None:
    """Return the folder of the adapter beside an encoder, None if there is none.

    If it is on the Hub, it is downloaded.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If a download isn't what the Hub declares.
    """
    config = find_file(name, f"{ADAPTER_FOLDER}/{CONFIG_NAME}", hub)
    if config is None:
        return None
    with checked_downloads(config.parent, name):
        find_file(name, f"{ADAPTER_FOLDER}/{WEIGHTS_NAME}", hub)
    return config.parent


def check_given(adapter: object) -> None:
    """Refuse what is given as an adapter and is none.

    Args:
        adapter: An adapter, `"pretrained"` or None.

    Raises:
        ValueError: If it is something else.
    """
    if not (adapter is None or adapter == "pretrained" or isinstance(adapter, RetrieverAdapter)):
        raise ValueError(f"adapter must be a RetrieverAdapter, 'pretrained' or None, got {adapter!r}.")


def _resolve(name_or_path: str | os.PathLike[str], filename: str, hub: dict[str, Any]) -> Path:
    """Return the local path of a file of a folder or a Hub repository."""
    if not Path(name_or_path).is_dir():
        return Path(hf_hub_download(str(name_or_path), filename, **hub))
    path = Path(name_or_path) / filename
    if not path.exists():
        raise FileNotFoundError(f"{name_or_path} has no {filename}.")
    return path


def _make_reader(config: AdapterConfig) -> Reader:
    settings = dict(config.reader)
    kind = settings.pop("kind")
    if not isinstance(kind, str) or kind not in READERS:
        raise ValueError(f"reader must be of a kind among {', '.join(READERS)}, got {kind!r}.")
    if config.embedding_dim is None and (kind != "features" or settings.get("queries")):
        raise ValueError("embedding_dim must be given for a reader that reads embeddings of one dimension.")
    try:
        return READERS[kind](config.embedding_dim or 0, config.tau, **settings)
    except TypeError as error:
        raise ValueError(f"reader has a setting that the kind {kind!r} doesn't know: {error}") from error
