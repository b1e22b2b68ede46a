"""The first program inside the sandbox: gives up what is left to give up, then becomes the kernel.

bubblewrap has made the namespaces and mounts. This limits the process and those it will start, leaves root
where it began as root, empties capabilities, filters system calls, checks that all of it holds, and runs the
kernel's module in this same process. Whatever can't be applied ends it with a word on stderr: a sandbox is
never weaker than was asked for.

The kernel's sockets were bound and are listened to outside: it gets them as descriptors, so that nothing of
the host need be writable in here.

Standard library only. It is shipped as a file and runs without the package around it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .confine import confine
from .syscalls import filter_calls, supported

__all__ = ["SETTINGS", "main"]

SETTINGS = "/rlm/settings.json"
"""JSON: ``uid`` to change to or None, ``limits``, ``sockets`` (descriptor by address),
``paths`` to import from, ``module`` and ``argv`` of the kernel, ``debugger``."""

# linux/prctl.h, linux/sched.h
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_CLONE_NEWUSER = 0x10000000
# From here on, a process that goes on after SIGXCPU is killed.
_CPU_GRACE_SECONDS = 5


def main() -> None:
    """Set up this process as the settings say, and run the kernel in it."""
    with open(SETTINGS, encoding="utf-8") as file:
        settings = json.load(file)
    try:
        if settings["uid"] is not None:
            _leave_root(settings["uid"])
        _limit(settings["limits"])
        holds = confine()
        if supported():
            filter_calls()
        _check(holds)
    except (OSError, ValueError) as error:
        sys.exit(f"the sandbox could not be closed: {error}")
    sys.path += settings["paths"]
    _lend(settings["sockets"])
    _run(settings)


def _leave_root(uid: int) -> None:
    """Become an ordinary user without a way back, in a user namespace of its own where there can be one."""
    libc = ctypes.CDLL(None, use_errno=True)
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == 0:
        capability += 1
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # Otherwise /proc/self stays root's.
    libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0)
    if libc.unshare(_CLONE_NEWUSER) == 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{uid} {uid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def _limit(limits: Mapping[str, int]) -> None:
    """Set limits that each process here has for itself; those on processes count per namespace or uid."""
    cpu = limits["cpu_seconds"]
    for name, soft, hard in (
        ("DATA", limits["data"], limits["data"]),
        ("AS", limits["address_space"], limits["address_space"]),
        ("FSIZE", limits["file"], limits["file"]),
        ("CPU", cpu, cpu + _CPU_GRACE_SECONDS),
        ("NPROC", limits["processes"], limits["processes"]),
        ("NOFILE", limits["open_files"], limits["open_files"]),
        ("CORE", 0, 0),
        ("MEMLOCK", 65536, 65536),
        ("MSGQUEUE", 65536, 65536),
    ):
        which = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(which)[1]
        most = hard if most == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(which, (min(soft, most), most))


def _check(holds: tuple[str, ...]) -> None:
    """Look at the result, not at what was asked for."""
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    wrong = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    wrong += [name for name in ("privileges", "capabilities") if name not in holds]
    wrong += [] if status["NoNewPrivs"] == "1" else ["NoNewPrivs"]
    wrong += [] if not supported() or status["Seccomp"] == "2" else ["Seccomp"]
    wrong += [f"route through {name}" for name in _routes()]
    for folder in ("/", "/usr", "/rlm"):
        wrong += [] if os.statvfs(folder).f_flag & os.ST_RDONLY else [f"{folder} writable"]
    if wrong:
        raise ValueError(f"these do not hold: {', '.join(wrong)}")


def _routes() -> set[str]:
    """Return the interfaces by which anything could be sent, but loopback."""
    found = set()
    # The name is the first column of the one, after a headline, and the last of the other.
    for path, column, head in (("/proc/net/route", 0, 1), ("/proc/net/ipv6_route", -1, 0)):
        with suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            found |= {line.split()[column] for line in file.readlines()[head:]}
    return found - {"lo"}


def _lend(sockets: Mapping[str, int]) -> None:
    """Have ZeroMQ take the descriptors for what the kernel binds."""
    for descriptor in sockets.values():
        os.set_inheritable(descriptor, False)  # noqa: FBT003  its signature
    import zmq  # noqa: PLC0415  the sandbox is closed by now  # type: ignore[import,unused-ignore]

    plain = zmq.Socket.bind

    def bind(self: Any, addr: Any) -> Any:
        if addr in sockets:
            self.setsockopt(zmq.USE_FD, sockets[addr])
        return plain(self, addr)

    setattr(zmq.Socket, "bind", bind)  # noqa: B010  a method, to type checkers


def _run(settings: Mapping[str, Any]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    if not settings["debugger"]:
        sys.modules["debugpy"] = None  # type: ignore[assignment]
    sys.argv = [settings["module"], *settings["argv"]]
    with suppress(KeyboardInterrupt):
        runpy.run_module(settings["module"], run_name="__main__", alter_sys=True)
