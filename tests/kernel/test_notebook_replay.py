"""Exported runs run again, in a real kernel without a model, as Run All does."""

from __future__ import annotations

import asyncio
import copy
import gzip
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.errors import InputError
from rlm_kernel.notebook.exporting import Saver, export
from rlm_kernel.notebook.recording import Recording
from rlm_kernel.notebook.replaying import restored

ROOT = Path(__file__).parents[2]
KEY = "sk-canary-export-0123456789"

# A figure without a library that draws: one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CELLS = [
    "lines = context.splitlines()\nlen(lines)",
    "replies = llm_query_batched([f'say {line}' for line in lines[:3]])\nprint(replies)\nreplies[0]",
    """import asyncio, concurrent.futures
more = await asyncio.gather(*(allm_query(f'more {n}') for n in range(3)))
with concurrent.futures.ThreadPoolExecutor(3) as pool:
    more += pool.map(lambda n: llm_query(f'thread {n}'), range(3))
more""",
    """try:
    llm_query('fail')
except CallFailed as error:
    print(error)
llm_query('count', schema={'type': 'integer'}) + 1""",
    "child = rlm_query('how long?', lines)\nprint(child, twice(child))",
    f"""from IPython.display import HTML, Image, display
import base64
display(HTML('<b>bold</b>'))
Image(base64.b64decode({PIXEL!r}), format='png')""",
    "1 / 0",
    "FINAL(f'{len(lines)} lines, {replies[1]}')",
]
TEXT = "\n".join(f"line {number}" for number in range(1, 41))


def sub(request):
    said = str(request.messages[-1]["content"])
    if said == "fail":
        from rlm_kernel.errors import EndpointError

        raise EndpointError("the endpoint is down", attempts=1)
    return "41" if "JSON schema" in said else f"<{said}>"


def child_or_sub(request):
    if str(request.messages[0]["role"]) == "system":
        return "```repl\nFINAL(f'{len(context)} items')\n```"
    return sub(request)


def twice(text: str) -> str:
    """Return a text two times."""
    return text * 2


async def record(folder, cells=CELLS, context=TEXT, name="run.jsonl", **options):
    """Make a run of these cells; return the answer and its trajectory."""
    root = ScriptedModel([f"Now this.\n```repl\n{cell}\n```" for cell in cells], name="root")
    rlm = RLM(
        model=root,
        sub_model=ScriptedModel(child_or_sub, name="sub"),
        max_depth=2,
        spare_kernels=0,
        tools={"twice": twice},
        **options,
    )
    answer = await rlm.acompletion("How many\nlines?", context, save=folder / name)
    return answer, folder / name


def outputs(notebook):
    """The outputs of the recorded cells, without what differs in form: counts, and how tracebacks look."""
    found = []
    for cell in notebook.cells:
        if "rlm-cell" in cell.metadata.get("tags", ()):
            for output in copy.deepcopy(cell.outputs):
                output.pop("execution_count", None)
                output.pop("traceback", None)
                for text in output.get("data", {}):
                    output["data"][text] = "".join(output["data"][text]).strip()
                found.append((cell.id, dict(output, metadata={})))
    return found


async def run_all(path):
    """Run the notebook at ``path`` as it is; return it, run, and what its last cell says."""
    notebook = nbformat.read(path, 4)
    done = copy.deepcopy(notebook)
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(done, timeout=60, resources={"metadata": {"path": str(path.parent)}})
    # There is nothing that could ask a model.
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    await asyncio.wait_for(client.async_execute(env={**environment, "PYTHONPATH": str(ROOT)}), 60)
    said = "".join(output.get("text", "") for output in done.cells[-1].outputs)
    return notebook, done, said


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One run with all there can be in it."""
    folder = tmp_path_factory.mktemp("run")
    return asyncio.run(record(folder)), folder


def code_cells(notebook):
    return [cell for cell in notebook.cells if "rlm-cell" in cell.metadata.get("tags", ())]


# --- running again --------------------------------------------------------------------------------------


async def test_a_run_is_a_notebook_that_runs_again(recorded, tmp_path):
    (answer, trajectory), _ = recorded
    assert answer.text == "40 lines, <say line 2>", answer
    written = export(trajectory, tmp_path / "run.ipynb", contexts=[TEXT])
    assert written == (tmp_path / "run.ipynb",)
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert [cell.source for cell in code_cells(notebook)] == CELLS
    before, after, said = await run_all(tmp_path / "run.ipynb")
    assert outputs(after) == outputs(before)
    kinds = {output["output_type"] for _, output in outputs(after)}
    assert kinds == {"stream", "execute_result", "display_data", "error"}
    assert any("image/png" in output.get("data", {}) for _, output in outputs(after))
    assert said == "As recorded: 8 of 8 cells ran, 13 calls were answered.\n"


def test_words_children_and_figures_are_in_the_notebook(recorded, tmp_path):
    (answer, trajectory), _ = recorded
    export(trajectory, tmp_path / "run.ipynb", contexts=[TEXT])
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    by_tag = {}
    for cell in notebook.cells:
        by_tag.setdefault(cell.metadata.tags[0], []).append(cell)
        assert set(cell.metadata) <= {"tags", "rlm", "jupyter"}
    assert by_tag["rlm-question"][0].source.startswith(
        "# How many\n\nHow many\nlines?\n\nroot, sub; local kernel"
    )
    assert "40 lines" in by_tag["rlm-context"][0].source
    assert by_tag["rlm-turn"][0].source == "## Turn 1\n\nNow this."
    (child,) = by_tag["rlm-child"]
    assert child.source.startswith("### Child run: how long?")
    assert "FINAL(f'{len(context)} items')" in child.source
    assert "40 items" in child.source
    assert "raises-exception" in code_cells(notebook)[6].metadata.tags
    assert code_cells(notebook)[1].metadata.rlm["calls"] == 3
    assert by_tag["rlm-answer"][0].source.startswith("## Answer\n\n```text\n40 lines, <say line 2>\n```")
    assert notebook.metadata.rlm["calls"] == answer.total_calls
    assert notebook.metadata.rlm["status"] == "answered"


async def test_a_changed_cell_is_a_divergence(recorded, tmp_path):
    (_, trajectory), _ = recorded
    export(trajectory, tmp_path / "run.ipynb", contexts=[TEXT])
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    cells = code_cells(notebook)
    cells[1].source = cells[1].source.replace("say {line}", "tell {line}")
    cells[7].source = cells[7].source.replace("FINAL(", "FINAL('no, ' + ")
    nbformat.write(notebook, tmp_path / "run.ipynb")
    *_, done, said = await run_all_with_errors(tmp_path / "run.ipynb")
    assert "makes a call that is not recorded: 'tell line 1'" in said
    assert "the cell of turn 2 did not run as recorded: it was changed, or left out" in said
    assert "the cell of turn 8 did not run as recorded" in said
    assert "Not as recorded, in" in said
    assert "replay: " in "".join(output.get("text", "") for output in code_cells(done)[1].outputs)


async def run_all_with_errors(path):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata["tags"] = sorted({*cell.metadata["tags"], "raises-exception"})
    nbformat.write(notebook, path)
    return await run_all(path)


async def test_a_changed_prompt_of_an_unchanged_cell_gets_the_reply_of_its_place(tmp_path):
    cells = ["import time\nprint(llm_query(f'at {time.time()}')[:4])\nFINAL(1)"]
    _, trajectory = await record(tmp_path, cells)
    export(trajectory, tmp_path / "run.ipynb", contexts=[TEXT])
    _, done, said = await run_all(tmp_path / "run.ipynb")
    assert "the cell of turn 1 asks something else than recorded, and gets what was: 'at 1" in said
    assert code_cells(done)[0].outputs[0].text == "<at \n"


# --- where the context comes from -----------------------------------------------------------------------


LARGE = "\n".join(f"{number} {hash(str(number))}" for number in range(12_000))
COUNT = ["FINAL(len(context))"]


def contexts_of(path):
    """Restore the contexts of the notebook at ``path`` as its first code cell does."""
    notebook = nbformat.read(path, 4)
    setup = next(cell.source for cell in notebook.cells if "rlm-setup" in cell.metadata.tags)
    return restored(Recording.read(setup.split('"""')[1]).contexts, {})


async def test_a_context_in_a_file_is_read_again_and_checked(tmp_path, monkeypatch):
    source = tmp_path / "data" / "report.txt"
    source.parent.mkdir()
    source.write_text(LARGE)
    await record(tmp_path, COUNT, source)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "run.ipynb"
    assert export(tmp_path / "run.jsonl", target) == (target,)
    monkeypatch.chdir(target.parent)
    assert contexts_of(target) == {"context": LARGE}
    source.write_text(LARGE + "tampered")
    with pytest.raises(
        CellExecutionError, match=r"context: \.\./data/report.txt is not what it was in the run"
    ):
        await run_all(target)
    source.unlink()
    with pytest.raises(InputError, match=r"context: there is no \.\./data/report.txt"):
        contexts_of(target)


async def test_a_large_context_goes_to_a_file_beside_the_notebook(tmp_path, monkeypatch):
    _, trajectory = await record(tmp_path, COUNT, LARGE)
    target = tmp_path / "run.ipynb"
    beside = tmp_path / "run.context.gz"
    assert export(trajectory, target, contexts={"context": LARGE}) == (target, beside)
    assert beside.stat().st_mode & 0o777 == 0o600
    monkeypatch.chdir(tmp_path)
    assert contexts_of(target) == {"context": LARGE}
    beside.write_bytes(gzip.compress(b"another text"))
    with pytest.raises(InputError, match="what is kept of it is not what it was in the run"):
        contexts_of(target)
    export(trajectory, target, contexts=["another text"])
    with pytest.raises(
        InputError, match="context: it was not at hand when the notebook was written"
    ) as caught:
        contexts_of(target)
    assert "contexts={'NAME': value}" in caught.value.hint


async def test_values_of_all_kinds_are_kept_in_the_notebook(tmp_path):
    contexts = {"parts": {"a.txt": "one", "b": ("two", 2), "c": b"\0"}, "text": "plain"}
    root = ScriptedModel(["```repl\nFINAL(parts['b'][1])\n```"], name="root")
    with Saver(tmp_path / "run.ipynb") as saver:
        rlm = RLM(model=root, spare_kernels=0, lazy_above=3)
        await rlm.acompletion("q", contexts=contexts, readers=[saver])
    found = contexts_of(tmp_path / "run.ipynb")
    assert found["parts"] == contexts["parts"]
    assert (type(found["text"]).__name__, str(found["text"])) == ("LazyText", "plain")


async def test_a_cell_that_was_stopped_is_shown_and_not_executed(tmp_path):
    cells = ["import time\ntime.sleep(60)", "import os\nos._exit(3)", "FINAL(2)"]
    _, trajectory = await record(tmp_path, cells, cell_timeout=0.5)
    export(trajectory, tmp_path / "run.ipynb", contexts=[TEXT])
    notebook, _, said = await run_all(tmp_path / "run.ipynb")
    assert [cell.source for cell in code_cells(notebook)] == ["FINAL(2)"]
    shown = [cell.source for cell in notebook.cells if "rlm-not-executed" in cell.metadata.tags]
    assert ["timed out" in shown[0], "died" in shown[1]] == [True, True]
    assert said.startswith("As recorded: 1 of 1")


# --- other forms, and secrets ---------------------------------------------------------------------------


async def test_no_form_holds_a_secret(tmp_path):
    pasted = "sk-proj-abcdefghijklmnopqrstuvwxyz"
    cells = [f"key = {KEY!r}\nprint(key, llm_query('say ' + key))\nprint(context)", "FINAL('it is ' + key)"]
    _, trajectory = await record(tmp_path, cells, f"a key: {pasted}")
    raw = tmp_path / "raw"
    raw.mkdir()
    for suffix in (".ipynb", ".html", ".md", ".jsonl"):
        export(trajectory, raw / f"run{suffix}", contexts=[f"a key: {pasted}"], secrets=[KEY])
    for path in raw.iterdir():
        for secret in (KEY, pasted):
            assert secret not in path.read_text(), path
    with pytest.raises(InputError, match="it holds what looks like a key, and is not kept"):
        contexts_of(raw / "run.ipynb")


def test_the_other_forms(recorded, tmp_path):
    (_, trajectory), _ = recorded
    for suffix in (".html", ".md", ".jsonl"):
        export(trajectory, tmp_path / f"run{suffix}", contexts=[TEXT])
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert not any(each in page for each in ("<script", "http://", "https://", "src=", "url("))
    assert "40 lines, &lt;say line 2&gt;" in page
    document = (tmp_path / "run.md").read_text()
    assert document.startswith("# How many\n")
    for cell in CELLS:
        assert cell in document
    assert "#### Child run: how long?" in document or "### Child run: how long?" in document
    again = export(tmp_path / "run.jsonl", tmp_path / "again.ipynb", contexts=[TEXT])
    assert len(code_cells(nbformat.read(again[0], 4))) == len(CELLS)
