"""What a sandbox sees of the file system: what Python needs, read-only, and three folders in memory.

Nothing of the host is writable inside, the kernel's sockets included: those are bound outside and handed in
as descriptors. Of a Python environment only its programs, libraries and data are there, since some people
make the folder of a project the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import KernelStartError
from .limits import MIB, SandboxLimits

__all__ = ["HOME", "INSIDE", "Interpreter", "environment", "interpreter", "mounts"]

HOME = "/home/rlm"
INSIDE = "/rlm"
"""Where the folder with what the kernel is given is mounted."""

USER = "rlm"
HOST_NAME = "rlm"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What of /etc programs and libraries can't do without, and nothing that is anybody's secret.
_ETC = ("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types")
_OF_PREFIX = ("bin", "include", "lib", "lib32", "lib64", "pyvenv.cfg", "share")
_ASK = (
    "import json, site, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, "
    "site.getusersitepackages() if site.ENABLE_USER_SITE else '']))"
)
_ASK_SECONDS = 20.0
_PASSED = {"LANG", "LANGUAGE", "TZ"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python, and the folders that it imports from; ``user_site`` may be empty."""

    executable: str
    prefixes: tuple[str, ...]
    user_site: str


@cache
def interpreter(executable: str) -> Interpreter:
    """Ask an interpreter where it lives.

    Raises:
        KernelStartError: it does not run.
    """
    try:
        done = subprocess.run(  # noqa: S603  what the kernelspec names
            [executable, "-c", _ASK], capture_output=True, timeout=_ASK_SECONDS, check=True, cwd="/"
        )
        *prefixes, user_site = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise KernelStartError(
            f"{executable} is no Python that runs: {error}", hint="check the kernelspec's argv"
        ) from None
    return Interpreter(
        executable, tuple(dict.fromkeys(prefixes)), user_site if os.path.isdir(user_site) else ""
    )


def mounts(python: Interpreter, inside: str, limits: SandboxLimits) -> list[str]:
    """Return the options of bubblewrap that make the file system; ``inside`` is mounted as `INSIDE`."""
    size = str(int(limits.disk * MIB))
    memory = ["--perms", "1777", "--size", size, "--tmpfs"]
    # What bubblewrap makes on its own way, it makes for the owner alone.
    options = ["--perms", "0755", "--dir", "/etc"]
    options += [*memory, "/tmp", *memory, HOME, "--proc", "/proc", "--dev", "/dev", *memory, "/dev/shm"]  # noqa: S108
    options += ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    for name in _ETC:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group"):
        options += ["--ro-bind", f"{inside}/{name}", f"/etc/{name}"]
    seen = [Path("/usr")]
    for path in _python_paths(python):
        for folder in reversed(Path(path).parents[:-1]):
            options += ["--perms", "0755", "--dir", os.fspath(folder)]
        options += ["--ro-bind", path, path]
        seen.append(Path(path))
    for link in _links(python.executable):
        if not any(folder in link.parents for folder in seen):
            options += ["--symlink", os.readlink(link), os.fspath(link)]
    options += ["--ro-bind", inside, INSIDE, "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*options, "--hostname", HOST_NAME, "--chdir", HOME]


def _python_paths(python: Interpreter) -> list[str]:
    """Return what is to be there of the environment, shortest first, without what is in another or /usr."""
    wanted = [
        os.path.join(folder, name)
        for prefix in python.prefixes
        for folder in dict.fromkeys((prefix, os.path.realpath(prefix)))
        for name in _OF_PREFIX
    ]
    found: list[str] = []
    for path in sorted({*wanted, python.user_site} - {""}, key=len):
        if os.path.exists(path) and not any(Path(each) in Path(path).parents for each in ("/usr", *found)):
            found.append(path)
    return found


def _links(path: str) -> list[Path]:
    """Return the symbolic links that lead from an executable to its file."""
    found = []
    here = Path(os.path.abspath(path))
    while here.is_symlink() and here not in found:
        found.append(here)
        here = Path(os.path.abspath(here.parent / os.readlink(here)))
    return found


def environment(
    given: Mapping[str, str], extra: Mapping[str, str], python: Interpreter, limits: SandboxLimits
) -> dict[str, str]:
    """Return the kernel's environment: the language of ``given``, all of ``extra``, and our own."""
    programs = dict.fromkeys(
        [os.path.dirname(os.path.abspath(python.executable)), "/usr/local/bin", "/usr/bin", "/bin"]
    )
    return {
        **{name: value for name, value in given.items() if name in _PASSED or name.startswith("LC_")},
        **dict.fromkeys(_THREADS, str(limits.threads)),
        "PATH": os.pathsep.join(programs),
        "HOME": HOME,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/sh",
        **extra,
    }
