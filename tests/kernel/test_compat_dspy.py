"""`dspy.RLM` in our kernels, under dspy 3.4 in an environment of its own, made once on a machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
import venv
from pathlib import Path

import dspy_checks
import pytest

ROOT = Path(__file__).parents[2]
NEEDS = ("dspy>=3.4,<3.5", "ipykernel", "jupyter-client")
# Before the tests' own environment is cleared of such variables.
GIVEN = os.environ.get("RLM_TEST_DSPY")
# The environment is large, and a slow line takes its time.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def dspy_python(request, tmp_path_factory):
    """A Python that has dspy: RLM_TEST_DSPY, or an environment kept in pytest's cache."""
    if GIVEN:
        return GIVEN
    bin_ = Path("Scripts" if sys.platform == "win32" else "bin", "python")
    cache = getattr(request.config, "cache", None)
    folder = tmp_path_factory.mktemp("dspy") if cache is None else cache.mkdir("dspy")
    kept = folder / f"3.4-python{sys.version_info.major}.{sys.version_info.minor}"
    if not (kept / bin_).exists():
        shutil.rmtree(kept, ignore_errors=True)
        made = folder / f"new-{uuid.uuid4().hex[:8]}"
        try:
            venv.create(made, with_pip=True)
            pip = [
                made / bin_,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries",
                "1",
            ]
            done = subprocess.run([*pip, *NEEDS], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{NEEDS[0]} can't be installed here: {done.stderr.strip()[-200:]}")
            if not kept.exists():
                made.rename(kept)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return os.fspath(kept / bin_)


@pytest.fixture(scope="session")
def outcomes(dspy_python):
    """What came of each check; all run in one process, since importing dspy takes seconds."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OPENAI_API_KEY": "sk-canary-dspy-0123456789"}
    done = subprocess.run(
        [dspy_python, dspy_checks.__file__],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", dspy_checks.CHECKS)
def test_under_dspy(outcomes, name):
    assert outcomes[name] == ""
