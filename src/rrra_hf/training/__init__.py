"""Fitting adapters and training encoders."""
