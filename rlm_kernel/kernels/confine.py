"""Close other processes to this one, before it runs code that a model wrote.

An environment without a key is not enough: the key is still in the environment of the orchestrator and of
the shell that started it, and ``/proc`` shows that to every process of the same user. What closes it:

- A Landlock domain. Whatever is outside of it can't be traced from inside: memory, environment, maps and
  descriptors fail to open, also for root. The domain restricts nothing else on purpose: a local kernel may
  use its user's files. From ABI 6 on, signals and abstract sockets don't leave it either.
- An empty set of capabilities. Some of them (``CAP_SYS_RAWIO``, ``CAP_BPF``, ``CAP_PERFMON``,
  ``CAP_SYS_ADMIN``) are ways around any domain. Root without capabilities is still the owner of root's files.
- ``no_new_privs``, so that no program on disk gives back what was dropped.

Standard library only: it runs in the kernel's process, before the kernel. Irreversible by design.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from contextlib import suppress

__all__ = ["PROTECTIONS", "confine", "landlock_abi", "report"]

PROTECTIONS = {
    "privileges": "programs can't raise the kernel's privileges",
    "memory": "memory, environment and open files of other processes are closed to the kernel",
    "signals": "the kernel can't signal processes that it did not start",
    "abstract_sockets": "abstract Unix sockets of other processes are closed to the kernel",
    "capabilities": "the kernel has no capabilities",
}
"""What `confine` can give, by name."""

# linux/prctl.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
# linux/landlock.h; the numbers of its system calls are the same on all architectures but Alpha and MIPS.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_ACCESS_FS_MAKE_BLOCK = 1 << 11
_ACCESS_FS_REFER = 1 << 13
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1
# linux/capability.h: version 3, two sets of 32 each.
_CAPABILITY_VERSION = 0x20080522


def confine() -> tuple[str, ...]:
    """Apply what this platform has to this process, for good, and return which `PROTECTIONS` hold.

    Must be called while the process has one thread: the others would not be confined.
    """
    if sys.platform != "linux":
        return ()
    libc = ctypes.CDLL(None, use_errno=True)
    holds = []
    if _call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        holds.append("privileges")
    # Needs CAP_SETPCAP, so it comes first. Without that, no_new_privs keeps the set out of reach.
    capability = 0
    while _call(libc.prctl, _PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    abi = landlock_abi()
    inside = abi > 0 and _enter_domain(libc, abi)
    if inside and abi >= 6:
        holds += ["signals", "abstract_sockets"]
    if _drop_capabilities(libc) and "privileges" in holds:
        holds.append("capabilities")
    # Last: with CAP_PERFMON it could still be read.
    if inside and not _can_read_parent():
        holds.append("memory")
    return tuple(holds)


def report() -> dict[str, str]:
    """Return for each of `PROTECTIONS` an empty text if this platform can give it, or why it can't."""
    if sys.platform != "linux":
        return dict.fromkeys(PROTECTIONS, f"not on {sys.platform}: it needs Linux")
    abi = landlock_abi()
    reasons = dict.fromkeys(PROTECTIONS, "")
    if abi == 0:
        reasons["memory"] = "it needs Landlock (Linux 5.13), which is not there, switched off, or filtered"
    if abi < 6:
        found = f"here it has {abi}" if abi else "which is not there"
        reasons["signals"] = reasons["abstract_sockets"] = f"it needs Landlock ABI 6 (Linux 6.12), {found}"
    return reasons


def landlock_abi() -> int:
    """Return the version of Landlock's interface, or 0 where there is none."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, _call(libc.syscall, _CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION))


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> int:
    function.restype = ctypes.c_long
    return int(function(*(ctypes.c_long(each) for each in arguments)))


def _enter_domain(libc: ctypes.CDLL, abi: int) -> bool:
    """Enter a domain that restricts as little as this ABI can say."""
    if abi >= 6:
        attributes = struct.pack("QQQ", 0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    elif abi >= 2:
        # A domain with rules for files denies to move files between folders unless that is allowed.
        attributes = struct.pack("Q", _ACCESS_FS_REFER)
    else:
        attributes = struct.pack("Q", _ACCESS_FS_MAKE_BLOCK)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _call(libc.syscall, _CREATE_RULESET, ctypes.addressof(buffer), len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        if 2 <= abi < 6 and not _allow_moves(libc, ruleset):
            return False
        return _call(libc.syscall, _RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow_moves(libc: ctypes.CDLL, ruleset: int) -> bool:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]  # Linux
    try:
        attributes = struct.pack("=Qi", _ACCESS_FS_REFER, root)
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        added = _call(libc.syscall, _ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.addressof(buffer), 0)
    finally:
        os.close(root)
    return added == 0


def _can_read_parent() -> bool:
    """Try what must fail now: the parent is outside of the domain and of the same user."""
    with suppress(OSError), open(f"/proc/{os.getppid()}/environ", "rb"):
        return True
    return False


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Empty the effective, permitted and inheritable sets; the ambient one goes with them."""
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    if _call(libc.capset, ctypes.addressof(header), ctypes.addressof(data)) != 0:
        return False
    ctypes.memset(data, 0xFF, 24)
    return _call(libc.capget, ctypes.addressof(header), ctypes.addressof(data)) == 0 and not any(data.raw)
