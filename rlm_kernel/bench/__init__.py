"""Benchmarks: what this package costs beside the model."""
