"""Quotes on the console and the command line: verified and unverified ones look different."""

from __future__ import annotations

import io
import json

import papers
import pytest
from rich.console import Console
from test_cli import at, jupyter_rlm, served

from rlm_kernel.events import RunFinished, RunStarted
from rlm_kernel.evidence import LOOSE, NOT_FOUND, Quote
from rlm_kernel.trace.console import ConsoleReader
from rlm_kernel.trace.quotes import quote_lines

HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold]\u202e line\nbreak \ud800"
QUOTES = (
    Quote("the gate is red", verified=True, context="context", path="a.pdf", line=3, page=2),
    Quote("the gate is green", reason=NOT_FOUND),
    Quote("the gate  is red", reason=LOOSE, context="docs", where='["b"]', line=7),
)


def test_lines():
    assert list(quote_lines(QUOTES)) == [
        (False, "Quotes: 1 of 3 verified"),
        (True, '  verified      a.pdf, page 2, line 3: "the gate is red"'),
        (False, '  NOT VERIFIED  not in the context: "the gate is green"'),
        (
            False,
            '  NOT VERIFIED  stands there with other white space (docs["b"], line 7): "the gate is red"',
        ),
    ]
    assert next(quote_lines(QUOTES[:1])) == (True, "Quotes: 1 of 1 verified")
    assert list(quote_lines(())) == []


@pytest.mark.parametrize("plain", [True, False])
def test_the_console_shows_them(plain):
    hostile = Quote(HOSTILE, verified=True, context="c", where=f"[{HOSTILE}]", path=HOSTILE, line=1)
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200, height=40)
    with ConsoleReader(console, plain=plain) as reader:
        reader(RunStarted(run="r1", query="?", model="m", sub_model="s", repl="local"))
        reader(RunFinished(run="r1", status="answered", text="red", evidence=(*QUOTES, hostile)))
    text = console.file.getvalue()
    lines = text.splitlines()
    assert sum("NOT VERIFIED" in line for line in lines) == 2
    assert any("verified      a.pdf, page 2, line 3" in line for line in lines)
    for piece in ("owned", "\x1b[2J", "\x07", "\u202e", "\ud800"):
        assert piece not in text
    if not plain:
        red = next(line for line in lines if "green" in line)
        assert "\x1b[1;31m" in red
        assert "\x1b[1;31m" not in next(line for line in lines if "a.pdf" in line)


REPLY = "```repl\nFINAL('red', quotes=['The gate is red.', 'The gate is green.'])\n```"


@pytest.mark.parametrize("form", ["--json", "--plain", "--quiet"])
async def test_cite_on_the_command_line(form, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.pdf").write_bytes(papers.pdf("The gate is red."))
    (tmp_path / "papers" / "b.pdf").write_bytes(b"%PDF-")
    async with served(root=[REPLY]) as server:
        code, out, err = await jupyter_rlm(
            tmp_path, "run", "--context", "papers", *at(server), "--cite", "--no-save", form, "Which?"
        )
    assert code == 0, err
    assert (out + err).count("Refused: b.pdf") == 1
    assert "1 PDF as text" in err
    if form == "--json":
        found = json.loads(out)["evidence"]
        assert [(each["verified"], each["path"], each["page"]) for each in found] == [
            (True, "a.pdf", 1),
            (False, None, None),
        ]
    elif form == "--plain":
        assert '  verified      a.pdf, page 1, line 1: "The gate is red."' in out.splitlines()
        assert '  NOT VERIFIED  not in the context: "The gate is green."' in out.splitlines()
    else:
        assert out == "red\n"
