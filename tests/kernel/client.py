"""Jupyter clients that know this package's kernels, as if it were installed, from the files that say so."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from rlm_kernel.kernels.rlm.install import install

ROOT = Path(__file__).parents[2]


def environment(folder: Path, kernel: str) -> dict[str, str]:
    """Return an environment in which ``kernel`` is installed and this checkout's entry points are found."""
    install(kernel, prefix=str(folder))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    points = folder / "points" / "rlm_kernel_checkout-0.dist-info"
    points.mkdir(parents=True)
    (points / "METADATA").write_text("Metadata-Version: 2.1\nName: rlm-kernel-checkout\nVersion: 0\n")
    lines = [
        line
        for group, names in groups.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in names.items()))
    ]
    (points / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {
        **os.environ,
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "PYTHONPATH": os.pathsep.join([str(points.parent), str(ROOT)]),
    }
