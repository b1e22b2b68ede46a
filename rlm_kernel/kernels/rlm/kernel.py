"""IPython's kernel with the magics loaded, and a shell that awaits a `%rlm` cell.

A cell that waits in the main thread keeps a kernel deaf: what the panel sends arrives when the cell is over.
Here the input transformer writes ``await`` before the call (`rlm_kernel.notebook.transform`), so the cell is
a coroutine like any other that a user may write, and the kernel goes on reading. Nothing of ipykernel is
replaced.
"""

from __future__ import annotations

from typing import Any

import traitlets
from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell

from ... import __version__
from ...notebook.magics import load

__all__ = ["RLMKernel", "RLMShell"]


class RLMShell(ZMQInteractiveShell):
    """The shell: `ask_rlm` is what its cells await."""

    async def ask_rlm(self, line: str, cell: str | None = None) -> Any:
        """Do what ``%rlm line`` says, or ``%%rlm line`` over ``cell``."""
        return await load(self).aask(line, cell)


class RLMKernel(IPythonKernel):
    """The kernel; to tools it is IPython's, since they go by its language."""

    shell_class = traitlets.Type(RLMShell)
    debugger_class = traitlets.Type("rlm_kernel.kernels.rlm.debugger.Debugger")
    implementation = "rlm-kernel"
    implementation_version = __version__

    @property
    def banner(self) -> str:  # type: ignore[override]
        """What a console shows first."""
        return f"{super().banner}rlm-kernel {__version__}: ask by %rlm QUESTION -c NAME; %rlm? tells more.\n"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        paper = {"text": "Recursive Language Models", "url": "https://arxiv.org/abs/2512.24601"}
        self.help_links = [*self.help_links, paper]
        load(self.shell)
