"""Measures of ranking quality and calibration: arrays in, numbers out."""
