"""Limits that hold for a whole tree of processes: a control group for each sandbox.

Version 2 of the interface where its controllers can be used, as root or in a subtree that was delegated
to this user (systemd does that), else version 1. What can't be had is left out, and `Cgroup.holds` tells:
the limits of single processes hold in any case.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Cgroup", "available"]

_NAME = re.compile(r"rlm-(\d+)-\d+")
_count = itertools.count(1)
_PERIOD = 100_000
# What is written for each limit, by version: file and value.
_FILES_2 = {
    "memory": (("memory.max", "{}"), ("memory.swap.max", "0")),
    "processes": (("pids.max", "{}"),),
    "cpu": (("cpu.max", f"{{}} {_PERIOD}"),),
}
_FILES_1 = {
    # The second is refused where memory may be as large as memory and swap together: raise that limit first.
    "memory": (("memory.limit_in_bytes", "{}"), ("memory.memsw.limit_in_bytes", "{}")),
    "processes": (("pids.max", "{}"),),
    "cpu": (("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", "{}")),
}
_CONTROLLERS = {"memory": "memory", "processes": "pids", "cpu": "cpu"}
# Without a kernel that counts swap, these files are not there.
_OPTIONAL = {"memory.swap.max", "memory.memsw.limit_in_bytes"}


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control groups of one sandbox; ``holds`` are the limits that were set."""

    folders: tuple[Path, ...]
    holds: tuple[str, ...]

    @classmethod
    def create(cls, limits: Mapping[str, int]) -> Cgroup:
        """Make groups for ``limits``, which are `SandboxLimits.tree`; there may be none."""
        name = f"rlm-{os.getpid()}-{next(_count)}"
        folders: dict[Path, None] = {}
        holds = []
        for limit, parent in available().items():
            _sweep(parent)
            files = _FILES_2 if (parent / "cgroup.controllers").exists() else _FILES_1
            folder = parent / name
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                folders[folder] = None
                for file, value in files[limit]:
                    _write(folder / file, value.format(limits[limit]))
                holds.append(limit)
        return cls(tuple(folders), tuple(holds))

    @property
    def entrances(self) -> list[str]:
        """The files that a process writes 0 to, to be a member."""
        return [os.fspath(folder / "cgroup.procs") for folder in self.folders]

    def remove(self) -> None:
        """Remove the groups; those with processes are left to a later `create`."""
        for folder in self.folders:
            with suppress(OSError):
                folder.rmdir()


def available() -> dict[str, Path]:
    """Return the group below which a group can be made, for each limit that can be had."""
    return dict(_available())


@cache
def _available() -> tuple[tuple[str, Path], ...]:
    mounts, own = _mounts(), _own()
    found: dict[str, Path] = {}
    for limit, controller in _CONTROLLERS.items():
        parents: Iterator[Path] = iter(())
        if "" in mounts and "" in own:
            parents = _parents(mounts[""], own[""], controller)
        if controller in mounts and controller in own:
            parents = itertools.chain(parents, [mounts[controller] / own[controller].lstrip("/")])
        for parent in parents:
            if _usable(parent):
                found[limit] = parent
                break
    return tuple(found.items())


def _mounts() -> dict[str, Path]:
    """Return where the hierarchies are mounted, by controller; version 2 has no name."""
    found: dict[str, Path] = {}
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, path, kind, options, *_ = line.split()
            if kind == "cgroup2":
                found.setdefault("", Path(path))
            elif kind == "cgroup":
                for option in options.split(","):
                    found.setdefault(option, Path(path))
    return found


def _own() -> dict[str, str]:
    """Return the group of this process in each hierarchy."""
    found = {}
    with suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


def _parents(mount: Path, own: str, controller: str) -> Iterator[Path]:
    """Yield groups of version 2 with this controller for their children, from our own parent upwards.

    Our own group has a process, us, and so can't have children with limits.
    """
    here = mount / own.lstrip("/")
    for parent in [here.parent, *here.parent.parents] if own != "/" else [mount]:
        if parent != mount and mount not in parent.parents:
            return
        with suppress(OSError):
            if controller not in (parent / "cgroup.subtree_control").read_text("ascii").split():
                if (
                    parent != mount
                    or controller not in (parent / "cgroup.controllers").read_text("ascii").split()
                ):
                    continue
                _write(parent / "cgroup.subtree_control", f"+{controller}")
            yield parent


def _usable(parent: Path) -> bool:
    """Try to make a group."""
    probe = parent / f"rlm-{os.getpid()}-0"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return os.access(parent / "cgroup.procs", os.W_OK)


def _sweep(parent: Path) -> None:
    """Remove what processes have left that are gone."""
    with suppress(OSError):
        for folder in parent.iterdir():
            name = _NAME.fullmatch(folder.name)
            if name and not Path(f"/proc/{name[1]}").exists():
                with suppress(OSError):
                    folder.rmdir()


def _write(path: Path, text: str) -> None:
    if path.name in _OPTIONAL and not path.exists():
        return
    path.write_text(text, "ascii")
