"""What `jupyter rlm bench panel --lab` measures, measured once; how long it took is not judged here."""

from __future__ import annotations

import pytest
from test_lab import lab  # noqa: F401  a fixture

from rlm_kernel.bench import waits
from rlm_kernel.bench.lab import Lab

pytestmark = pytest.mark.browser


def test_all_waits_are_measured(lab, chromium, monkeypatch):  # noqa: F811
    monkeypatch.setattr(waits, "LATER_QUESTIONS", 1)
    found = {}

    def note(what, kernel, target, milliseconds):
        found.setdefault((what, kernel), waits.Wait(what, kernel, target)).milliseconds.append(milliseconds)

    with waits.endpoint() as base_url:
        waits.in_notebook(chromium, Lab(*lab), base_url, "rlm", note)
    assert [what for what, _ in found] == [
        "for comparison: what a plain cell prints",
        "first sign, first question",
        "panel with its question, first question",
        "first sign, later questions",
        "panel with its question, later questions",
        "stopped by the panel's button: cancelled",
        "stopped by the toolbar's button: cancelled",
        "saved notebook opened in a page that is there: its tree",
        "the same, with JupyterLab loading first",
    ]
    assert all(each.milliseconds[0] > 0 for each in found.values())
    table = waits.as_table(list(found.values()), {"load": 0.5, "chromium": "156"})
    head, _, columns, rule, *rows = table.splitlines()
    assert head == "load 0.5, chromium 156"
    assert len(rows) == len(found)
    assert {line.count("|") for line in (columns, rule, *rows)} == {6}
