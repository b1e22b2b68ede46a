"""Recursive Language Models whose REPL is a real Jupyter kernel."""

__version__ = "0.1.0.dev0"
