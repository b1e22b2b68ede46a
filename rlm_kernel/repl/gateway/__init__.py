"""``repl="gateway"``: kernels of a Kernel Gateway, a Jupyter Server or an Enterprise Gateway."""
