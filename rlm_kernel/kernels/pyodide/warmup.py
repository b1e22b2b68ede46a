"""``jupyter rlm warmup``: have what the kernel `rlm-pyodide` runs on in place before it is needed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``warmup`` to the command line."""
    parser = commands.add_parser(
        "warmup",
        help="download and prepare what the WebAssembly sandbox runs on",
        description="Download Pyodide through Deno's npm client, check it against the pinned hashes, and "
        "take the snapshot that sandboxes start from. With RLM_PYODIDE_PATH, a local copy is taken instead.",
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_warmup)


def _warmup(args: argparse.Namespace) -> int:
    from ...repl.pyodide.runtime import VERSION  # noqa: PLC0415  on use
    from ...repl.pyodide.transport import make_ready  # noqa: PLC0415  on use

    folder = make_ready()
    sys.stdout.write(f"Pyodide {VERSION} is ready in {folder}\n")
    return 0
