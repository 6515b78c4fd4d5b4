"""Nearest-neighbour indexes over document embeddings."""
