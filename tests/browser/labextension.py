"""The JupyterLab extension for tests: what `npm` makes of its sources, made anew where they have changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import rlm_kernel

ROOT = Path(rlm_kernel.__file__).parents[1]
SOURCES = ROOT / "extension"
BUILT = SOURCES / "labextension"
STATIC = ROOT / "rlm_kernel" / "notebook" / "static"
OF_SOURCES = ("src", "style", "package.json", "package-lock.json", "tsconfig.json", "tsconfig.build.json")


def npm(*words):
    """Run npm in the sources' folder; its output is shown where it fails."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["npm", *words],
        cwd=SOURCES,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"npm {' '.join(words)}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@contextmanager
def packages():
    """Hold the sources' folder, with the packages of its lock file installed; skip where npm is missing."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (apt-get install nodejs npm)")
    lock = ROOT / "build" / "extension.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        installed = SOURCES / "node_modules" / ".package-lock.json"
        if (
            not installed.exists()
            or installed.stat().st_mtime < (SOURCES / "package-lock.json").stat().st_mtime
        ):
            npm("ci")
        yield


def built():
    """Return the folder of the built extension."""
    with packages():
        newest = max(path.stat().st_mtime for path in _sources())
        done = BUILT / "package.json"
        if not done.exists() or done.stat().st_mtime < newest:
            npm("run", "build")
    return BUILT


def _sources():
    for name in OF_SOURCES:
        path = SOURCES / name
        yield from path.rglob("*") if path.is_dir() else (path,)
    yield from (STATIC / "tree.js", STATIC / "panel.css")
