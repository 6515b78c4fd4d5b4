"""The three stages, from a collection and an encoder to a saved, reranking retriever."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import get_device_name
from transformers import set_seed

from ..adapter_rrra import RetrieverAdapter
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection, encoder_fingerprint, texts_fingerprint
from ..losses import RRRALoss
from ..mining import CandidatePool, mine
from ..modeling_rrra import RRRAModel
from .contrastive import train_contrastive
from .cross_fit import cross_fit
from .examples import LabelledQueries
from .fit import fit_adapter
from .measure import measure
from .run_folder import RunFolder, write_json
from .train_arguments import TrainArguments
from .train_data import pair_dataset, relevant_rows, resampled_dataset, with_development

logger = logging.getLogger(__name__)

MODEL_NAME = "model"


def train(
    collection: Collection,
    encoder: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    arguments: TrainArguments | None = None,
) -> RRRAModel:
    """Train a retriever in three stages, refit its adapter, and save it.

    1. The encoder is trained by contrast, on (query, positive) pairs with in-batch negatives.
    2. The encoder is frozen: its candidates are mined, their false-negative probabilities cross-fitted,
       and an adapter is fitted.
    3. The encoder of stage 1 is trained on with drawn candidates as hard negatives, each with the
       resampling weight that its probability says.
    4. The adapter is fitted again on the final encoder.

    Started again with the same arguments, an interrupted run continues where it stopped, and ends
    with the same result as one that was not interrupted.

    Args:
        collection: A collection with the split `train`; its split `dev`, or else a held-out part of
            `train`, serves as development queries in every stage.
        encoder: Folder or Hub repository of the encoder.
        output_dir: Folder of the run: `model/` is the result; `stage1/`, `stage2/`, `stage3/` hold what
            the stages made, `results.json` their figures, `embeddings/` the cache.
        arguments: Settings; the defaults if not given.

    Returns:
        The model in `output_dir/model`, in evaluation mode.

    Raises:
        ValueError: If `output_dir` belongs to another run, the message naming what differs; or if
            the collection has no split `train` or too few queries.
        OSError: If there is no such encoder.

    Source:
        RRRA, arXiv 2508.11670.
    """
    arguments = arguments or TrainArguments()
    parts = with_development(collection, arguments.fit.development_fraction, arguments.seed)
    start = _starting_model(encoder, arguments)
    settings = {
        "arguments": arguments.to_dict(),
        "collection": _collection_fingerprint(parts),
        "encoder": encoder_fingerprint(start.to_sentence_transformer()),
    }
    run = _Run(RunFolder(output_dir, settings), parts, arguments)
    run.do("stage1", lambda: run.stage1(start))
    del start
    run.do("stage2", run.stage2)
    run.do("stage3", run.stage3)
    run.do("final", run.final)
    return RRRAModel.from_pretrained(run.folder.path / MODEL_NAME).eval()


def _starting_model(encoder: str | os.PathLike[str], arguments: TrainArguments) -> RRRAModel:
    # LoRA starts from random weights.
    set_seed(arguments.seed)
    return RRRAModel.from_encoder(
        encoder,
        lora=(arguments.lora or True) if arguments.mode == "lora" else None,
        max_seq_length=arguments.max_seq_length,
    )


def _collection_fingerprint(collection: Collection) -> dict[str, Any]:
    qrels = (
        "\t".join((split, query_id, document_id, str(grade)))
        for split, by_query in collection.qrels_by_split.items()
        for query_id, grades in by_query.items()
        for document_id, grade in grades.items()
    )
    return {
        "documents": texts_fingerprint([*collection.document_ids, *collection.document_texts]),
        "queries": texts_fingerprint([*collection.query_ids, *collection.query_texts]),
        "qrels": texts_fingerprint(qrels),
    }
