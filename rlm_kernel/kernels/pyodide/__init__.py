"""The kernel `rlm-pyodide`: Python in WebAssembly, in a process without permissions, as a Jupyter kernel."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the kernel; its arguments are those of any Jupyter kernel."""
    from .kernel import launch  # noqa: PLC0415  on use

    launch()
