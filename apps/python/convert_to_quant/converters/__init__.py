"""Quantizers of single weights: one module per algorithm."""
