"""Exports of runs, and of texts that try to break out of them; the command that makes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import recorded_run

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel import events as ev
from rlm_kernel.errors import InputError
from rlm_kernel.notebook.exporting import Saver, export
from rlm_kernel.notebook.markdown import fenced, render
from rlm_kernel.notebook.recording import EMBED_BYTES, Recording
from rlm_kernel.notebook.transcript import transcribe
from rlm_kernel.trace.jsonl import JsonlWriter

ROOT = Path(__file__).parents[2]
TEXT = "some words of a text " * 200
KEY = "sk-canary-unit-0123456789"


def write(path, events, **options):
    with JsonlWriter(path, **options) as writer:
        for event in events:
            writer(event)
    return path


@pytest.mark.parametrize("suffix", [".ipynb", ".html", ".md", ".jsonl", ".rlm.json"])
def test_every_form_is_written_from_a_file_and_from_events(tmp_path, suffix):
    events = recorded_run.run(TEXT)
    trajectory = write(tmp_path / "run.jsonl", events)
    from_file, from_events = tmp_path / f"file{suffix}", tmp_path / f"events{suffix}"
    assert export(trajectory, from_file, contexts=[TEXT]) == (from_file,)
    assert export(events, from_events, contexts=[TEXT]) == (from_events,)
    assert from_file.stat().st_mode & 0o777 == 0o600
    assert "How many words are in the text?" in from_file.read_text()
    if suffix == ".jsonl":
        assert from_file.read_bytes() == trajectory.read_bytes()
    elif suffix == ".rlm.json":
        # As many lines, though only a run's own events name the contexts that its texts are slices of.
        both = [json.loads(path.read_text()) for path in (from_file, from_events)]
        assert len({len(each["lines"]) for each in both}) == 1
        assert [each["summary"]["status"] for each in both] == ["answered"] * 2
    else:
        assert len(from_file.read_text()) == pytest.approx(len(from_events.read_text()), rel=0.01)


def test_a_notebook_is_valid_whatever_the_run_holds(tmp_path):
    hostile = '</pre><script>alert(1)</script>\n``````\n# no heading\n\x1b[31m"""\ud800\n$x$'
    for number, events in enumerate(
        (
            recorded_run.run(TEXT, hostile=hostile),
            recorded_run.run(TEXT, batch=300),
            recorded_run.run(TEXT)[:9],
        )
    ):
        target = tmp_path / f"{number}.ipynb"
        export(events, target)
        notebook = nbformat.read(target, 4)
        nbformat.validate(notebook)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
        setup = next(cell for cell in notebook.cells if "rlm-setup" in cell.metadata.tags)
        compile(setup.source, "setup", "exec")


def test_no_text_ends_the_block_it_stands_in():
    assert fenced("a\n```\nb") == "````text\na\n```\nb\n````"
    hostile = "```\n# heading\n````"
    document = render(transcribe(recorded_run.run(TEXT, hostile=hostile)))
    inside = None
    for line in document.splitlines():
        ticks = len(line) - len(line.lstrip("`"))
        if inside is None and ticks >= 3:
            inside = ticks
        elif inside is not None and ticks >= inside and not line.strip("`"):
            inside = None
        elif line == "# heading":
            assert inside is not None or document.index(line) < 200  # the question itself
    assert inside is None


def test_a_long_recording_goes_to_a_file_beside_the_notebook(tmp_path):
    events = [
        replace(event, text=os.urandom(200).hex()) if isinstance(event, ev.CallFinished) else event
        for event in recorded_run.run(TEXT, batch=400, failed=())
    ]
    target = tmp_path / "run.ipynb"
    notebook, beside = export(events, target)
    assert (notebook, beside) == (target, tmp_path / "run.rlm-recording")
    assert target.stat().st_size < EMBED_BYTES
    assert "path='run.rlm-recording'" in target.read_text()
    recording = Recording.unpack(beside.read_bytes())
    assert sum(len(cell.calls) for cell in recording.cells) >= 400
    with pytest.raises(InputError, match="can't be read"):
        Recording.unpack(beside.read_bytes()[:-10])
    with pytest.raises(InputError, match="version 99"):
        Recording.unpack(replace(recording, version=99).pack())


def test_a_saver_writes_when_the_run_is_over(tmp_path):
    target = tmp_path / "run.md"
    with Saver(target, secrets=[KEY]) as saver:
        for event in recorded_run.run(TEXT, hostile=KEY):
            saver(event)
        assert target.read_text() == ""
    assert "How many words" in target.read_text()
    assert KEY not in target.read_text()
    with pytest.raises(InputError, match=r"\.txt names no form"):
        Saver(tmp_path / "run.txt")
    with pytest.raises(OSError, match="No such file"):
        Saver(tmp_path / "nowhere" / "run.md")


async def test_save_says_where_notebooks_come_from(tmp_path):
    rlm = RLM(model=ScriptedModel(["FINAL(1)"]))
    with pytest.raises(InputError, match="save= writes JSON lines") as caught:
        await rlm.acompletion("q", "c", save=tmp_path / "run.ipynb")
    assert "Saver" in caught.value.hint


def test_what_can_not_be_exported_is_said(tmp_path):
    events = recorded_run.run(TEXT)
    with pytest.raises(InputError, match="no run begins"):
        export(events[1:2], tmp_path / "run.md")
    trajectory = write(tmp_path / "run.jsonl", events)
    with pytest.raises(InputError, match="is the trajectory itself"):
        export(trajectory, trajectory)
    with pytest.raises(InputError, match="can't be written"):
        export(trajectory, tmp_path / "nowhere" / "run.md")


# The command ------------------------------------------------------------------------------------------


def command(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", "rlm_kernel.cli", "export", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_exports_and_does_not_overwrite(tmp_path):
    write(tmp_path / "run.jsonl", recorded_run.run(TEXT, hostile=f" {KEY}"))
    (tmp_path / "text.txt").write_text(TEXT)
    done = command(tmp_path, "run.jsonl", "run.ipynb", "--context", "text.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "run.ipynb\n", "")
    assert KEY not in (tmp_path / "run.ipynb").read_text()
    assert json.loads((tmp_path / "run.ipynb").read_text())["nbformat_minor"] == 5
    again = command(tmp_path, "run.jsonl", "run.ipynb")
    assert again.returncode == 2
    assert again.stderr == "jupyter rlm: run.ipynb is there already\n  --force writes over it\n"
    assert command(tmp_path, "run.jsonl", "run.ipynb", "--force").returncode == 0
    wrong = command(tmp_path, "run.jsonl", "run.pdf")
    assert "no form" in wrong.stderr
    assert ".ipynb, .html, .md, .jsonl" in wrong.stderr
