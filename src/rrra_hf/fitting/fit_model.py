"""Fitting the adapter of a model on a collection, its encoder frozen."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..embeddings import embed_collection, encode
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.modeling_rrra import RRRAModel
from .arguments import AnyFitArguments, FitArguments
from .fit import fit_adapter

if TYPE_CHECKING:
    from ..data import Collection

logger = logging.getLogger(__name__)


def fit_model(
    model: RRRAModel,
    collection: Collection,
    arguments: AnyFitArguments | None = None,
    *,
    pool: CandidatePool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
) -> RRRAModel:
    """Replace the model's adapter by one fitted on the collection's training queries.

    If there is a split `dev`, its queries count in the choices and are not fitted on.

    Args:
        model: The model. Its encoder stays as it is; its adapter is replaced.
        collection: A collection with the split `train`.
        arguments: Settings, as in `fit_adapter`.
        pool: Candidates mined before with this model; mined here if not given.
        cache_dir: Folder of the cache of embeddings.
        batch_size: Encoder batch size.

    Returns:
        The same model.

    Raises:
        ValueError: If there is no split `train`, or the pool was made by another model or from other
            texts.

    Example:
        ::

            collection = load_collection("my-collection")
            model = RRRAModel.from_encoder("sentence-transformers/all-MiniLM-L6-v2")
            fit_model(model, collection, cache_dir="cache")
            retriever = Retriever(model).index(collection, cache_dir="cache")
    """
    arguments = arguments or FitArguments()
    training = collection.split("train")
    model.adapter = RetrieverAdapter(AdapterConfig(embedding_dim=model.config.embedding_dim)).eval()
    encoder = model.to_sentence_transformer()
    embeddings = embed_collection(training, encoder, cache_dir=cache_dir, batch_size=batch_size)

    words = WordIndex.of(training.document_texts)
    development = None
    if "dev" in collection.splits:
        part = collection.split("dev")
        queries = encode(encoder, part.query_texts, task="query", cache_dir=cache_dir, batch_size=batch_size)
        development = LabelledQueries.of(part, queries, words.count(part.query_texts))
    if pool is None:
        pool = mine_collection(training, embeddings, arguments.depth, words=words)
    else:
        pool.require(embeddings.fingerprint)
    model.adapter = fit_adapter(
        embeddings.queries,
        embeddings.documents,
        pool=pool,
        development=development,
        arguments=arguments,
        query_words=words.count(training.query_texts),
        document_words=words,
    )
    model.adapter.config.fit["data"]["collection"] = collection.name
    return model
