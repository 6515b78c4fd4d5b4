"""Fingerprints of encoders, texts and arrays. Equal fingerprints mean equal embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from transformers import PreTrainedModel

from .checks import BLOCK_SIZE

if TYPE_CHECKING:
    from ..data import Collection

LENGTH = 16
# Settings that change on saving and loading, that don't affect embeddings, or that are among the settings or
# modules of sentence-transformers already.
IGNORED_SETTINGS = {
    "_name_or_path",
    "adapter",
    "after_pooling",
    "architectures",
    "auto_map",
    "base_model_name",
    "base_model_revision",
    "base_weights",
    "default_prompt_name",
    "document_prompt",
    "dtype",
    "max_seq_length",
    "prompts",
    "query_prompt",
    "similarity_fn_name",
    "transformers_version",
    "truncate_dim",
    "use_cache",
}


def encoder_fingerprint(model: SentenceTransformer) -> str:
    """Compute a fingerprint of everything in an encoder that affects its embeddings.

    It covers weights, modules and their settings, prompts, tokenizers and maximum lengths. It doesn't cover
    names and paths, nor the adapter of an `RRRAModel`, which reads embeddings but doesn't change them.

    Args:
        model: The encoder, on the torch backend.

    Returns:
        16 hexadecimal digits, the same after saving and loading.

    Raises:
        ValueError: If the encoder runs on another backend.
    """
    if model.get_backend() != "torch":
        raise ValueError(
            f"model must run on the torch backend to be fingerprinted, got {model.get_backend()!r}."
        )
    digest = hashlib.sha256()
    _add_weights(digest, model)
    settings = {
        "prompts": model.prompts,
        "default_prompt": model.default_prompt_name,
        "truncate_dim": model.truncate_dim,
        "modules": [
            _module_settings(name, module)
            for name, module in model.named_modules()
            if isinstance(module, Module)
        ],
        "configs": [
            _without_ignored(module.config.to_dict())
            for module in model.modules()
            if isinstance(module, PreTrainedModel)
        ],
        # The scaling of a LoRA layer is an attribute, not a weight.
        "lora": [
            (name, module.scaling, module.active_adapters, module.disable_adapters)
            for name, module in model.named_modules()
            if isinstance(getattr(module, "scaling", None), dict)
        ],
    }
    _add(digest, json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:LENGTH]


def texts_fingerprint(texts: Iterable[str]) -> str:
    """Compute a fingerprint of texts. It depends on their order.

    Args:
        texts: The texts.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> texts_fingerprint(["ab", "c"]) == texts_fingerprint(["a", "bc"])
        False
    """
    digest = hashlib.sha256()
    for text in texts:
        _add(digest, text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:LENGTH]


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """Compute a hash per text, to find its embedding again in another corpus.

    Args:
        texts: The texts.

    Returns:
        Hashes of 16 bytes, `(n,)`, dtype `S16`. Among 10^8 texts, the probability of a collision is 10^-23.

    Example:
        >>> hashes = text_hashes(["a", "b", "a"])
        >>> (hashes == hashes[0]).tolist()
        [True, False, True]
    """
    digests = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=LENGTH).digest() for text in texts
    )
    return np.fromiter(digests, dtype=f"S{LENGTH}")


def array_fingerprint(array: np.ndarray) -> str:
    """Compute a fingerprint of the values, shape and type of an array, block by block.

    Args:
        array: The array.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    for start in range(0, len(array), BLOCK_SIZE):
        digest.update(array[start : start + BLOCK_SIZE].tobytes())
    return digest.hexdigest()[:LENGTH]


def collection_fingerprint(collection: Collection) -> dict[str, str]:
    """Compute fingerprints of documents, queries and the labels of all splits.

    Args:
        collection: The collection.
    """
    labels = (
        f"{split}\t{query_id}\t{document_id}\t{grade}"
        for split, by_query in collection.qrels_by_split.items()
        for query_id, grades in by_query.items()
        for document_id, grade in grades.items()
    )
    return {
        "documents": texts_fingerprint([*collection.document_ids, *collection.document_texts]),
        "queries": texts_fingerprint([*collection.query_ids, *collection.query_texts]),
        "qrels": texts_fingerprint(labels),
    }


def _add(digest: Any, part: Any) -> None:
    """Hash the length of a part and then the part, so that parts can't run into each other."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def _add_weights(digest: Any, model: SentenceTransformer) -> None:
    for name, weight in sorted(model.state_dict().items()):
        if "adapter" in name.split("."):
            continue
        _add(digest, f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        _add(digest, weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _module_settings(name: str, module: Module) -> dict[str, Any]:
    tokenizer = getattr(module, "tokenizer", None)
    return {
        "name": name,
        "class": type(module).__name__,
        "config": module.get_config_dict(),
        "max_seq_length": getattr(module, "max_seq_length", None),
        "tokenizer": None if tokenizer is None else _tokenizer_settings(tokenizer),
    }


def _tokenizer_settings(tokenizer: Any) -> Any:
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(fast, "to_str"):
        return tokenizer.get_vocab()
    settings = json.loads(fast.to_str())
    # Each call of the tokenizer changes these two settings.
    del settings["truncation"], settings["padding"]
    sides = [getattr(tokenizer, side, None) for side in ("truncation_side", "padding_side")]
    return [settings, sides]


def _without_ignored(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {name: _without_ignored(value) for name, value in settings.items() if name not in IGNORED_SETTINGS}
