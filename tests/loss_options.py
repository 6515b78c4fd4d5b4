"""Options of sentence-transformers' in-batch losses, which ours take as they do."""

from __future__ import annotations

from typing import Any

from sentence_transformers.util import dot_score

SYMMETRIC = ("query_to_doc", "doc_to_query")
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
PARENT_OPTIONS: list[dict[str, Any]] = [
    {},
    {"scale": 7.0, "similarity_fct": dot_score},
    {"directions": SYMMETRIC},
    {"directions": SYMMETRIC, "partition_mode": "per_direction"},
    {"directions": ALL},
    *(
        {"hardness_mode": mode, "hardness_strength": 5.0}
        for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")
    ),
    {"directions": ALL, "hardness_mode": "all_negatives", "hardness_strength": 9.0},
]
