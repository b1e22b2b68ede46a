"""The overhead benchmark without its processes: scripts, samples, targets, table."""

from __future__ import annotations

import json
import os

import pytest

from rlm_kernel.bench.memory import peak, pss, sample
from rlm_kernel.bench.overhead import GROUPS, Row, Target, measure
from rlm_kernel.bench.processes import Done
from rlm_kernel.bench.references import REFERENCES, Reference
from rlm_kernel.bench.report import as_json, as_table, conditions
from rlm_kernel.bench.workloads import Sizes, Workload, latency, reply
from rlm_kernel.cli import main
from rlm_kernel.dialect import parse
from rlm_kernel.errors import InputError

KINDS = ("turns", "calls", "batch", "pool", "children", "flood", "lines", "read")


class Scripted(Reference):
    """A reference whose model is the script itself."""

    asked = 0

    async def ask(self, model, messages):
        self.asked += 1
        return reply(model, sum(each["role"] == "assistant" for each in messages))

    async def close(self):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_every_reply_is_one_block_that_the_dialect_takes(kind):
    first = parse(reply(f"{kind}-3", 0))
    assert len(first.blocks) == 1
    assert first.blocks[0].closed


@pytest.mark.parametrize(
    ("root", "sub", "expected", "requests"),
    [
        ("turns-5", "sub-0", "5", 5),
        ("calls-4", "sub-0", "4", 3 + 4),
        ("batch-4", "sub-0", "4", 3 + 4),
        ("pool-4", "sub-0", "4", 3 + 4),
        ("children-3", "child", "3", 3 + 3),
        ("one", "sub-0", "12", 1),
        ("read-1", "sub-0", "12", 2),
        ("flood-1", "sub-0", "1", 3),
        ("lines-1", "sub-0", "1", 3),
    ],
)
async def test_a_reference_does_the_work(root, sub, expected, requests):
    reference = Scripted("", "")
    assert await reference.complete(root, sub, "How long?", "x" * 12, 20) == expected
    assert reference.asked == requests


def test_a_sub_model_takes_the_time_in_its_name():
    assert latency("sub-50") == 0.05
    assert latency("batch-200") == 0.0


@pytest.mark.parametrize("chars", [0, 1, 79, 80, 81, 1000])
def test_contexts_have_the_size_asked_for(chars):
    assert len(Workload("one", chars=chars).text) == chars


def test_gaps_lie_between_a_reply_and_the_next_request_to_the_same_model():
    notes = [
        {"model": "root", "received": 0.0, "replied": 1.0},
        {"model": "sub", "received": 1.1, "replied": 1.2},
        {"model": "root", "received": 1.5, "replied": 2.0},
        {"model": "root", "received": 2.25, "replied": 3.0},
    ]
    assert Done(0.0, notes, [], None).gaps("root") == pytest.approx([500.0, 250.0])


def row(target=None, **samples):
    return Row("turn", "a gap", "ms", samples, target)


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (None, None),
        (Target(1.0, "O"), True),
        (Target(0.4, "O"), False),
        (Target(2.0, "A"), False),
        (Target(5.0), True),
        (Target(4.9), False),
        (Target(1.0, "cold O"), None),
    ],
)
def test_targets_are_factors_of_a_reference_or_amounts(target, reached):
    assert row(target, A=[1.0, 1.0, 9.0], O=[10.0], ours=[5.0, 4.0, 6.0]).reached is reached


def test_the_table_shows_medians_spread_ratios_and_whether_targets_are_reached():
    rows = [row(Target(1.0, "O"), A=[1.0, 2.0, 3.0], O=[10.0], ours=[5.0, 4.0, 6.0]), row(ours=[250.0])]
    table = as_table(rows, {"cores": 2, "load": 0.5}, 3)
    line = next(line for line in table.splitlines() if "| 10" in line)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        "a gap, ms",
        "2 [1.5-2.5]",
        "10",
        "5 [4.5-5.5]",
        "2.50",
        "0.50",
        "1 x O",
        "reached",
    ]
    assert "cores 2, load 0.5" in table
    assert len({len(line) for line in table.splitlines() if line.startswith("|")}) == 1


def test_json_holds_every_sample():
    whole = as_json([row(Target(2.0, "A"), A=[1.0], ours=[5.0])], conditions(), 1)
    assert json.loads(json.dumps(whole))["rows"][0] == {
        "row": "turn",
        "what": "a gap",
        "unit": "ms",
        "samples": {"A": [1.0], "ours": [5.0]},
        "medians": {"A": 1.0, "ours": 5.0},
        "by": {"A": 5.0},
        "target": {"most": 2.0, "of": "A"},
        "reached": False,
        "note": "",
    }
    assert whole["conditions"]["cores"] >= 1


def test_the_peak_counts_what_belongs_to_the_run_and_shared_memory_that_came_with_it():
    samples = [
        {"caller": 10, "shared": 100},
        {"caller": 20, "rlm-a": 30, "rlm-b": 500, "spare": 900, "shared": 105},
        {"caller": 25, "rlm-a": 20, "shared": 90},
    ]
    highest, groups = peak(samples, ["rlm-a"])
    assert highest == 20 + 30 + 5
    assert groups["shared"] == 5


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's smaps_rollup")
def test_memory_is_seen():
    before = pss(os.getpid())[0]
    held = b"x" * 50_000_000
    assert pss(os.getpid())[0] - before > 40_000_000
    assert sample(os.getpid())["caller"] > len(held)


def test_unknown_rows_are_refused_before_anything_starts():
    with pytest.raises(InputError) as caught:
        measure(Sizes(), groups=["turn", "tunr"], repeat=1)
    assert "tunr" in str(caught.value)
    assert all(name in caught.value.hint for name in GROUPS)


@pytest.mark.parametrize("arguments", [["--rows", "tunr"], ["--repeat", "0"], ["--repeat", "many"]])
def test_the_command_refuses_what_it_does_not_know(arguments, capsys):
    try:
        code = main(["bench", "overhead", *arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 2


def test_references_have_the_letters_of_the_table():
    assert list(REFERENCES) == ["A", "O"]
