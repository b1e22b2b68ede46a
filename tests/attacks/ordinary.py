"""How root runs a command as an ordinary user who can read this Python and this checkout."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BECOME = """
import os, sys
user = int(sys.argv[1])
os.setgroups([]); os.setgid(user); os.setuid(user)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def as_nobody(*options: str) -> list[str]:
    """Return what to put before a command; ``options`` are further ones of bubblewrap's.

    Where Python lies in a folder that is closed to others, such as root's home, it is laid open in a mount
    namespace of the command's own.
    """
    command = ["bwrap", "--dev-bind", "/", "/"]
    covered = set()
    for needed in dict.fromkeys((sys.prefix, sys.base_prefix, str(ROOT))):
        parents = [*reversed(Path(needed).parents)]
        closed = [folder for folder in parents if not folder.stat().st_mode & 0o001]
        if not closed:
            continue
        if closed[0] not in covered:
            covered.add(closed[0])
            command += ["--perms", "0755", "--tmpfs", str(closed[0])]
        for folder in parents[parents.index(closed[0]) + 1 :]:
            command += ["--perms", "0755", "--dir", str(folder)]
        command += ["--ro-bind", needed, needed]
    user = str(pwd.getpwnam("nobody").pw_uid)
    return [*command, *options, sys.executable, "-I", "-S", "-c", _BECOME, user]


def public(environment: dict[str, str], folder: str) -> dict[str, str]:
    """Return the environment for that user, whose home and temporary folder is ``folder``."""
    os.chmod(folder, 0o777)
    return {
        **os.environ,
        "HOME": folder,
        "TMPDIR": folder,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
