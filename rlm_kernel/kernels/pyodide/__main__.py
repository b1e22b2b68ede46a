"""Start the kernel, as ``python -m rlm_kernel.kernels.pyodide -f FILE``: what its kernelspec does."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # A module beside the notebook must not take the place of one that the kernel needs.
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]

    from . import main

    main()
