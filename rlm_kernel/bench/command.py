"""``jupyter rlm bench overhead``: from the command line's arguments to the table."""

from __future__ import annotations

import argparse
import json
import sys

from . import backends
from .overhead import GROUPS, measure
from .report import as_json, as_table, conditions
from .workloads import Sizes

__all__ = ["overhead"]

QUICK = Sizes(many=200, memory=(100,))


def overhead(args: argparse.Namespace) -> None:
    """Measure what the arguments ask for, and print it; progress goes to stderr."""
    if args.repl:
        _backends(args)
        return
    groups = [each.strip() for each in args.rows.split(",")] if args.rows else list(GROUPS)
    sizes, repeat = (QUICK, min(3, args.repeat)) if args.quick else (Sizes(), args.repeat)
    where = conditions()
    rows = measure(sizes, groups=groups, repeat=repeat, report=_progress)
    where["load afterwards"] = conditions()["load"]
    if args.json:
        sys.stdout.write(json.dumps(as_json(rows, where, repeat)) + "\n")
    else:
        sys.stdout.write(as_table(rows, where, repeat) + "\n")


def _backends(args: argparse.Namespace) -> None:
    names, not_here = backends.usable([each.strip() for each in args.repl.split(",")])
    groups = [each.strip() for each in args.rows.split(",")] if args.rows else []
    sizes, repeat = (QUICK, min(3, args.repeat)) if args.quick else (Sizes(), args.repeat)
    where = conditions()
    rows = backends.compare(names, sizes, groups=groups, repeat=repeat, report=_progress)
    where["load afterwards"] = conditions()["load"]
    if args.json:
        sys.stdout.write(json.dumps(backends.as_json(rows, not_here, where)) + "\n")
    else:
        sys.stdout.write(backends.as_table(rows, names, not_here, where) + "\n")


def _progress(name: str) -> None:
    sys.stderr.write(f"measuring: {name}\n")
    sys.stderr.flush()
