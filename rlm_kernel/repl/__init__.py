"""The REPL: Jupyter kernels, prepared for runs and driven by Jupyter messages."""
