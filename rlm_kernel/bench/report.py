"""The overhead benchmark as a table and as JSON, with what must be known of the machine to read it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median, quantiles
from typing import Any

from .. import __version__
from .overhead import Row, Target

__all__ = ["as_json", "as_table", "conditions", "number", "spread"]

_PACKAGES = ("openai", "aiohttp", "ipykernel", "pyzmq")
_HEAD = ("row", "what", "A", "O", "ours", "by A", "by O", "target", "")
_LEGEND = """\
Median and quartiles of {repeat} repetitions. A: raw aiohttp and exec. O: openai client and exec.
Ours: default settings. A target is a factor of the reference it names, or an amount."""


def conditions() -> dict[str, Any]:
    """Return what the numbers depend on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "rlm-kernel": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load": load,
        **{name: _version(name) for name in _PACKAGES},
    }


def as_json(rows: Sequence[Row], where: Mapping[str, Any], repeat: int) -> dict[str, Any]:
    """Return everything measured, as JSON values."""
    return {
        "conditions": dict(where),
        "repeat": repeat,
        "rows": [
            {
                "row": row.name,
                "what": row.what,
                "unit": row.unit,
                "samples": {name: list(samples) for name, samples in row.samples.items()},
                "medians": {name: median(samples) for name, samples in row.samples.items() if samples},
                "by": {name: row.ratio(name) for name in row.samples if name != "ours"},
                "target": None if row.target is None else {"most": row.target.most, "of": row.target.of},
                "reached": row.reached,
                "note": row.note,
            }
            for row in rows
        ],
    }


def as_table(rows: Sequence[Row], where: Mapping[str, Any], repeat: int) -> str:
    """Return the table in Markdown."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    rule = tuple("-" * width for width in widths)
    table = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (_HEAD, rule, *(lines[1:]))
    ]
    notes = [f"{row.name}: {row.what}: {row.note}" for row in rows if row.note]
    known = ", ".join(f"{name} {number(value)}" for name, value in where.items() if value is not None)
    return "\n".join([known, _LEGEND.format(repeat=repeat), "", *table, *([""] if notes else []), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    reached = {True: "reached", False: "missed", None: ""}[row.reached]
    what = row.what
    if extra := [name for name in row.samples if name not in ("A", "O", "ours")]:
        what += "".join(f"; {name} {spread(row.samples[name])}" for name in extra)
    return (
        row.name,
        f"{what}, {row.unit}" if row.unit else what,
        *(spread(row.samples.get(name, ())) for name in ("A", "O", "ours")),
        *(_factor(row.ratio(of)) for of in ("A", "O")),
        _target(row.target, row.unit),
        reached,
    )


def spread(samples: Sequence[float]) -> str:
    """Return the median, with the quartiles where there are enough samples."""
    if not samples:
        return "-"
    middle = number(median(samples))
    if len(samples) < 3:
        return middle
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return f"{middle} [{number(low)}-{number(high)}]"


def _factor(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _target(target: Target | None, unit: str) -> str:
    if target is None:
        return ""
    most = number(target.most)
    return f"{most} x {target.of}" if target.of else f"{most} {unit}".rstrip()


def number(value: Any) -> str:
    """Return a number as short as a table wants it; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
