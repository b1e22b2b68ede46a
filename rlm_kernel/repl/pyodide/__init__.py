"""The WebAssembly sandbox: one Deno process without permissions, in which Pyodide runs.

Each part trusts the next one less: the kernel `rlm_kernel.kernels.pyodide` speaks Jupyter and holds the
connection's key; `child` holds the process and believes nothing that comes from it; ``supervisor.mjs``,
``worker.mjs`` and ``agent.py`` run in there. The boundary is Deno's set of permissions, which is empty before
guest code runs, and the limits that `child` keeps. Pyodide is not: code in a cell can reach all of
JavaScript.
"""
