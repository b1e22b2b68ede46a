"""JupyterLab's debugger, kept to this kernel's own process.

debugpy follows every Python process that the one it debugs starts, and these wait for somebody to attach. The
kernels that `%rlm` starts would not come up; and no front end of Jupyter's could attach to them.
"""

from __future__ import annotations

from typing import Any

from ipykernel import debugger

__all__ = ["Debugger"]


class Debugger(debugger.Debugger):
    """ipykernel's, without what is started from the kernel."""

    def start(self) -> Any:
        """Start debugging, where it was not yet."""
        if not self.debugpy_initialized:
            import debugpy  # noqa: PLC0415  on use

            debugpy.configure(subProcess=False)
        return super().start()  # type: ignore[no-untyped-call]
