"""What this machine permits: whether a sandbox can be made here, and how. Found out by making an empty one.

As root, namespaces are made as root, and the kernel then becomes a uid that nobody else has. Otherwise they
belong to a user namespace, which the system must permit. There is no third way, and no weaker one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import ConfigError, KernelStartError

__all__ = ["Machine", "SandboxUnavailableError", "machine"]

OLDEST = (0, 8)
PROBE_SECONDS = 20.0
NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_HOLD_ON = ("--die-with-parent", "--new-session")
# linux/capability.h: to make namespaces, set up loopback, and leave root.
_NEEDED = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
# What a user namespace may fail at, and the value with which it does.
_SWITCHES = {
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
}
# Beyond what people and packages use, and within what a 32-bit uid can be.
_UIDS = range(1_610_612_736, 1_879_048_192)
_NOBODY = 65534


class SandboxUnavailableError(ConfigError, KernelStartError):
    """This machine can't make the sandbox; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How sandboxes are made here. ``as_root`` tells which of the two ways it is."""

    bwrap: str
    version: str
    as_root: bool

    @property
    def flags(self) -> list[str]:
        """The options of bubblewrap that make the namespaces."""
        if self.as_root:
            kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
            user = ["--cap-drop", "ALL", *(word for each in kept for word in ("--cap-add", each))]
        else:
            user = ["--unshare-user", "--disable-userns"]
            if os.geteuid() == 0:
                # Root of a container of an ordinary user is no root inside, either.
                user += ["--uid", "1000", "--gid", "1000"]
        return [*user, *NAMESPACES, *_HOLD_ON]

    def uid(self) -> int | None:
        """Return a uid for one sandbox that was made as root."""
        if not self.as_root:
            return None
        # In a container, few may be mapped; then it is nobody's.
        wanted = secrets.choice(_UIDS)
        for uid in (wanted, _NOBODY):
            if any(uid in ids for ids in _mapped()):
                return uid
        raise SandboxUnavailableError(
            "root has no other uid in this user namespace, so that the sandbox can't leave root",
            hint="run as an ordinary user, or map uid 65534",
        )


@cache
def machine() -> Machine:
    """Find out how a sandbox is made here; the answer is kept if there is one.

    Raises:
        SandboxUnavailableError: it can't be made here.
    """
    if sys.platform != "linux":
        raise SandboxUnavailableError(
            f"the sandbox needs Linux, and this is {sys.platform}", hint="the repl `pyodide` runs here, too"
        )
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailableError(
            "the sandbox needs bubblewrap, and there is no program `bwrap`",
            hint="Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap",
        )
    version = _run([bwrap, "--version"]).stdout.strip().removeprefix("bubblewrap ")
    if _number(version) < OLDEST:
        raise SandboxUnavailableError(
            f"the sandbox needs bubblewrap {'.'.join(map(str, OLDEST))} or newer, and this is {version}",
            hint="Debian 12 and Ubuntu 24.04 have it",
        )
    found = Machine(bwrap, version, as_root=_as_root())
    done = _run([bwrap, *found.flags, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"])
    if done.returncode != 0:
        said = done.stderr.strip() or f"bwrap exited with {done.returncode}"
        raise SandboxUnavailableError(f"the sandbox can't be made here: {said}", hint=_hint())
    found.uid()
    return found


def _as_root() -> bool:
    if os.geteuid() != 0 or not _maps_root_to_root():
        return False
    status = Path("/proc/self/status").read_text("ascii")
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    missing = [name for name, number in _NEEDED.items() if not effective >> number & 1]
    if missing:
        # A kernel that is the host's root to every file could not be called sandboxed.
        raise SandboxUnavailableError(
            f"the sandbox can't be made by root without {', '.join(missing)}",
            hint="run as an ordinary user, or give the container these capabilities",
        )
    return True


def _mapped() -> list[range]:
    """Return the uids that there are in this user namespace."""
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
    return [range(int(first), int(first) + int(count)) for first, _, count in lines]


def _maps_root_to_root() -> bool:
    return Path("/proc/self/uid_map").read_text("ascii").split()[:2] == ["0", "0"]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  bubblewrap
            command,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailableError(f"bubblewrap did not run: {error}") from None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:3])


def _hint() -> str:
    for name, value in _SWITCHES.items():
        with suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text("ascii").strip() == value:
                return f"{name} is {value}: user namespaces are switched off for ordinary users"
    return "user namespaces may be switched off, or refused by a container's seccomp or AppArmor profile"
