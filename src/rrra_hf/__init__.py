"""Retriever adapters: find the false negatives among hard negatives, train without them, rerank."""
