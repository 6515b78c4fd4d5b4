"""Encoding texts into embeddings on disk."""

from .checks import check_embeddings
from .collection import CollectionEmbeddings, embed_collection
from .encode import encode
from .encoding_error import EncodingError, encoding_error
from .fingerprint import collection_fingerprint, encoder_fingerprint, texts_fingerprint
from .storage import load_embeddings, save_embeddings

__all__ = [
    "CollectionEmbeddings",
    "EncodingError",
    "check_embeddings",
    "collection_fingerprint",
    "embed_collection",
    "encode",
    "encoder_fingerprint",
    "encoding_error",
    "load_embeddings",
    "save_embeddings",
    "texts_fingerprint",
]
