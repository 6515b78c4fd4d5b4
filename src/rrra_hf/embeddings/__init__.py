"""Encoding texts into embeddings on disk."""
