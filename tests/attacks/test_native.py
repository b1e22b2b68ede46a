"""No attack of the corpus gets out of the sandbox; those that get out of a local kernel are published."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from corpus import ATTACKS, BARE, LOCAL, SANDBOX
from ordinary import ROOT, as_nobody, public

RUNNER = Path(__file__).parent / "runner.py"
IS_ROOT = os.geteuid() == 0

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the native sandbox needs Linux"),
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="the corpus has system calls by x86_64's numbers"
    ),
]
bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
by_root = pytest.mark.skipif(not IS_ROOT, reason="what gets through is stated for root")


def run(backend, *, before=()):
    """Run the corpus in an orchestrator of its own; return how attacks got through, and what held."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a path that is short enough for sockets
        environment = public({"OPENAI_API_KEY": f"sk-canary-{secrets.token_hex(8)}"}, folder)
        done = subprocess.run(
            [*before, sys.executable, str(RUNNER), backend],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = {each.name for each in ATTACKS if backend in each.only}
    assert set(said["results"]) == expected
    return {name: how for name, how in said["results"].items() if how}, said["holds"]


def of_memory(holds):
    """Attacks that need a limit for the whole tree, where there is none: doctor says so."""
    return set() if "memory" in holds else {"memory that is shared", "memory of many processes"}


@bubblewrap
@pytest.mark.parametrize("user", ["self", "ordinary"] if IS_ROOT else ["self"])
def test_nothing_gets_out_of_the_sandbox(user):
    through, holds = run(SANDBOX, before=as_nobody() if user == "ordinary" else ())
    assert {name: how for name, how in through.items() if name not in of_memory(holds)} == {}


@by_root
@pytest.mark.parametrize("backend", [BARE, LOCAL])
def test_what_gets_out_of_local_kernels(backend):
    through, _ = run(backend)
    depends = {each.name for each in ATTACKS if each.depends}
    expected = {each.name for each in ATTACKS if backend in each.through}
    assert set(through) - depends == expected - depends


def test_every_attack_is_known_to_work_somewhere():
    """Otherwise that it fails in the sandbox would prove nothing."""
    unproven = {each.name for each in ATTACKS if not each.through and LOCAL in each.only}
    assert unproven == {
        # What these do is bounded by local kernels, too.
        *("own environment", "outlive the session", "fill the host's log"),
        # This machine's kernel has no such numbers.
        "numbers of another architecture",
    }


def test_what_gets_out_of_local_kernels_is_published():
    page = (ROOT / "docs" / "sandboxes.md").read_text("utf-8")
    section = page.partition("## What gets through `local`")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^- (.+)$", section, re.MULTILINE))
    assert listed == {each.name for each in ATTACKS if LOCAL in each.through}
