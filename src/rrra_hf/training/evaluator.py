"""Evaluation of the encoder in the course of the training."""

from __future__ import annotations

import numpy as np
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from ..candidates import CandidatePool
from ..candidates.labelled import pair_rows
from ..data import Collection

# At most so many development queries, with so many candidates each, so that an evaluation takes seconds on a
# GPU however large the corpus is.
QUERIES, CANDIDATES = 200, 50
NAME = "dev"
METRIC = f"eval_{NAME}_cosine_ndcg@10"


def evaluated_rows(pool: CandidatePool, seed: int) -> tuple[list[int], list[int]]:
    """Return rows of the queries and documents that are evaluated on.

    Args:
        pool: Candidates of the development queries, mined before the training.
        seed: Seed of the choice among more than `QUERIES` queries.
    """
    queries = np.arange(len(pool))
    if len(queries) > QUERIES:
        queries = np.sort(np.random.default_rng(seed).choice(queries, QUERIES, replace=False))
    labelled = pair_rows([pool.positives[query] for query in queries])[:, 1]
    found = pool.candidates[queries].ravel()
    return queries.tolist(), np.union1d(labelled, found[found >= 0]).tolist()


def development_evaluator(
    development: Collection, queries: list[int], documents: list[int], batch_size: int
) -> InformationRetrievalEvaluator:
    """Return sentence-transformers' evaluator on development queries and a part of the corpus.

    Its figures show the course of a training. They are higher than those on the whole corpus, since the
    documents are those that are labelled for these queries and the hardest for the encoder as it came. So
    they don't tell whether the training helped: see `choose_encoder`.

    Args:
        development: The development queries, with the whole corpus.
        queries: Rows of the queries.
        documents: Rows of the documents.
        batch_size: Encoder batch size.
    """
    names, texts = development.query_ids, development.query_texts
    ids, passages = development.document_ids, development.document_texts
    grades = {names[row]: development.qrels[names[row]] for row in queries}
    return InformationRetrievalEvaluator(
        queries={names[row]: texts[row] for row in queries},
        corpus={ids[row]: passages[row] for row in documents},
        relevant_docs={
            name: {document for document, grade in found.items() if grade > 0}
            for name, found in grades.items()
        },
        batch_size=batch_size,
        name=NAME,
        write_csv=False,
    )
