"""The comparison of backends, at tiny sizes: every row is there, for every backend that can run here."""

from __future__ import annotations

import json
import sys

import pytest
from wasm import needs_deno

from rlm_kernel.bench import backends, command
from rlm_kernel.bench.backends import Compared, Goal, as_json, as_table, compare, usable
from rlm_kernel.bench.workloads import Sizes, Workload, reply
from rlm_kernel.cli import main
from rlm_kernel.dialect import parse
from rlm_kernel.errors import ConfigError, InputError

TINY = Sizes(turns=4, calls=3, batch=4, latency=1, memory=(1,), text=1, warm=False)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


def test_every_row_is_measured_for_every_backend():
    names, _ = usable(["sandbox"])
    rows = compare(names, TINY, repeat=1)
    assert {row.name for row in rows} == set(backends.GROUPS) - {"snapshot"}
    for row in rows:
        assert list(row.samples) == names
        assert all(len(each) == 1 and each[0] > 0 for each in row.samples.values())
        assert row.reached is None
    memory = next(row for row in rows if row.unit == "MB")
    assert all(each[0] > 50 for each in memory.samples.values())


@needs_deno
def test_a_snapshot_saves_most_of_a_start():
    ready, cpu = compare(["local", "pyodide"], TINY, groups=["snapshot"], repeat=1)
    assert set(ready.samples) == set(cpu.samples) == {"without snapshot", "pyodide"}
    assert cpu.ratio("pyodide", "without snapshot") < 0.5
    assert cpu.reached is not None


def test_one_that_can_not_run_here_is_named_and_left_out(monkeypatch, capsys):
    def missing():
        raise ConfigError("there is no bubblewrap", hint="install it")

    monkeypatch.setattr(backends.KERNELS["sandbox"], "check", missing)
    monkeypatch.setattr(command, "QUICK", TINY)
    arguments = ["--repl", "sandbox", "--quick", "--repeat", "1", "--rows", "cell"]
    assert main(["bench", "overhead", *arguments]) == 0
    said = capsys.readouterr()
    assert "sandbox was not measured: there is no bubblewrap (install it)\n" in said.out
    assert said.err == "measuring: cell\n"
    assert main(["bench", "overhead", *arguments, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["not_measured"] == {"sandbox": "there is no bubblewrap (install it)"}
    assert set(whole["rows"][0]["samples"]) == {"local"}


@pytest.mark.parametrize("arguments", [["--repl", "docker"], ["--repl", "sandbox", "--rows", "warm"]])
def test_what_can_not_be_compared_is_refused(arguments, monkeypatch, capsys):
    monkeypatch.setattr(backends.KERNELS["sandbox"], "check", lambda: None)
    assert main(["bench", "overhead", *arguments]) == 2
    assert arguments[-1] in capsys.readouterr().err


def test_unknown_names_are_listed():
    with pytest.raises(InputError) as caught:
        usable(["docker"])
    assert all(name in caught.value.hint for name in backends.BACKENDS)


def row(goal=None, **samples):
    return Compared("cell", "a gap", "ms", samples, goal)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (None, None),
        (Goal("pyodide", 6.0), True),
        (Goal("pyodide", 5.0), False),
        (Goal("pyodide", 3.0, "local"), True),
        (Goal("pyodide", 2.0, "local"), False),
        (Goal("sandbox", 2.0), None),
        (Goal("pyodide", 2.0, "sandbox"), None),
    ],
)
def test_goals_are_amounts_or_factors(goal, reached):
    assert row(goal, local=[2.0], pyodide=[6.0]).reached is reached


def test_the_table_stands_side_by_side():
    rows = [row(Goal("pyodide", 3.0, "local"), local=[2.0], sandbox=[3.0], pyodide=[6.0]), row(local=[1.0])]
    table = as_table(rows, ["local", "sandbox", "pyodide"], {}, {"load": 0.5})
    first, second = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("| cell")
    ]
    assert first == ["cell", "a gap, ms", "2", "3", "1.50", "6", "3.00", "pyodide 3 x local", "reached"]
    assert second == ["cell", "a gap, ms", "1", "-", "-", "-", "-", "", ""]
    assert as_json(rows, {}, {})["rows"][0]["goal"] == "pyodide 3 x local"


def test_the_text_work_is_one_block():
    assert len(parse(reply("text-3", 1)).blocks) == 1
    space = {"context": Workload("one").text, "print": lambda *_: None}
    code = parse(reply("text-3", 1)).blocks[0].code
    exec(code, space)
    assert len(space["found"]) == 30_000
