"""``jupyter rlm bench gateway``: what a gateway gives to many runs at once, and how fast a warm kernel is.

All runs are of this process, over one gateway: started here unless one is given. A scripted endpoint in a
process of its own answers at once, so that what is measured is kernels, websockets and orchestrator. The
number of runs is bounded: each session makes a few, one after the other.

How much further gateways add is measured with ones that have a core of this machine each, as if they were
machines of their own; orchestrator and endpoint run beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from .. import config
from ..context import Context
from ..errors import CallError, InputError, RLMError
from ..events import CallFinished, CallStarted, Event, KernelStarted
from ..kernels.guard import descendants
from ..loopback import LoopbackGateway
from ..repl.gateway.address import Gateway
from ..repl.pool import Pool
from ..rlm import RLM
from .memory import pss
from .processes import Program
from .report import conditions, number

__all__ = ["Level", "Warm", "gateway", "level", "warm"]

MB = 1_000_000
TURNS = 6
RUNS = 2
WARM_TIMES = 7
WARM_GOAL_MS = 200.0
SAMPLE_SECONDS = 0.5
FULL_SECONDS = 120.0
KERNEL = "python3"
HEAD = (
    *("gateways", "sessions", "runs", "runs a minute", "turn gap p50, ms", "turn gap p95, ms"),
    *("kernel start p50, ms", "MB a kernel", "errors"),
)


@dataclass(frozen=True, slots=True)
class Level:
    """What came of ``sessions`` at once, spread over ``gateways``.

    Times are in milliseconds, ``memory`` is in MB a kernel, if it is known.

    A gap is from a reply of the root model to its next request: what a turn costs beside the model. The first
    of a run is not counted, in which it waits for its kernel: ``start_p50`` tells of that.
    """

    gateways: int
    sessions: int
    runs: int
    runs_a_minute: float
    gap_p50: float
    gap_p95: float
    start_p50: float
    memory: float | None
    errors: int
    first_error: str = ""


@dataclass(frozen=True, slots=True)
class Warm:
    """Milliseconds from asking for a kernel to the end of the first cell: from the spares, and without."""

    spare: tuple[float, ...]
    cold: tuple[float, ...]


def gateway(args: argparse.Namespace) -> None:
    """Measure what the arguments ask for, and print it; progress goes to stderr."""
    counts = numbers("--sessions", args.sessions, 1000)
    cores = _cores() if args.gateways else []
    many = numbers("--gateways", args.gateways, len(cores)) if args.gateways else []
    if many and args.gateway is not None:
        raise InputError("--gateways starts gateways here, and --gateway names one", hint="give one of them")
    where = conditions()
    with ExitStack() as stack:
        endpoint = Program("endpoint")
        stack.callback(endpoint.end)
        base_url = endpoint.ask().strip()
        # Each with its process id, where it is on this machine.
        started: list[tuple[Gateway, int | None]] = []
        if args.gateway is None:
            log = stack.enter_context(open(os.devnull, "wb"))
            for core in cores[: max(many)] if many else [None]:
                with _confined(core):
                    own = LoopbackGateway([args.kernel_name or KERNEL], log=log)
                    stack.enter_context(own)
                started.append((Gateway(own.url, own.token, own.kernels[0]), own.pid))
        else:
            given = {"gateway_url": args.gateway or None, "kernel_name": args.kernel_name}
            settings = {name: each.value for name, each in config.resolve(given).items()}
            started.append((Gateway.of(settings), None))
        target = started[0][0]
        asyncio.run(target.check())
        _say("warm kernels")
        spare = asyncio.run(warm(target))
        levels = []
        for gateways in many or [1]:
            for sessions in counts:
                each = "" if gateways == 1 else f" on each of {gateways} gateways"
                _say(f"{sessions} sessions{each}")
                used = started[:gateways]
                levels.append(asyncio.run(level(used, base_url, sessions * gateways, runs=args.runs)))
    where["load afterwards"] = conditions()["load"]
    if args.json:
        rows = [asdict(each) for each in levels]
        sys.stdout.write(json.dumps({"conditions": where, "warm": asdict(spare), "levels": rows}) + "\n")
    else:
        sys.stdout.write(as_table(levels, spare, where) + "\n")


def _say(what: str) -> None:
    sys.stderr.write(f"measuring: {what}\n")
    sys.stderr.flush()


def _cores() -> list[int]:
    """Return the cores that this process may use."""
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("no process can be confined to a core here", hint="leave --gateways away")
    return sorted(os.sched_getaffinity(0))


@contextmanager
def _confined(core: int | None) -> Iterator[None]:
    """Confine what is started inside to a core, if one is given."""
    if core is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


async def warm(target: Gateway, times: int = WARM_TIMES) -> Warm:
    """Return how long it takes to the end of a first cell: ``times`` with a spare kernel, fewer without.

    Raises:
        RLMError: a kernel did not start, or a cell failed.
    """
    cold = [await _first_cell(target) for _ in range(max(1, times // 3))]
    pool = Pool(target, size=1)
    spare = []
    try:
        # The pool fills up once a kernel was taken.
        await _first_cell(pool.take)
        for _ in range(times):
            async with asyncio.timeout(FULL_SECONDS):
                while not len(pool):  # noqa: ASYNC110  a pool tells nobody when it is full
                    await asyncio.sleep(0.05)
            spare.append(await _first_cell(pool.take))
    finally:
        await pool.close()
    return Warm(tuple(spare), tuple(cold))


async def _first_cell(make: Callable[[], Any]) -> float:
    began = time.perf_counter()
    session = make()
    try:
        await session.start([Context.of("context", "x" * 1000)])
        result = await session.execute("len(context)", timeout=60.0, on_call=_no_calls)
        took = 1000 * (time.perf_counter() - began)
    finally:
        await session.close()
    if result.status != "ok":
        raise RLMError(f"a cell ended as {result.status}", hint="nothing is measured where cells fail")
    return took


async def _no_calls(call: object) -> Sequence[Any]:
    raise CallError("there is nobody to ask", kind="bad_request")


async def level(
    gateways: Sequence[tuple[Gateway, int | None]], base_url: str, sessions: int, *, runs: int = RUNS
) -> Level:
    """Have ``sessions`` at once make ``runs`` each, spread over ``gateways``.

    With each gateway comes its process id, or None where it is elsewhere.
    """
    gaps: list[float] = []
    starts: list[float] = []
    errors: list[str] = []
    # Every session starts its own kernels: spares of one would be on another's account.
    rlms = [
        RLM(
            f"turns-{TURNS}",
            "sub-0",
            base_url=base_url,
            api_key="none",
            repl=replace(target),
            spare_kernels=0,
        )
        for target, _ in gateways
    ]

    async def session(number: int) -> None:
        rlm = rlms[number % len(rlms)]
        for _ in range(runs):
            events: list[Event] = []
            try:
                answer = await rlm.acompletion("How long?", "x" * 1000, readers=[events.append])
                if answer.text != str(TURNS):
                    errors.append(answer.reason or f"answered {answer.text[:100]!r}")
            except RLMError as error:
                errors.append(str(error))
            gaps.extend(_gaps(events))
            starts.extend(1000 * each.seconds for each in events if isinstance(each, KernelStarted))

    peak = [0.0]
    pids = [pid for _, pid in gateways if pid is not None]
    sampling = asyncio.create_task(_sample(pids, peak)) if pids else None
    began = time.perf_counter()
    try:
        await asyncio.gather(*map(session, range(sessions)))
        took = time.perf_counter() - began
    finally:
        if sampling is not None:
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling
        for rlm in rlms:
            await rlm.aclose()
    total = sessions * runs
    return Level(
        len(gateways),
        sessions,
        total,
        60 * (total - len(errors)) / took,
        _percentile(gaps, 50),
        _percentile(gaps, 95),
        _percentile(starts, 50),
        peak[0] / MB / sessions if sampling is not None and peak[0] else None,
        len(errors),
        errors[0] if errors else "",
    )


def _gaps(events: Sequence[Event]) -> list[float]:
    """Return the milliseconds from each reply of the root model but the first to its next request."""
    roots = {each.call for each in events if isinstance(each, CallStarted) and each.kind == "root"}
    calls = [each for each in events if isinstance(each, CallStarted | CallFinished) and each.call in roots]
    gaps = [
        1000 * (after.time - before.time)
        for before, after in pairwise(calls)
        if isinstance(before, CallFinished) and isinstance(after, CallStarted)
    ]
    return gaps[1:]


async def _sample(pids: Sequence[int], peak: list[float]) -> None:
    while True:
        with suppress(OSError):
            peak[0] = max(peak[0], await asyncio.to_thread(_held, pids))
        await asyncio.sleep(SAMPLE_SECONDS)


def _held(pids: Sequence[int]) -> float:
    """Return the bytes of the gateways' kernels, shared ones by their share."""
    held = 0
    for each in (kernel for pid in pids for kernel in descendants(pid)):
        with suppress(OSError):
            held += pss(each)[0]
    return float(held)


def _percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile by nearest rank; 0 without samples."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0


def as_table(levels: Sequence[Level], spare: Warm, where: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    ready = f"{number(median(spare.spare))} ms with a spare kernel (goal {WARM_GOAL_MS:.0f} ms)"
    lines = [
        ", ".join(f"{name} {number(value)}" for name, value in where.items() if value is not None),
        f"Ask to the end of the first cell: {ready}, {number(median(spare.cold))} ms without.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---" * len(HEAD) + "|",
    ]
    for each in levels:
        cells = (
            *(
                each.gateways,
                each.sessions,
                each.runs,
                each.runs_a_minute,
                each.gap_p50,
                each.gap_p95,
                each.start_p50,
            ),
            *("-" if each.memory is None else each.memory, each.errors),
        )
        lines.append("| " + " | ".join(number(cell) for cell in cells) + " |")
    lines += [f"{each.sessions} sessions: {each.first_error}" for each in levels if each.first_error]
    return "\n".join(lines)


def numbers(option: str, text: str, most: int) -> list[int]:
    """Return the numbers in a list such as ``1,4,16``, the value of ``option``, from 1 to ``most``.

    Raises:
        InputError: it holds something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise InputError(f"{option} is {text!r}", hint=f"give numbers from 1 to {most}, separated by commas")
    return [int(part) for part in parts]
