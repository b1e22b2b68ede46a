"""The overhead benchmark in full, at tiny sizes: every row is there and every workload was done."""

from __future__ import annotations

import json
import sys

import pytest

from rlm_kernel.bench import command
from rlm_kernel.bench.overhead import GROUPS, measure
from rlm_kernel.bench.processes import Processes
from rlm_kernel.bench.workloads import Sizes, Workload
from rlm_kernel.cli import main
from rlm_kernel.errors import RLMError

TINY = Sizes(
    turns=8, calls=3, batch=4, latency=1, children=2, completions=2, flood=1, many=20, memory=(1,), warm=False
)
ROWS = {
    "turn": ["ms", "x", "ms"],
    "call": ["ms"],
    "batch": ["ms"],
    "pool": ["ms"],
    "warm": ["ms"],
    "children": ["ms"],
    "concurrent": ["ms", "ms"],
    "cold": ["ms", "ms"],
    "import": ["ms", "ms"],
    "memory": ["MB"],
    "flood": ["ms", "MB", "ms", "MB"],
    "many": ["x", "ms"],
    "idle": ["", "MB", "%"],
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and rest are read from Linux's /proc")


def test_every_row_is_measured():
    assert set(ROWS) == set(GROUPS)
    rows = measure(TINY, groups=list(GROUPS), repeat=1)
    units = {}
    for row in rows:
        units.setdefault(row.name, []).append(row.unit)
        assert len(row.samples["ours"]) == 1
        assert row.unit in ("MB", "%", "") or row.samples["ours"][0] > 0
    assert units == ROWS
    measured = {row.name: row for row in reversed(rows)}
    for name in (
        "turn",
        "call",
        "batch",
        "pool",
        "warm",
        "children",
        "concurrent",
        "cold",
        "memory",
        "flood",
    ):
        assert {"A", "O"} <= set(measured[name].samples)
    assert measured["children"].samples["cold O"]
    # One megabyte in the caller's hands and one in the kernel, besides what Python itself needs.
    assert measured["memory"].samples["ours"][0] > measured["memory"].samples["A"][0] > 2


def test_contenders_are_asked_for_the_same():
    with Processes() as processes:
        workload = Workload("batch-4", "sub-1", expected="4")
        counts = {}
        for name in ("A", "O", "ours"):
            processes.do(name, workload)
            notes = processes.do(name, workload).notes
            counts[name] = [(note["model"]) for note in notes]
        assert counts["A"] == ["batch-4", "batch-4", *["sub-1"] * 4, "batch-4"]
        assert counts["A"] == counts["O"] == counts["ours"]


def test_a_wrong_answer_is_an_error_and_not_a_row():
    with Processes() as processes, pytest.raises(RLMError, match="not 'six'"):
        processes.do("A", Workload("turns-5", expected="six"))


def test_the_command_prints_one_json_object(monkeypatch, capsys):
    monkeypatch.setattr(command, "QUICK", TINY)
    assert main(["bench", "overhead", "--quick", "--repeat", "1", "--rows", "call", "--json"]) == 0
    said = capsys.readouterr()
    assert [row["row"] for row in json.loads(said.out)["rows"]] == ["call"]
    assert said.err == "measuring: call\n"
