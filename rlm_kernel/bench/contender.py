"""A contender's process: takes workloads from standard input, a JSON object a line, and times each.

Each contender has a process of its own that does several workloads, as a program that uses the package
would, so that none pays for another's imports, threads or memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..events import Event, KernelStarted
from .references import REFERENCES
from .workloads import Workload

__all__ = ["API_KEY", "NAMES", "QUERY", "main"]

NAMES = ("A", "O", "ours")
REFILL_SECONDS = 30.0
QUERY = "How long is the text?"
API_KEY = "sk-canary-bench"
Completed = tuple[list[str], list[tuple[str, float]]]
"""The answers' texts; of the kernels that were used the ids, and the seconds until they were ready."""


def main() -> None:
    """Do what comes on standard input; the command line is ``<name> <base URL>``.

    Each name is ours but those of the references.
    """
    name, base_url = sys.argv[1:]
    if name in REFERENCES:
        asyncio.run(_serve(_reference(name), base_url, None))
    else:
        asyncio.run(_serve(_ours, base_url, _Spares()))


async def _serve(
    do: Callable[[Workload, str, str], Awaitable[Completed]], base_url: str, spares: _Spares | None
) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        workload = Workload(**json.loads(line))
        if workload.warm and spares is not None:
            await spares.refill(base_url, workload.repl)
        context = workload.text
        before = _forget_peak()
        started = time.perf_counter()
        answers, kernels = await _parts(do, workload, context, base_url)
        seconds = time.perf_counter() - started
        peak = _memory("VmHWM")
        grown = None if before is None or peak is None else peak - before
        if workload.warm and spares is not None:
            # Here, not before the next workload: another contender has the machine meanwhile.
            await spares.refill(base_url, workload.repl)
        ids, starts = [id_ for id_, _ in kernels], [took for _, took in kernels]
        done = {"seconds": seconds, "answers": answers, "kernels": ids, "starts": starts, "grown": grown}
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()


async def _parts(
    do: Callable[[Workload, str, str], Awaitable[Completed]], workload: Workload, context: str, base_url: str
) -> Completed:
    if not workload.apart:
        return await do(workload, context, base_url)
    one = replace(workload, completions=1)
    done = await asyncio.gather(*(do(one, context, base_url) for _ in range(workload.completions)))
    return [text for answers, _ in done for text in answers], [
        each for _, kernels in done for each in kernels
    ]


class _Spares:
    """What keeps spare kernels in this process: another `RLM` that is not closed yet."""

    def __init__(self) -> None:
        self._holder: Any = None

    async def refill(self, base_url: str, repl: str) -> None:
        """Wait until all spare kernels are there."""
        from ..repl.backend import KERNELS  # noqa: PLC0415  heavy
        from ..repl.pool import pool_of  # noqa: PLC0415  heavy
        from ..rlm import RLM  # noqa: PLC0415  heavy

        if self._holder is None:
            self._holder = RLM(model="one", base_url=base_url, api_key=API_KEY, repl=repl)
            await self._holder.acompletion(QUERY, "x")
        pool = await pool_of(KERNELS[repl])
        end = time.monotonic() + REFILL_SECONDS
        while len(pool) < pool.size and time.monotonic() < end:  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.02)


async def _ours(workload: Workload, context: str, base_url: str) -> Completed:
    from ..rlm import RLM  # noqa: PLC0415  heavy

    kernels: list[tuple[str, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, KernelStarted):
            kernels.append((event.kernel, event.seconds))

    async with RLM(
        model=workload.root,
        sub_model=workload.sub,
        base_url=base_url,
        api_key=API_KEY,
        max_depth=workload.max_depth,
        max_iterations=workload.max_iterations,
        repl=workload.repl,
        spare_kernels=workload.spare_kernels,
        readers=[note],
    ) as rlm:
        items = [{"query": QUERY, "context": context}] * workload.completions
        answers = await rlm.abatch(items, concurrency=workload.completions)
    return [answer.text if answer else f"{answer.status}: {answer.reason}" for answer in answers], kernels


def _reference(name: str) -> Callable[[Workload, str, str], Awaitable[Completed]]:
    async def do(workload: Workload, context: str, base_url: str) -> Completed:
        reference = REFERENCES[name](base_url, API_KEY)
        root, sub, turns = workload.root, workload.sub, workload.max_iterations
        runs: list[Any] = [
            reference.complete(root, sub, QUERY, context, turns) for _ in range(workload.completions)
        ]
        answers = await asyncio.gather(*runs)
        await reference.close()
        return answers, []

    return do


def _memory(field: str) -> int | None:
    """Return a field of this process's status, in bytes; None where there is none (proc(5))."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> int | None:
    """Let the peak start afresh from what is resident now, which is returned."""
    with suppress(OSError):
        # 5 resets the peak (proc(5), clear_refs).
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _memory("VmRSS")
    return None


if __name__ == "__main__":
    main()
