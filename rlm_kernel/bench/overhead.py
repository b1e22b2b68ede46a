"""The overhead benchmark: what a run costs beside the model, in one go with two references.

Row by row, contenders take turns within each repetition, so that a machine that slows down slows all of them.
Every number comes from the endpoint's notes or from the contender's own clock; every answer is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from ..errors import InputError
from .cold import COLD, IMPORTS
from .contender import NAMES
from .memory import peak
from .processes import Cold, Done, Processes, run_code
from .workloads import Sizes, Workload

__all__ = ["GROUPS", "Row", "Target", "measure"]

COLD_O = "cold O"
MB = 1_000_000
# Contexts whose size is the row; the rest of the memory is Python's.
MEMORY_TARGETS = {100: 340, 500: 1300, 1000: 2500}
NOT_AT_IMPORT = frozenset({"openai", "aiohttp", "zmq", "IPython", "ipykernel", "ipywidgets"})


@dataclass(frozen=True, slots=True)
class Target:
    """What ours must reach: ``most`` times the median of ``of``, or ``most`` units where that is None."""

    most: float
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: samples by contender, one for each repetition."""

    name: str
    what: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    target: Target | None = None
    note: str = ""

    def ratio(self, of: str) -> float | None:
        """Return the median of ours, divided by that of another contender."""
        if not self.samples.get("ours") or not self.samples.get(of):
            return None
        return median(self.samples["ours"]) / median(self.samples[of])

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none, or nothing to hold it against."""
        if self.target is None or not self.samples.get("ours"):
            return None
        if self.target.of is None:
            return median(self.samples["ours"]) <= self.target.most
        ratio = self.ratio(self.target.of)
        return None if ratio is None else ratio <= self.target.most


@dataclass(slots=True)
class _Bench:
    """What the groups of rows share."""

    processes: Processes
    sizes: Sizes
    repeat: int
    cold: dict[str, list[Cold]] = field(default_factory=dict)

    def done(self, workload: Workload, names: Sequence[str] = NAMES) -> dict[str, list[Done]]:
        """Have contenders do ``workload`` in turn, after one round that does not count."""
        workload = replace(workload, warm=self.sizes.warm)
        done: dict[str, list[Done]] = {name: [] for name in names}
        for number in range(self.repeat + 1):
            for name in names:
                result = self.processes.do(name, workload)
                if number:
                    done[name].append(result)
        return done


def measure(
    sizes: Sizes, *, groups: Sequence[str], repeat: int, report: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Measure the rows of ``groups``; ``report`` is told which is under way.

    Raises:
        InputError: there is no such group.
        RLMError: a contender failed, or answered wrongly.
    """
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise InputError(f"no rows named {unknown[0]!r}", hint=f"there are {', '.join(GROUPS)}")
    rows: list[Row] = []
    with Processes() as processes:
        bench = _Bench(processes, sizes, repeat)
        for name in groups:
            report(name)
            rows += GROUPS[name](bench)
    return rows


def _turn(bench: _Bench) -> Iterator[Row]:
    turns = bench.sizes.turns
    root = f"turns-{turns}"
    done = bench.done(Workload(root, expected=str(turns), max_iterations=turns))
    gaps = {name: [each.gaps(root) for each in results] for name, results in done.items()}
    late = {name: [median(each[-3:]) for each in runs] for name, runs in gaps.items()}
    # The first gap holds a kernel's start where none is ready.
    flat = {name: [median(each[-5:]) / median(each[1:6]) for each in runs] for name, runs in gaps.items()}
    yield Row("turn", f"reply to next request, trivial cell, at turn {turns}", "ms", late, Target(1.0, "O"))
    yield Row("turn", "late turns by early ones (last 5, turns 2 to 6)", "x", flat, Target(1.3))
    first = {name: [each[0] for each in runs] for name, runs in gaps.items()}
    yield Row("turn", "the same after turn 1, what is left of a kernel's start included", "ms", first)


def _call(bench: _Bench) -> Iterator[Row]:
    count = bench.sizes.calls
    done = bench.done(Workload(f"calls-{count}", expected=str(count)))
    gaps = {name: [median(each.gaps("sub-0")) for each in results] for name, results in done.items()}
    yield Row("call", f"sub-call: reply to next request, {count} in sequence", "ms", gaps, Target(0.7, "O"))


def _fan_out(kind: str, what: str, target: Target) -> Callable[[_Bench], Iterator[Row]]:
    def rows(bench: _Bench) -> Iterator[Row]:
        sizes = bench.sizes
        root, sub = f"{kind}-{sizes.batch}", f"sub-{sizes.latency}"
        done = bench.done(Workload(root, sub, expected=str(sizes.batch)))
        # The work is the second turn's.
        gaps = {name: [each.gaps(root)[1] for each in results] for name, results in done.items()}
        yield Row(kind, f"{sizes.batch} sub-calls of {sizes.latency} ms {what}", "ms", gaps, target)

    return rows


def _warm(bench: _Bench) -> Iterator[Row]:
    done = bench.done(Workload("one", expected="1000"))
    seconds = {name: [1000 * each.seconds for each in results] for name, results in done.items()}
    yield Row(
        "warm", "one-turn completion in a warm process, close included", "ms", seconds, Target(0.3, "O")
    )


def _children(bench: _Bench) -> Iterator[Row]:
    count = bench.sizes.children
    root = f"children-{count}"
    done = bench.done(Workload(root, "child", expected=str(count), max_depth=2))
    gaps = {name: [each.gaps(root)[1] for each in results] for name, results in done.items()}
    gaps[COLD_O] = [each.process for each in _cold_runs(bench)["O"]]
    what = f"{count} recursive children at once (cold O: process to first request)"
    yield Row("children", what, "ms", gaps, Target(1.0, COLD_O))


def _concurrent(bench: _Bench) -> Iterator[Row]:
    count = bench.sizes.completions
    what = f"{count} concurrent completions of 5 turns"
    for apart, name, target in (
        (False, what, Target(1.0, "O")),
        (True, f"{what}, each with its own client", None),
    ):
        done = bench.done(Workload("turns-5", expected="5", completions=count, apart=apart))
        seconds = {who: [1000 * each.seconds for each in results] for who, results in done.items()}
        yield Row("concurrent", name, "ms", seconds, target)


def _cold_runs(bench: _Bench) -> dict[str, list[Cold]]:
    if not bench.cold:
        bench.cold = {name: [] for name in COLD}
        for number in range(bench.repeat + 1):
            for name, runs in bench.cold.items():
                result = bench.processes.cold(name)
                if number:
                    runs.append(result)
    return bench.cold


def _cold(bench: _Bench) -> Iterator[Row]:
    runs = _cold_runs(bench)
    call = {name: [each.call for each in results] for name, results in runs.items()}
    process = {name: [each.process for each in results] for name, results in runs.items()}
    what = "cold process: first line, imports included, to first request"
    yield Row("cold", what, "ms", call, Target(1.0, "O"))
    yield Row("cold", "the same from the start of the process", "ms", process)


def _import(bench: _Bench) -> Iterator[Row]:
    target: Target | None = Target(100.0)
    for name, what in (("package", "import rlm_kernel"), ("facade", "from rlm_kernel import RLM")):
        run_code(IMPORTS[name])
        seconds = []
        for _ in range(bench.repeat):
            took, modules = run_code(IMPORTS[name]).splitlines()
            seconds.append(1000 * float(took))
        heavy = sorted(NOT_AT_IMPORT & set(modules.split()))
        note = (
            f"{len(modules.split())} modules; of those that are slow to import: {', '.join(heavy) or 'none'}"
        )
        yield Row("import", what, "ms", {"ours": seconds}, target, note)
        target = None


def _memory(bench: _Bench) -> Iterator[Row]:
    for size in bench.sizes.memory:
        chars = size * MB
        workload = Workload(f"read-{size}", expected=str(chars), chars=chars, warm=False)
        samples: dict[str, list[float]] = {name: [] for name in NAMES}
        note = ""
        for _ in range(max(1, bench.repeat // 3)):
            for name in NAMES:
                done, taken = bench.processes.do_sampled(name, workload)
                highest, groups = peak(taken, done.kernels)
                samples[name].append(highest / MB)
                if name == "ours":
                    parts = {("kernel" if key in done.kernels else key): of for key, of in groups.items()}
                    spare = sum(of for key, of in parts.items() if key.startswith("rlm-"))
                    parts["spare"] = parts.get("spare", 0) + spare
                    shown = ("caller", "kernel", "other", "shared", "spare")
                    note = ", ".join(f"{key} {parts.get(key, 0) / MB:.0f}" for key in shown)
                    note += f"; {len(taken)} samples"
        target = Target(MEMORY_TARGETS[size]) if size in MEMORY_TARGETS else None
        what = f"context of {size} MB of ASCII text: peak of the process tree"
        yield Row("memory", what, "MB", samples, target, note)


def _flood(bench: _Bench) -> Iterator[Row]:
    size = bench.sizes.flood
    for kind, what in (("flood", "in one piece"), ("lines", "in lines of 100 bytes")):
        root = f"{kind}-{size}"
        done = bench.done(Workload(root, expected=str(size)))
        gaps = {name: [each.gaps(root)[1] for each in results] for name, results in done.items()}
        grown = {
            name: [each.grown / MB for each in results if each.grown is not None]
            for name, results in done.items()
        }
        yield Row("flood", f"{size} MB printed in a cell, {what}", "ms", gaps, Target(3.0, "O"))
        yield Row("flood", "by how much the orchestrator grows at its peak", "MB", grown, Target(20.0))


def _many(bench: _Bench) -> Iterator[Row]:
    turns = bench.sizes.many
    part = max(1, turns // 10)
    root = f"turns-{turns}"
    workload = Workload(root, expected=str(turns), max_iterations=turns)
    # O walks the whole history on each turn: at this length it would take the better part of an hour.
    names = ("A", "ours")
    flat: dict[str, list[float]] = {name: [] for name in names}
    late: dict[str, list[float]] = {name: [] for name in names}
    note = ""
    for _ in range(max(1, bench.repeat // 3)):
        for name in names:
            done = bench.processes.do(name, workload)
            gaps = done.gaps(root)
            flat[name].append(median(gaps[-part:]) / median(gaps[1 : part + 1]))
            late[name].append(median(gaps[-part:]))
            note = f"the last request has {done.notes[-1]['bytes']:,} bytes; O is left out, it is quadratic"
    yield Row("many", f"{turns} root turns: last {part} by first {part}", "x", flat, Target(1.5), note)
    yield Row("many", "reply to next request, of the last of them", "ms", late)


def _idle(bench: _Bench) -> Iterator[Row]:
    workload = Workload("one", expected="1000")
    rest = [bench.processes.at_rest("ours", workload) for _ in range(max(1, bench.repeat // 3))]
    what = "at rest after a run: processes besides the caller's own"
    yield Row("idle", what, "", {"ours": [each.processes for each in rest]}, Target(5.0))
    yield Row("idle", "their memory", "MB", {"ours": [each.size / MB for each in rest]})
    yield Row("idle", "CPU of all, the caller's too", "%", {"ours": [100 * each.cpu for each in rest]})


GROUPS: Mapping[str, Callable[[_Bench], Iterator[Row]]] = {
    "turn": _turn,
    "call": _call,
    "batch": _fan_out("batch", "in one batch", Target(2.0, "A")),
    "pool": _fan_out("pool", "from a ThreadPoolExecutor(32)", Target(1.5, "A")),
    "warm": _warm,
    "children": _children,
    "concurrent": _concurrent,
    "cold": _cold,
    "import": _import,
    "memory": _memory,
    "flood": _flood,
    "many": _many,
    "idle": _idle,
}
"""What can be measured, in the order of the table."""
