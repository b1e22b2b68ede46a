"""What the tests of the WebAssembly sandbox share: sessions, the attack runner, the skip without Deno."""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import asynccontextmanager

import pytest
from kernels import Repl

from rlm_kernel.context import Context

HAS_DENO = importlib.util.find_spec("deno") is not None or shutil.which("deno") is not None
needs_deno = pytest.mark.skipif(not HAS_DENO, reason="the extra pyodide (Deno) is not installed")


@asynccontextmanager
async def open_sandbox(*contexts, env=None, settings=None):
    """A started session in a sandbox, and the handler of its calls."""
    from rlm_kernel.repl.pyodide.transport import PyodideTransport, make_ready
    from rlm_kernel.repl.session import JupyterSession

    make_ready()
    session = JupyterSession(PyodideTransport(env=env), settings)
    try:
        await session.start([Context.of(name, value) for name, value in contexts])
        yield Repl(session)
    finally:
        await session.close()
