"""``jupyter rlm bench overhead --repl sandbox,pyodide``: what a sandbox costs, side by side with `local`.

Each backend has a process of its own that does the workloads of the overhead benchmark, in turns within each
repetition. A backend that can't run here is named with its reason and left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ..errors import InputError, RLMError
from ..repl.backend import KERNELS
from .memory import SPARE, peak
from .processes import Done, Processes
from .report import number, spread
from .workloads import Sizes, Workload

__all__ = ["BACKENDS", "Compared", "Goal", "as_json", "as_table", "compare", "usable"]

BACKENDS = ("local", "sandbox", "pyodide")
MB = 1_000_000
WITHOUT = "without snapshot"


@dataclass(frozen=True, slots=True)
class Goal:
    """What ``backend`` must reach: ``most`` units, or ``most`` times the median of ``of``."""

    backend: str
    most: float
    of: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of the table: samples by backend, one for each repetition."""

    name: str
    what: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    goal: Goal | None = None

    def ratio(self, backend: str, of: str) -> float | None:
        """Return the median of one, divided by that of the other."""
        if not self.samples.get(backend) or not self.samples.get(of):
            return None
        return median(self.samples[backend]) / median(self.samples[of])

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None if there is none, or nothing to hold it against."""
        if self.goal is None or not self.samples.get(self.goal.backend):
            return None
        if not self.goal.of:
            return median(self.samples[self.goal.backend]) <= self.goal.most
        ratio = self.ratio(self.goal.backend, self.goal.of)
        return None if ratio is None else ratio <= self.goal.most


@dataclass(slots=True)
class _Bench:
    processes: Processes
    names: Sequence[str]
    sizes: Sizes
    repeat: int

    def done(self, workload: Workload, repeat: int = 0) -> dict[str, list[Done]]:
        """Have the backends do ``workload`` in turn, where all is warm after a round that does not count."""
        if not self.sizes.warm:
            workload = replace(workload, warm=False, spare_kernels=0)
        done: dict[str, list[Done]] = {name: [] for name in self.names}
        for _ in range((repeat or self.repeat) + self.sizes.warm):
            for name in self.names:
                done[name].append(self.processes.do(name, replace(workload, repl=name)))
        return {name: results[int(self.sizes.warm) :] for name, results in done.items()}


def usable(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return which of ``names`` can run here, `local` first, and why each of the others can't.

    Raises:
        InputError: a name is none of `BACKENDS`.
    """
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise InputError(f"{unknown[0]!r} can't be compared", hint=f"there are {', '.join(BACKENDS)}")
    here, not_here = ["local"], {}
    for name in dict.fromkeys(names):
        if name == "local":
            continue
        try:
            check = getattr(KERNELS[name], "check", None)
            if check is not None:
                check()
            here.append(name)
        except RLMError as error:
            not_here[name] = f"{error} ({error.hint})" if error.hint else str(error)
    return here, not_here


def compare(
    names: Sequence[str],
    sizes: Sizes,
    *,
    groups: Sequence[str] = (),
    repeat: int,
    report: Callable[[str], None] = lambda text: None,
) -> list[Compared]:
    """Measure the rows of ``groups``, or all; ``report`` is told which is under way.

    Raises:
        InputError: there is no such group.
        RLMError: a backend failed, or a run answered wrongly.
    """
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise InputError(f"no rows named {unknown[0]!r}", hint=f"there are {', '.join(GROUPS)}")
    rows: list[Compared] = []
    with Processes() as processes:
        bench = _Bench(processes, names, sizes, repeat)
        for name in groups or GROUPS:
            report(name)
            rows += GROUPS[name](bench)
    return rows


def _starts(done: Mapping[str, Sequence[Done]]) -> dict[str, list[float]]:
    return {name: [1000 * each.starts[0] for each in results] for name, results in done.items()}


def _start(bench: _Bench) -> Iterator[Compared]:
    one = Workload("one", expected="1000", warm=False, spare_kernels=0)
    yield Compared("start", "kernel ready, none kept ready", "ms", _starts(bench.done(one)))
    ready = bench.done(Workload("one", expected="1000"))
    yield Compared("start", "kernel ready, from the pool", "ms", _starts(ready), Goal("pyodide", 50.0))


def _snapshot(bench: _Bench) -> Iterator[Compared]:
    if "pyodide" not in bench.names:
        return
    spent: dict[str, list[tuple[float, float]]] = {WITHOUT: [], "pyodide": []}
    for _ in range(bench.repeat):
        for name, of in spent.items():
            of.append(_child_start(snapshot=name != WITHOUT))
    for index, what in enumerate(("ready", "CPU until it is ready")):
        samples = {name: [each[index] for each in of] for name, of in spent.items()}
        goal = Goal("pyodide", 0.2, WITHOUT) if index else None
        yield Compared("snapshot", f"WebAssembly alone: {what}", "ms", samples, goal)


def _child_start(*, snapshot: bool) -> tuple[float, float]:
    """Return the milliseconds, and those of CPU, until a sandbox of Pyodide serves."""
    from ..repl.pyodide.child import Child  # noqa: PLC0415  on use
    from ..repl.pyodide.runtime import deno_command, ensure  # noqa: PLC0415  on use

    runtime, deno = replace(ensure(), snapshot=snapshot), deno_command()
    begun = time.perf_counter()
    child = Child(runtime, deno)
    try:
        child.ready()
        return 1000 * (time.perf_counter() - begun), 1000 * _cpu_of(child.pid)
    finally:
        child.close()


def _cpu_of(pid: int) -> float:
    """Return the seconds of CPU of a process, of threads that have ended too (proc(5), stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cell(bench: _Bench) -> Iterator[Compared]:
    turns = bench.sizes.turns
    root = f"turns-{turns}"
    done = bench.done(Workload(root, expected=str(turns), max_iterations=turns))
    gaps = {name: [median(each.gaps(root)[1:]) for each in results] for name, results in done.items()}
    yield Compared("cell", "reply to next request, trivial cell", "ms", gaps)


def _call(bench: _Bench) -> Iterator[Compared]:
    count = bench.sizes.calls
    done = bench.done(Workload(f"calls-{count}", expected=str(count)))
    gaps = {name: [median(each.gaps("sub-0")) for each in results] for name, results in done.items()}
    what = f"sub-call: reply to next request, {count} in sequence"
    yield Compared("call", what, "ms", gaps, Goal("pyodide", 3.0, "local"))
    size = bench.sizes.batch
    root, sub = f"batch-{size}", f"sub-{bench.sizes.latency}"
    done = bench.done(Workload(root, sub, expected=str(size)))
    gaps = {name: [each.gaps(root)[1] for each in results] for name, results in done.items()}
    yield Compared("call", f"{size} sub-calls of {bench.sizes.latency} ms in one batch", "ms", gaps)


def _context(bench: _Bench) -> Iterator[Compared]:
    size = bench.sizes.memory[0]
    chars = size * MB
    workload = Workload(f"read-{size}", expected=str(chars), chars=chars)
    few = max(1, bench.repeat // 3)
    loaded = _starts(bench.done(workload, few))
    yield Compared("context", f"{size} MB of ASCII text, until it is there, from the pool", "ms", loaded)
    samples: dict[str, list[float]] = {name: [] for name in bench.names}
    for _ in range(few):
        for name in bench.names:
            alone = replace(workload, repl=name, warm=False, spare_kernels=0)
            _, taken = bench.processes.do_sampled(name, alone)
            mine = {group for sample in taken for group in sample} - {SPARE}
            samples[name].append(peak(taken, mine)[0] / MB)
    what = f"{size} MB of ASCII text: peak of the process tree"
    yield Compared("context", what, "MB", samples, Goal("pyodide", 700.0))


def _text(bench: _Bench) -> Iterator[Compared]:
    root = f"text-{bench.sizes.text}"
    done = bench.done(Workload(root, expected=str(bench.sizes.text)))
    gaps = {name: [each.gaps(root)[1] for each in results] for name, results in done.items()}
    yield Compared("text", "text work in one cell: split, count, match, sort, JSON", "ms", gaps)


GROUPS: Mapping[str, Callable[[_Bench], Iterator[Compared]]] = {
    "start": _start,
    "snapshot": _snapshot,
    "cell": _cell,
    "call": _call,
    "context": _context,
    "text": _text,
}
"""What can be measured, in the order of the table."""


def as_table(
    rows: Sequence[Compared], names: Sequence[str], not_here: Mapping[str, str], where: Mapping[str, Any]
) -> str:
    """Return the table in Markdown."""
    others = [name for name in names if name != "local"]
    head = ["row", "what", "local"]
    for name in others:
        head += [name, "by local"]
    lines = [[*head, "goal", ""]]
    for row in rows:
        what = f"{row.what}, {row.unit}"
        if row.samples.get(WITHOUT):
            what += f"; {WITHOUT} {spread(row.samples[WITHOUT])}"
        cells = [row.name, what, spread(row.samples.get("local", ()))]
        for name in others:
            ratio = row.ratio(name, "local")
            cells += [spread(row.samples.get(name, ())), "-" if ratio is None else f"{ratio:.2f}"]
        reached = {True: "reached", False: "missed", None: ""}[row.reached]
        lines.append([*cells, _goal(row) if row.reached is not None else "", reached])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    table = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    known = ", ".join(f"{name} {number(value)}" for name, value in where.items() if value is not None)
    left_out = [f"{name} was not measured: {why}" for name, why in not_here.items()]
    return "\n".join([known, "Median and quartiles.", *left_out, "", *table])


def _goal(row: Compared) -> str:
    if row.goal is None:
        return ""
    of = f"x {row.goal.of}" if row.goal.of else row.unit
    return f"{row.goal.backend} {number(row.goal.most)} {of}"


def as_json(
    rows: Sequence[Compared], not_here: Mapping[str, str], where: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything measured, as JSON values."""
    return {
        "conditions": dict(where),
        "not_measured": dict(not_here),
        "rows": [
            {
                "row": row.name,
                "what": row.what,
                "unit": row.unit,
                "samples": {name: list(samples) for name, samples in row.samples.items()},
                "medians": {name: median(samples) for name, samples in row.samples.items() if samples},
                "goal": _goal(row),
                "reached": row.reached,
            }
            for row in rows
        ],
    }
