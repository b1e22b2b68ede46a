"""What a tree of processes holds in memory, sampled from a process of its own.

The measure is the proportional set size (PSS): a page that several processes share is counted once in their
sum. Bytes in shared memory that no process of the tree has mapped, such as files in a tmpfs, are counted
beside it. Linux only.

As a program it samples the tree of the process it is told until its standard input ends, then prints
all samples as JSON.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

from ..kernels.guard import descendants

__all__ = ["Sample", "cpu_seconds", "main", "peak", "pss", "sample"]

EVERY_SECONDS = 0.005
CALLER, SPARE, OTHER, SHARED = "caller", "spare", "other", "shared"
Sample = dict[str, int]
"""Bytes by group: ``caller``; a kernel's id; ``spare``, the fork server; ``other`` processes; ``shared``, the
machine's shared memory that none of these has mapped."""


def main() -> None:
    """Sample the process named on the command line until standard input ends."""
    pid = int(sys.argv[1])
    samples = []
    while not select.select([sys.stdin], [], [], EVERY_SECONDS)[0]:
        samples.append(sample(pid))
    sys.stdout.write(json.dumps(samples))


def sample(pid: int) -> Sample:
    """Return what ``pid`` and its descendants hold now."""
    groups: Sample = defaultdict(int)
    mapped = 0
    for each in [pid, *descendants(pid)]:
        # Reading the size takes a while, in which the process may end.
        group = CALLER if each == pid else _group(each)
        size, shared = pss(each)
        groups[group] += size
        mapped += shared
    groups[SHARED] = max(0, _field("/proc/meminfo", "Shmem") - mapped)
    return dict(groups)


def peak(samples: Iterable[Sample], kernels: Iterable[str]) -> tuple[int, Mapping[str, int]]:
    """Return the highest sum of what belongs to the run of ``kernels``, and the sample it comes from.

    Shared memory counts from what the first sample shows.
    """
    mine = {CALLER, OTHER, SHARED, *kernels}
    samples = list(samples)
    base = samples[0][SHARED]
    counted = [{**each, SHARED: max(0, each[SHARED] - base)} for each in samples]
    highest = max(counted, key=lambda each: sum(size for group, size in each.items() if group in mine))
    return sum(size for group, size in highest.items() if group in mine), highest


def pss(pid: int) -> tuple[int, int]:
    """Return the bytes of a process, and how many of them are shared memory; 0 once it is gone."""
    path = f"/proc/{pid}/smaps_rollup"
    return _field(path, "Pss"), _field(path, "Pss_Shmem")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes, of the threads that they have now."""
    nanoseconds = 0
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                # Time on a processor, time waiting for one, slices (sched-stats.rst); the clock ticks of
                # `stat` are too coarse for a process at rest.
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def _group(pid: int) -> str:
    try:
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return OTHER
    if folder == "/":
        # The fork server's; a kernel has a folder of its own, which is named as the kernel is.
        return SPARE
    return next((part for part in folder.split("/") if part.startswith("rlm-")), OTHER)


def _field(path: str, name: str) -> int:
    with suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
