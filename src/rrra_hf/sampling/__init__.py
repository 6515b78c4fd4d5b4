"""Strategies that turn scores of negatives into weights: arrays in, arrays out."""
