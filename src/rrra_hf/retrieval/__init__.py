"""Searching and reranking."""
