"""How much of the machine one sandbox may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

from ...errors import ConfigError

__all__ = ["SandboxLimits"]

MIB = 1024 * 1024
# Address space that is reserved without being used: stacks of threads, arenas of allocators.
_RESERVED = 4096 * MIB
# An allocation fails in Python before the tree of processes reaches its limit and one of them is killed.
_DATA_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of one sandbox. Sizes are MiB.

    Where a cgroup can be had, ``memory``, ``cpus`` (processors' worth of time) and ``processes`` hold for all
    processes of the sandbox together, files in memory included. Everywhere, ``memory`` holds for each
    process, and so do ``cpu_seconds`` (of one process, in all), ``file`` (the size of one file) and
    ``open_files``; ``processes`` (threads count too) hold for the sandbox. ``disk`` is the size of each of
    its three writable folders, which are in memory: home, ``/tmp`` and ``/dev/shm``.
    """

    memory: int = 4096
    cpus: float = 2.0
    cpu_seconds: int = 3600
    processes: int = 256
    open_files: int = 1024
    file: int = 512
    disk: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"the sandbox's limit {field.name} is {value!r}, not a number above 0")

    @property
    def tree(self) -> dict[str, int]:
        """What a cgroup is given: bytes, processes, microseconds of processor time per 100 ms."""
        return {
            "memory": int(self.memory * MIB),
            "processes": int(self.processes),
            "cpu": int(self.cpus * 100_000),
        }

    @property
    def process(self) -> dict[str, int]:
        """What each process is limited to, as `rlm_kernel.kernels.inside` reads it; sizes in bytes."""
        return {
            "data": int(self.memory * MIB * _DATA_SHARE),
            "address_space": int(self.memory * MIB + _RESERVED),
            "file": int(self.file * MIB),
            "cpu_seconds": int(self.cpu_seconds),
            "processes": int(self.processes),
            "open_files": int(self.open_files),
        }

    @property
    def threads(self) -> int:
        """How many threads a numeric library should use."""
        return min(os.cpu_count() or 1, math.ceil(self.cpus))
