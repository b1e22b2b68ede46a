"""The code that runs inside Pyodide, where it is the package ``_rlm_agent``: standard library only."""
