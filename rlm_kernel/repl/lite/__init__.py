"""``repl="lite"``: in a JupyterLite page, a second Pyodide kernel beside the notebook's own.

The run goes on in the notebook's kernel, which has rlm_kernel and the key; model-written code runs in the
other one, a worker with a memory of its own. The page's extension starts it and passes Jupyter messages to
and fro on a BroadcastChannel (`protocol`, `bridge`). Session, guest and wire are those of every backend. What
differs: calls have stdin alone, contexts are fetched over it (`files`), and nothing stops a cell but the end
of its kernel. Only the standard library is imported here, and what a page's Python has.
"""
