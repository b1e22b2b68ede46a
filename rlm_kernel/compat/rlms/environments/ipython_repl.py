"""``IPythonREPL`` of `rlms`, which here differs from ``LocalREPL`` in its arguments only."""

from __future__ import annotations

import warnings
from typing import Any

from ...cells import CELL_SECONDS
from ..utils.exceptions import UnsupportedArgumentError
from .local_repl import LocalREPL

__all__ = ["IPythonREPL", "check_kernel_mode"]


class IPythonREPL(LocalREPL):
    """Runs code in a kernel process; ``in_process`` is taken, with a warning, to mean the same."""

    def __init__(
        self,
        lm_handler_address: tuple[str, int] | None = None,
        context_payload: Any = None,
        setup_code: str | None = None,
        *,
        kernel_mode: str = "subprocess",
        cell_timeout: float | None = CELL_SECONDS,
        startup_timeout: float | None = None,
        subcall_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_kernel_mode(kernel_mode, stacklevel=3)
        for name, value in (("startup_timeout", startup_timeout), ("subcall_timeout", subcall_timeout)):
            if value is not None:
                warnings.warn(f"{name} has no effect here: cell_timeout holds for all", stacklevel=2)
        super().__init__(lm_handler_address, context_payload, setup_code, cell_timeout=cell_timeout, **kwargs)


def check_kernel_mode(mode: str, *, stacklevel: int) -> None:
    """Warn of a mode in which code would share this process.

    Raises:
        UnsupportedArgumentError: there is no such mode.
    """
    if mode == "in_process":
        warnings.warn(
            "kernel_mode='in_process': here code always runs in a kernel process of its own, and shares no "
            "objects with this one",
            stacklevel=stacklevel,
        )
    elif mode != "subprocess":
        raise UnsupportedArgumentError(f"no kernel_mode {mode!r}", hint="there is: subprocess, in_process")
