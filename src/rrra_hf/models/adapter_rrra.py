"""The retriever adapter: from a query's and a document's embedding to the probability of relevance."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_rrra import AdapterConfig
from .download_rrra import checked_downloads
from .features_rrra import CandidateFeatures, FeatureReader

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

Array = TypeVar("Array", np.ndarray, Tensor)

MODEL_TYPE = "rrra_adapter"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
WEIGHTS_INDEX_NAME = "model.safetensors.index.json"


class AdapterOutput(NamedTuple):
    """What `RetrieverAdapter.forward` returns.

    Args:
        adapted: Adapted document embeddings `a`, `(..., dim)`.
        class_logits: Raw readouts, `(..., num_classes)`; classes in the order TP, FN, FP, TN if four.
        logits: Calibrated log-odds of relevance, `(...)`.
    """

    adapted: Tensor
    class_logits: Tensor
    logits: Tensor


class Reading(NamedTuple):
    """What `RetrieverAdapter.read` returns, each `(n, k)`.

    Args:
        cosines: The retriever's cosines.
        corrections: What `combine` weighs against them.
        logits: Calibrated log-odds of relevance.
    """

    cosines: Tensor
    corrections: Tensor
    logits: Tensor


class RetrieverAdapter(nn.Module):
    """Reads a bi-encoder's embeddings and estimates how likely a document is relevant to a query.

    With `q` and `c` the normalised embeddings of query and document, the adapted document embedding
    is a residual, `a = c + MLP(q, c, q * c)`. That is the paper's MLP over `[q - c, q * c, q + c]`
    (RRRA, arXiv 2508.11670) with its first layer rewritten: the parts for `q - c` and `q + c` are one
    matrix for each side, and reranking needs a single product a candidate for the layer. Three cosines
    are read out: `logit = (w . [cos(q, a), cos(a, c), cos(q, c)] + b) / temperature`. The last layer
    of the MLP starts at zero, so that an unfitted adapter has `a = c` and changes no ranking.

    Instead of the residual, the adapter may hold an `FeatureReader`, which reads further features beside the
    two embeddings: `config.features` has its sizes. It is fitted by `fit_adapter`.

    The adapter may hold the linear maps of a frozen stage 1, which move query (and document)
    embeddings before search. `map_queries` and `map_documents` apply them; every other method takes
    mapped embeddings, the ones that were searched with.

    Args:
        config: Sizes and settings.

    Example:
        >>> adapter = RetrieverAdapter(AdapterConfig(embedding_dim=8, hidden_size=4))
        >>> queries, candidates = np.eye(8, dtype=np.float32)[:2], np.ones((2, 3, 8), dtype=np.float32)
        >>> adapter.rerank(queries, candidates).shape
        (2, 3)
    """

    def __init__(self, config: AdapterConfig):
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.features = None if config.features is None else FeatureReader(dim, config.tau, **config.features)
        if self.features is None:
            self._make_residual(dim, config.hidden_size)
        self.query_map = nn.Linear(dim, dim, bias=False) if config.query_map else None
        self.document_map = nn.Linear(dim, dim, bias=False) if config.document_map else None
        self.reset_parameters()

    def _make_residual(self, dim: int, hidden: int) -> None:
        config = self.config
        self.query_layer = nn.Linear(dim, hidden)
        self.document_layer = nn.Linear(dim, hidden, bias=False)
        self.product_layer = nn.Linear(dim, hidden, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.output_layer = nn.Linear(hidden, dim)
        self.skip_layer = nn.Linear(3 * dim, dim, bias=False) if config.linear_skip else None
        self.readout = nn.Linear(3, config.num_classes)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the starting point: `a = c`, identity maps, and a readout that follows `cos(q, a)`."""
        for linear_map in (self.query_map, self.document_map):
            if linear_map is not None:
                nn.init.eye_(linear_map.weight)
        if self.features is not None:
            return
        nn.init.zeros_(self.output_layer.weight)
        nn.init.zeros_(self.output_layer.bias)
        if self.skip_layer is not None:
            nn.init.zeros_(self.skip_layer.weight)
        # The labelled classes rise with cos(q, a) and the others fall.
        signs = torch.tensor([1.0] if self.config.num_classes == 1 else [0.5, 0.5, -0.5, -0.5])
        self.readout.weight.copy_(torch.outer(signs, torch.tensor([1.0, 0.0, 0.0])) / self.config.tau)
        nn.init.zeros_(self.readout.bias)

    # ---------------------------------------------------------------- stage 1

    @torch.no_grad()
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

    # ---------------------------------------------------------------- the head

    def forward(self, q: Tensor, c: Tensor) -> AdapterOutput:
        """Adapt each document to each query and estimate its relevance.

        Args:
            q: Query embeddings, `(..., dim)`, of any length (they are normalised here).
            c: Document embeddings, `(..., dim)`, broadcastable against `q`.

        Raises:
            ValueError: If the adapter holds an `FeatureReader`, which is read by the methods below.
        """
        if self.features is not None:
            raise ValueError(
                "forward needs a residual adapter; this one reads features, call rerank instead."
            )
        q, c = F.normalize(q, dim=-1), F.normalize(c, dim=-1)
        product = q * c
        mixed = self.product_layer(product) + self.document_layer(c) + self.query_layer(q)
        skipped = None
        if self.skip_layer is not None:
            skipped = self.skip_layer(torch.cat(torch.broadcast_tensors(q, c, product), dim=-1))
        return self._adapt(q, c, product, mixed, skipped)

    def _adapt(
        self, q: Tensor, c: Tensor, product: Tensor, mixed: Tensor, skipped: Tensor | None
    ) -> AdapterOutput:
        adapted = c + self.output_layer(self.dropout(F.gelu(mixed)))
        if skipped is not None:
            adapted = adapted + skipped
        return self._read_out(q, adapted, c, product)

    def _adapt_candidates(self, q: Tensor, c: Tensor) -> AdapterOutput:
        """Return what `forward` does for `q` `(n, dim)` and `c` `(n, k, dim)`, with fewer products.

        What a document and its product with the query add to a layer, `W c + V (q * c)`, is linear in `c`: a
        query makes one matrix of `W` and `V` for all its candidates.
        """
        each = q[:, None]

        def layer(of_query: Tensor, of_document: Tensor, of_product: Tensor) -> Tensor:
            return torch.baddbmm(of_query[:, None], c, torch.addcmul(of_document, of_product, each).mT)

        mixed = layer(self.query_layer(q), self.document_layer.weight, self.product_layer.weight)
        skipped = None
        if self.skip_layer is not None:
            of_query, of_document, of_product = self.skip_layer.weight.chunk(3, dim=1)
            skipped = layer(F.linear(q, of_query), of_document, of_product)
        return self._adapt(each, c, each * c, mixed, skipped)

    def _read_out(self, q: Tensor, adapted: Tensor, c: Tensor, product: Tensor) -> AdapterOutput:
        norm = torch.linalg.vector_norm(adapted, dim=-1).clamp_min(1e-6)
        cosines = torch.stack(
            [(adapted * q).sum(-1) / norm, (adapted * c).sum(-1) / norm, product.sum(-1)], dim=-1
        )
        class_logits = self.readout(cosines)
        if self.config.num_classes == 1:
            log_odds = class_logits.squeeze(-1)
        else:
            log_odds = class_logits[..., :2].logsumexp(-1) - class_logits[..., 2:].logsumexp(-1)
        return AdapterOutput(adapted, class_logits, log_odds / self.config.temperature)

    @torch.no_grad()
    def probability(
        self, queries: Array, candidates: Array, features: CandidateFeatures | None = None
    ) -> Array:
        """Return the probability that each candidate is relevant to its query.

        For a candidate without a label, that is the probability of its being a false negative.

        Args:
            queries: Query embeddings, `(n, dim)`.
            candidates: Embeddings of each query's candidates, `(n, k, dim)`.
            features: What an `FeatureReader` reads beside the embeddings.

        Returns:
            Probabilities in [0, 1], `(n, k)`, of the type of `queries`.

        Raises:
            ValueError: If a shape is wrong, a value is not finite, or features is missing.
        """
        q, c = self._check_pair(queries, candidates)
        return self._like(torch.sigmoid(self.read(q, c, features=features).logits), queries)

    @torch.no_grad()
    def rerank(
        self,
        queries: Array,
        candidates: Array,
        scores: Array | None = None,
        features: CandidateFeatures | None = None,
    ) -> Array:
        """Return the reranking score of each candidate; sort by it, descending.

        The score is `scores / tau + lambda * logit` (`scoring="log_odds"`) or
        `(scores + 1) / 2 * probability ** lambda` (`scoring="product"`, the form of the paper). With an
        `FeatureReader`, its correction stands for the logit.

        Args:
            queries: Query embeddings, `(n, dim)`.
            candidates: Embeddings of each query's candidates, `(n, k, dim)`.
            scores: Cosines of the candidates, `(n, k)`; computed from the embeddings if not given.
            features: What an `FeatureReader` reads beside the embeddings.

        Returns:
            Reranking scores, `(n, k)`, of the type of `queries`.

        Raises:
            ValueError: If a shape is wrong, a value is not finite, or features is missing.

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
        return self._like(self.combine(reading.cosines, reading.corrections), queries)

    @torch.no_grad()
    def read(
        self,
        q: Tensor,
        c: Tensor,
        cosines: Tensor | None = None,
        features: CandidateFeatures | None = None,
    ) -> Reading:
        """Return what the adapter makes of each query's candidates, for ranking and as log-odds.

        Args:
            q: Query embeddings, `(n, dim)`.
            c: Embeddings of each query's candidates, `(n, k, dim)`.
            cosines: Cosines of the candidates, `(n, k)`; computed if not given.
            features: What an `FeatureReader` reads beside the embeddings.
        """
        q, c = F.normalize(q, dim=-1), F.normalize(c, dim=-1)
        if cosines is None:
            cosines = (q[:, None] * c).sum(-1)
        if self.features is None:
            logits = self._adapt_candidates(q, c).logits
            return Reading(cosines, logits, logits)
        found = self.features.features(q, c, cosines, features or CandidateFeatures())
        return Reading(
            cosines,
            self.features.ranking_head(found),
            self.features.relevance_head(found) / self.config.temperature,
        )

    @torch.no_grad()
    def shift_log_odds(self, amount: float) -> None:
        """Add to the log-odds of every pair, before the temperature divides them."""
        if self.features is not None:
            self.features.relevance_head.linear.bias.add_(amount)
            return
        # Half up on the labelled classes and half down on the others moves the log-odds by the whole.
        direction = [1.0] if self.config.num_classes == 1 else [0.5, 0.5, -0.5, -0.5]
        self.readout.bias.add_(torch.tensor(direction, device=self.readout.bias.device) * amount)

    def combine(self, cosines: Tensor, logits: Tensor, lambda_: float | None = None) -> Tensor:
        """Return the reranking scores from the retriever's cosines and the adapter's logits.

        Args:
            cosines: Any shape.
            logits: The same shape.
            lambda_: Weight of the adapter; the config's if not given.
        """
        weight = self.config.lambda_ if lambda_ is None else lambda_
        if self.config.scoring == "product":
            return (cosines + 1) / 2 * torch.sigmoid(logits) ** weight
        return cosines / self.config.tau + weight * logits

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
        if x.shape[-1] != self.config.embedding_dim:
            raise ValueError(f"{name} must have dimension {self.config.embedding_dim}, got {x.shape[-1]}.")

    @staticmethod
    def _like(result: Tensor, given: Array) -> Array:
        return result.detach().float().cpu().numpy() if isinstance(given, np.ndarray) else result

    # ---------------------------------------------------------------- saving and loading

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` to a directory, complete or not at all.

        Args:
            directory: Made if it isn't there; must not hold a model of another type.

        Raises:
            ValueError: If the directory holds a model of another type.
        """
        directory = Path(directory)
        if (directory / CONFIG_NAME).exists():
            found = _read_config(directory / CONFIG_NAME).get("model_type")
            if found != MODEL_TYPE:
                raise ValueError(f"{directory} holds a model of type {found!r}; save the adapter elsewhere.")
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as temporary:
            weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
            save_file(weights, Path(temporary) / WEIGHTS_NAME, metadata={"format": "pt"})
            config = {"model_type": MODEL_TYPE, **self.config.to_dict()}
            (Path(temporary) / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
            directory.mkdir(exist_ok=True)
            for name in (WEIGHTS_NAME, CONFIG_NAME):
                shutil.move(Path(temporary) / name, directory / name)

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
        """Load an adapter from a folder or Hub repository, its own or that of a whole `RRRAModel`.

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
        values = _read_config(config_path)
        model_type = values.pop("model_type", None)
        if model_type not in (MODEL_TYPE, "rrra"):
            raise ValueError(f"{name_or_path} holds a model of type {model_type!r}, not an adapter.")
        prefix = "" if model_type == MODEL_TYPE else "adapter."
        try:
            adapter = cls(AdapterConfig.from_dict(values["adapter"] if prefix else values))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{CONFIG_NAME} of {name_or_path} is no adapter's: {error}") from error
        with checked_downloads(config_path.parent, str(name_or_path)):
            weights = _read_weights(name_or_path, prefix, adapter.state_dict().keys(), hub)
        try:
            adapter.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"The adapter weights of {name_or_path} don't fit its config: {error}"
            ) from error
        return adapter.eval()

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
            repo_id: `namespace/name`; made if it isn't there.
            private: Make a new repository private; refuse one that is public.
            revision: Branch to commit to; made from `main` if it isn't there.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Message of the commit.

        Returns:
            The commit's address, a string, with `oid` and `pr_url`.

        Raises:
            ImportError: If the package isn't installed, but the adapter's code came with a model.
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off; nothing was committed.
            ValueError: If `private` was asked for and the repository is public.
        """
        try:
            from ..hub import push_folder
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


def _resolve(name_or_path: str | os.PathLike[str], filename: str, hub: dict[str, Any]) -> Path:
    """Return the local path of a file of a folder or a Hub repository."""
    if not Path(name_or_path).is_dir():
        return Path(hf_hub_download(str(name_or_path), filename, **hub))
    path = Path(name_or_path) / filename
    if not path.exists():
        raise FileNotFoundError(f"{name_or_path} has no {filename}.")
    return path


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON dict, got {type(values).__name__}.")
    return values


def _read_weights(
    name_or_path: str | os.PathLike[str], prefix: str, names: Any, hub: dict[str, Any]
) -> dict[str, Tensor]:
    """Read the adapter's tensors, and only those, from one weights file or from shards."""
    try:
        index = json.loads(_resolve(name_or_path, WEIGHTS_INDEX_NAME, hub).read_text())["weight_map"]
    except OSError:
        index = {}
    files = {name: index.get(prefix + name, WEIGHTS_NAME) for name in names}
    paths = {filename: _resolve(name_or_path, filename, hub) for filename in set(files.values())}
    weights = {}
    for name, filename in files.items():
        try:
            with safe_open(paths[filename], framework="pt") as file:
                weights[name] = file.get_tensor(prefix + name)
        except SafetensorError as error:
            raise ValueError(
                f"{paths[filename]} lacks the adapter weight {prefix + name!r} or is damaged: {error}"
            ) from error
    return weights
