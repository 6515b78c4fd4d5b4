"""Nearest-neighbour indexes over document embeddings."""

from .approximate import ApproximateIndex
from .base import Index
from .choose import load_index, make_index
from .flat import FlatIndex
from .flat_search import search_flat
from .milvus import MilvusIndex
from .quantized import BinaryIndex, Int8Index, QuantizedIndex
from .recall import RecallReport, recall_report
from .word_cache import index_words
from .words import WordIndex

__all__ = [
    "ApproximateIndex",
    "BinaryIndex",
    "FlatIndex",
    "Index",
    "Int8Index",
    "MilvusIndex",
    "QuantizedIndex",
    "RecallReport",
    "WordIndex",
    "index_words",
    "load_index",
    "make_index",
    "recall_report",
    "search_flat",
]
