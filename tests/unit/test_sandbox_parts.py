"""What a sandbox is made of, before one is: the filter of system calls, and what it sees."""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.isolation import table
from rlm_kernel.kernels import syscalls
from rlm_kernel.repl.sandbox import layout
from rlm_kernel.repl.sandbox.limits import SandboxLimits

ROOT = Path(__file__).parents[2]
ALLOW, KILL = 0x7FFF0000, 0x80000000
AARCH64, X86_64 = 0xC00000B7, 0xC000003E
# From the systems' headers: read, execve, clone, clone3, socket, ioctl, prctl.
ORDINARY = {"x86_64": (0, 59, 56, 41, 16, 157), "aarch64": (63, 221, 220, 198, 29, 167)}


def verdict(machine, number, *arguments, architecture=None):
    """Run a filter as the kernel does, and return what it says."""
    architecture = architecture or {"x86_64": X86_64, "aarch64": AARCH64}[machine]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    steps, at, loaded = syscalls.program(machine), 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            (loaded,) = struct.unpack_from("<I", data, operand)
        else:
            test = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: bool(loaded & operand)}[code]
            at += if_true if test else if_false


def refusal(number):
    return 0x00050000 | number


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine, column):
    denied = {numbers[column] for numbers in syscalls.DENIED.values() if numbers[column] is not None}
    assert len(denied) > 45
    for number in range(460):
        expected = refusal(errno.EPERM) if number in denied else ALLOW
        if number == 435:
            expected = refusal(errno.ENOSYS)
        arguments = (1,) if number == ORDINARY[machine][3] else ()
        assert (number, verdict(machine, number, *arguments)) == (number, expected)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_looks_at_arguments(machine):
    _, _, clone, socket, ioctl, _ = ORDINARY[machine]
    threads = 0x3D0F00
    assert verdict(machine, clone, threads) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, threads | flag) == refusal(errno.EPERM)
    families = {family for family in range(64) if verdict(machine, socket, family) == ALLOW}
    assert families == {1, 2, 10, 16}
    assert verdict(machine, socket, 40) == refusal(errno.EAFNOSUPPORT)
    assert verdict(machine, ioctl, 0, 0x5412) == verdict(machine, ioctl, 0, 0x541C) == refusal(errno.EPERM)
    assert verdict(machine, ioctl, 0, 0x5413) == ALLOW
    # The upper half of a register does not hide the lower one.
    assert verdict(machine, ioctl, 0, 0x5412 | 1 << 32) == refusal(errno.EPERM)


def test_the_filter_refuses_other_numbers_for_the_same_calls():
    assert verdict("x86_64", 59, architecture=0x40000003) == KILL
    assert verdict("aarch64", 221, architecture=0x40000028) == KILL
    assert verdict("x86_64", 0x40000000 + 59) == refusal(errno.ENOSYS)


def bound(options):
    """Return what is mounted, by its place inside."""
    pairs = zip(options, options[1:], options[2:], strict=False)
    return {inside: outside for option, outside, inside in pairs if option in ("--ro-bind", "--ro-bind-try")}


def test_a_sandbox_sees_python_and_no_project(tmp_path):
    project = tmp_path / "project"
    for name in ("bin", "lib/python3", "src", ".git"):
        (project / name).mkdir(parents=True)
    for name in (".env", "pyvenv.cfg", "main.py"):
        (project / name).write_text("x")
    os.symlink(sys.executable, project / "bin" / "python")
    python = layout.Interpreter(str(project / "bin" / "python"), (str(project), sys.base_prefix), "")
    options = layout.mounts(python, "/nowhere/inside", SandboxLimits())
    seen = bound(options)
    assert {path for path in seen if path.startswith(str(project))} == {
        str(project / name) for name in ("bin", "lib", "pyvenv.cfg")
    }
    assert seen[layout.INSIDE] == "/nowhere/inside"
    assert seen["/etc/passwd"] == "/nowhere/inside/passwd"
    for path in ("/", "/etc", "/home", "/root", "/tmp", "/run", "/var", "/sys", os.path.expanduser("~")):
        assert path not in seen
    # Nothing of the host is mounted to be written to.
    assert not {"--bind", "--bind-try", "--dev-bind", "--bind-fd"} & set(options)
    assert options.index("--tmpfs") < options.index(str(project / "lib"))


def test_an_interpreter_tells_where_it_lives():
    python = layout.interpreter(sys.executable)
    assert sys.prefix in python.prefixes
    assert sys.base_prefix in python.prefixes


def test_the_environment_is_made_not_inherited():
    python = layout.Interpreter("/opt/x/bin/python", (), "")
    given = {
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "OPENAI_API_KEY": "sk-canary-x",
        "HOME": "/home/me",
        "PYTHONPATH": "/x",
    }
    env = layout.environment(given, {"MINE": "1"}, python, SandboxLimits(cpus=1))
    assert env["HOME"] == "/home/rlm"
    assert env["PATH"].startswith("/opt/x/bin:")
    assert env["OMP_NUM_THREADS"] == "1"
    assert {"LANG", "LC_ALL", "MINE"} <= env.keys()
    assert not {"OPENAI_API_KEY", "PYTHONPATH"} & env.keys()


@pytest.mark.parametrize("limits", [{"memory": -1}, {"cpus": 0}, {"disk": float("inf")}, {"processes": True}])
def test_limits_are_numbers_above_0(limits):
    with pytest.raises(ConfigError, match=next(iter(limits))):
        SandboxLimits(**limits)


def test_the_docs_repeat_the_table_that_doctor_prints():
    page = (ROOT / "docs" / "sandboxes.md").read_text("utf-8")
    rows = [
        tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in page.splitlines()
    ]
    for row in table():
        assert row in rows
