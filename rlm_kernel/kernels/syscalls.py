"""A seccomp filter: system calls that a sandboxed kernel does not need, and through which sandboxes broke.

A deny list on top of namespaces and an empty set of capabilities, not in place of them. What it refuses
fails with an ordinary error; a call by way of another architecture's numbers ends the process. Numbers are
those of the x86_64 and aarch64 tables of Linux; `supported` is False elsewhere.

Standard library only: it runs in the kernel's process. Irreversible by design.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

__all__ = ["DENIED", "filter_calls", "program", "supported"]

DENIED = {
    # Name: numbers on (x86_64, aarch64); those from 424 on are the same everywhere.
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "settimeofday": (170, 170),
    # Memory of System V belongs to no process, so that no limit of a process holds for it.
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
"""System calls that fail with EPERM whatever their arguments are."""

_CLONE, _CLONE3, _SOCKET, _IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x7E020000
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. AF_VSOCK above all is not among them: it reaches the hypervisor from
# any network namespace.
_FAMILIES = (1, 2, 10, 16)
# TIOCSTI and TIOCLINUX type into the terminal that the process was started from.
_IOCTLS = (0x5412, 0x541C)

# linux/audit.h, in the order of the numbers above
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
# linux/filter.h and linux/seccomp.h
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether there is a table for this machine."""
    return platform.machine() in _MACHINES


def program(machine: str) -> list[_Instruction]:
    """Return the filter for a machine, as (code, jump if true, jump if false, operand)."""
    column, architecture = _MACHINES[machine]
    refuse = _return(_ERRNO | errno.EPERM)
    code = [_load(_ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), _return(_KILL_PROCESS), _load(_NUMBER)]
    if machine == "x86_64":
        code += [(_IF_AT_LEAST, 0, 1, _X32_BIT), _return(_ERRNO | errno.ENOSYS)]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            code += [(_IF_EQUAL, 0, 1, number), refuse]
    # Its flags are in memory, where a filter can't look; C libraries go on with clone.
    code += [(_IF_EQUAL, 0, 1, _CLONE3[column]), _return(_ERRNO | errno.ENOSYS)]
    code += _when(_CLONE[column], [_load(_ARGUMENTS), (_IF_ANY_BIT, 0, 1, _NEW_NAMESPACES), refuse])
    allowed = [step for family in _FAMILIES for step in ((_IF_EQUAL, 0, 1, family), _return(_ALLOW))]
    unknown = _return(_ERRNO | errno.EAFNOSUPPORT)
    code += _when(_SOCKET[column], [_load(_ARGUMENTS), *allowed, unknown])
    denied = [step for request in _IOCTLS for step in ((_IF_EQUAL, 0, 1, request), refuse)]
    code += _when(_IOCTL[column], [_load(_ARGUMENTS + 8), *denied])
    return [*code, _return(_ALLOW)]


def filter_calls() -> None:
    """Apply the filter to this process for good; it needs ``no_new_privs`` and one thread.

    Raises:
        OSError: the kernel refused it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    steps = b"".join(struct.pack("=HBBI", *step) for step in program(platform.machine()))
    buffer = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    arguments = (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(pointer), 0, 0)
    if libc.prctl(*(ctypes.c_ulong(each) for each in arguments)) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")


def _load(offset: int) -> _Instruction:
    return (_LOAD, 0, 0, offset)


def _return(value: int) -> _Instruction:
    return (_RETURN, 0, 0, value)


def _when(number: int, steps: list[_Instruction]) -> list[_Instruction]:
    """Return steps for one system call; those that fall through allow it."""
    steps = [*steps, _return(_ALLOW)]
    return [(_IF_EQUAL, 0, len(steps), number), *steps]
