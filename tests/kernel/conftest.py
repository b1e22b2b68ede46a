"""Fixtures for the tests of real kernels."""

from __future__ import annotations

import pytest
from kernels import open_repl


@pytest.fixture
async def repl():
    async with open_repl(("context", "one\ntwo\nthree")) as repl:
        yield repl
