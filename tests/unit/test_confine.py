"""Confinement of a process, in processes of their own: it can't be undone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_kernel.kernels import confine

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are confined on Linux only")

_PROBE = """
import json, os, socket, subprocess, sys
from rlm_kernel.kernels import confine
if {abi} is not None:
    confine.landlock_abi = lambda: {abi}
holds = confine.confine()
def works(action):
    try:
        action()
        return True
    except OSError:
        return False
os.makedirs("from"); os.makedirs("to"); open("from/file", "w").close()
print(json.dumps({{
    "holds": holds,
    "report": confine.report(),
    "environ": works(lambda: open(f"/proc/{{os.getppid()}}/environ").close()),
    "signal": works(lambda: os.kill(os.getppid(), 0)),
    "abstract": works(lambda: socket.socket(socket.AF_UNIX).connect("\\0rlm-confine-" + sys.argv[1])),
    "move": works(lambda: os.rename("from/file", "to/file")),
    "child": subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout,
}}))
"""


@pytest.fixture
def confined(tmp_path):
    """Return what a confined process can do, where Landlock says it has a certain version."""
    import socket

    def run(abi=None):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"\0rlm-confine-{tmp_path.name}")
            server.listen()
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _PROBE.format(abi=abi), tmp_path.name],
                capture_output=True,
                check=True,
                text=True,
                cwd=tmp_path,
                env={"PYTHONPATH": str(Path(confine.__file__).parents[2]), "PATH": "/usr/bin:/bin"},
            )
        return json.loads(done.stdout)

    return run


@linux
@pytest.mark.parametrize("abi", [1, 2, 3, 4, 5, None])
def test_what_is_said_to_hold_holds(abi, confined):
    if confine.landlock_abi() < (abi or 6):
        pytest.skip(f"this Linux has Landlock of ABI {confine.landlock_abi()}")
    seen = confined(abi)
    whole = abi is None
    assert {"privileges", "memory", "capabilities"} <= set(seen["holds"])
    assert ("signals" in seen["holds"]) == ("abstract_sockets" in seen["holds"]) == whole
    assert not seen["environ"]
    assert seen["signal"] != whole
    assert seen["abstract"] != whole
    # The first version could not say that files may be moved between folders.
    assert seen["move"] == (abi != 1)
    status = dict(line.split(":\t", 1) for line in seen["child"].splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert [name for name, reason in seen["report"].items() if not reason] == [
        name for name in confine.PROTECTIONS if name in seen["holds"]
    ]


@linux
def test_without_landlock_it_says_what_does_not_hold(confined):
    seen = confined(0)
    assert set(seen["holds"]) == {"privileges", "capabilities"}
    assert {name for name, reason in seen["report"].items() if reason} == {
        "memory",
        "signals",
        "abstract_sockets",
    }


def test_other_platforms_give_nothing_and_say_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert confine.confine() == ()
    assert confine.landlock_abi() == 0
    assert confine.report() == dict.fromkeys(confine.PROTECTIONS, "not on darwin: it needs Linux")
