"""Losses that know which negatives are probably relevant."""
