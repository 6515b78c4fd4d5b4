"""Mining the documents that a retriever ranks high for each training query."""

from .mine import mine, mine_collection, mine_embeddings
from .pool import CandidatePool

__all__ = ["CandidatePool", "mine", "mine_collection", "mine_embeddings"]
