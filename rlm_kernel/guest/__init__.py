"""The code that runs inside the kernel.

The host ships these files as source text and executes them in the kernel as a package of the name
``rlm_guest``; nothing has to be installed there. So every module here is standard library only, runs on
Python 3.9 to 3.14, in CPython and in Pyodide, with or without ipykernel. `formats`, `image`, `encode`,
`decode` and `describe` are used on the host as well: both sides share one form.

Nothing here is trusted by the host: code in a cell can change all of it, and fool itself at most.
"""
