"""Benchmarks: what this package costs beside the model, and (later) how well runs answer."""
