"""Fixtures for the tests of real kernels."""

from __future__ import annotations

import pytest
from kernels import open_repl


@pytest.fixture
async def repl():
    async with open_repl(("context", "one\ntwo\nthree")) as repl:
        yield repl


@pytest.fixture(scope="session")
def spec_folder(tmp_path_factory):
    """A folder to find the kernelspec `rlm-pyodide` in, its runtime made ready."""
    from rlm_kernel.kernels.rlm.install import install
    from rlm_kernel.repl.pyodide.transport import make_ready

    make_ready()
    prefix = tmp_path_factory.mktemp("specs")
    install("rlm-pyodide", prefix=str(prefix))
    return prefix / "share" / "jupyter"
