"""Encode texts, cache embeddings on disk, and read embeddings from other sources."""

from .checks import check_embeddings
from .collection import CollectionEmbeddings, embed_collection
from .encode import encode
from .fingerprint import collection_fingerprint, encoder_fingerprint, texts_fingerprint
from .storage import load_embeddings, save_embeddings
from .vectors import Vectors, read_milvus, read_npy, read_parquet

__all__ = [
    "CollectionEmbeddings",
    "Vectors",
    "check_embeddings",
    "collection_fingerprint",
    "embed_collection",
    "encode",
    "encoder_fingerprint",
    "load_embeddings",
    "read_milvus",
    "read_npy",
    "read_parquet",
    "save_embeddings",
    "texts_fingerprint",
]
