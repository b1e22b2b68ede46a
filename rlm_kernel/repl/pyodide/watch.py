"""What a sandbox's process takes of the machine, and the limits it is held to.

Limits that the system enforces come from `confine`: no file may be written, none of many be opened, no core
be left. Memory outside the WebAssembly heap and threads are no permission of Deno's and have no limit of the
system's that V8 could live with, so `Watch` looks at them, and says which was passed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Limits", "Watch", "confine"]

EVERY_SECONDS = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may take. ``heap_mib`` is WebAssembly's, where Python's objects are.

    ``idle_cpu_seconds`` is for a sandbox in which no cell runs.
    """

    heap_mib: int = 1024
    memory_mib: int = 1536
    threads: int = 64
    idle_cpu_seconds: float = 20.0

    @classmethod
    def of_environment(cls) -> Limits:
        """Return the limits that the operator has set, else these."""
        found = {}
        for name in ("heap_mib", "memory_mib"):
            with suppress(ValueError):
                found[name] = int(os.environ[f"RLM_PYODIDE_{name.upper()}"]) if _given(name) else 0
        return cls(**{name: value for name, value in found.items() if value > 0})


def _given(name: str) -> bool:
    return bool(os.environ.get(f"RLM_PYODIDE_{name.upper()}"))


def confine(pid: int) -> bool:
    """Take from a started process what it no longer needs; tell whether this system can."""
    if not sys.platform.startswith("linux"):
        return False
    import resource  # noqa: PLC0415  not on every platform

    for limit, value in (
        # Deno writes its own caches while it starts; now nothing is written any more, by whatever way.
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.prlimit(pid, limit, (value, value))
    return True


class Watch:
    """Looks at one process."""

    def __init__(self, pid: int, limits: Limits) -> None:
        self._pid = pid
        self._limits = limits
        self._idle_from: float | None = None

    def passed(self, *, busy: bool) -> str:
        """Return which limit the process has passed, in words, or nothing. ``busy``: a cell runs."""
        memory, threads, cpu = self._usage()
        if memory > self._limits.memory_mib * 2**20:
            allowed = self._limits.memory_mib
            return f"it took {memory // 2**20:,} MiB of memory, more than the {allowed:,} allowed"
        if threads > self._limits.threads:
            return f"it started {threads} threads, more than the {self._limits.threads} allowed"
        if busy or self._idle_from is None:
            self._idle_from = cpu
        elif cpu - self._idle_from > self._limits.idle_cpu_seconds:
            return f"it went on computing for {cpu - self._idle_from:.0f} s after its cell had ended"
        return ""

    def _usage(self) -> tuple[int, int, float]:
        """Return bytes of resident memory, threads, and CPU seconds; zeros if the process is gone."""
        if not sys.platform.startswith("linux"):
            return self._usage_elsewhere()
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return 0, 0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        return int(fields[21]) * _PAGE, int(fields[17]), (int(fields[11]) + int(fields[12])) / ticks

    def _usage_elsewhere(self) -> tuple[int, int, float]:
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  ipykernel brings it

        try:
            process = psutil.Process(self._pid)
            with process.oneshot():
                times = process.cpu_times()
                return process.memory_info().rss, process.num_threads(), times.user + times.system
        except psutil.Error:
            return 0, 0, 0.0
