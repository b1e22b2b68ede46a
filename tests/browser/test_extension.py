"""The extension in JupyterLab and Notebook: it draws traces, lists runs, watches and stops them."""

from __future__ import annotations

import dataclasses
import json

import labextension
import long_run
import nbformat
import pytest
from browsing import aside
from test_lab import ASYNC, SYNC, open_notebook, page, run_all, shut_down_kernels, write  # noqa: F401

from rlm_kernel import events as ev
from rlm_kernel.bench.lab import serve
from rlm_kernel.notebook.bundle import MIME_TYPE, mimebundle
from rlm_kernel.trace.jsonl import JsonlWriter

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked = 1</script>"
BACKGROUND = """run = rlm().start("How many said yes?", "abc " * 1000, in_background=True)
panel = show(run)"""


@pytest.fixture(scope="module")
def lab():
    """Serve a folder in a JupyterLab with the extension; return the folder and the server's address."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    with serve(labextension.built()) as server:
        yield server.folder, server.address, server.token


@pytest.fixture
def asked(page, lab):  # noqa: F811
    """What the page asks other hosts for, and what goes wrong in the extension."""
    found = []
    here = (lab[1], lab[1].replace("http", "ws", 1), "data:", "blob:")

    def request(asked):
        if not asked.url.startswith(here):
            found.append(asked.url)

    def error(raised):
        if "@rlm-kernel" in (raised.stack or ""):
            found.append(raised.stack)

    for event, note in (("request", request), ("websocket", request), ("pageerror", error)):
        aside(page.on, event, note)
    return found


def saved(folder, name, *bundles):
    """Write a notebook of runs that are over, as nobody's: it is not trusted."""
    cells = [
        nbformat.v4.new_code_cell("%rlm how many", outputs=[nbformat.v4.new_output("display_data", data)])
        for data in bundles
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / name)


def events(*, odd="", priced=True):
    """Return a long run; `odd` stands in its question, a cell's output and its answer."""

    def changed(event):
        if isinstance(event, ev.RunStarted):
            return dataclasses.replace(event, query=event.query + odd)
        if isinstance(event, ev.RunFinished):
            event = dataclasses.replace(event, text=event.text + odd)
        if isinstance(event, ev.CellFinished):
            outputs = tuple(dataclasses.replace(each, text=each.text + odd) for each in event.outputs)
            return dataclasses.replace(event, outputs=outputs)
        if isinstance(event, ev.CallFinished | ev.RunFinished) and not priced:
            return dataclasses.replace(event, usage=dataclasses.replace(event.usage, cost_usd=None))
        return event

    return [changed(event) for event in long_run.run()]


def show_runs(page):  # noqa: F811
    page.evaluate("window.jupyterapp.commands.execute('rlm:show-runs')")
    page.locator(".rlm-runs").wait_for()
    return page.locator(".rlm-run")


def dark(page):  # noqa: F811
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
    page.locator("#jupyterlab-splash").wait_for(state="detached")


@pytest.mark.parametrize("app", ["lab/tree", "notebooks"])
def test_saved_run_is_drawn_without_a_kernel(lab, page, asked, shot, app):  # noqa: F811
    folder = lab[0]
    name = f"saved-{app[:3]}.ipynb"
    saved(folder, name, mimebundle(events(odd=HOSTILE)), mimebundle(events(), folder=folder, inline_bytes=0))
    open_notebook(page, lab, name, app=app)
    panels = page.locator(".jp-OutputArea-output.rlm-trace .rlm-panel[data-state=answered]")
    panels.nth(1).wait_for()
    assert page.locator(".jp-OutputArea-output details").count() == 0
    row = panels.nth(1).locator(".rlm-row[data-kind=cell]").first
    row.click()
    page.locator(".rlm-detail", has_text="print(len(context), list(context)[:3])").wait_for()
    shot(page, f"extension-saved-{app[:3]}")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".rlm-panel img, .rlm-panel script").count() == 0
    assert asked == []


def test_missing_trace_is_named(lab, page, shot):  # noqa: F811
    folder = lab[0]
    data = mimebundle(events(), folder=folder, inline_bytes=0)
    (folder / data[MIME_TYPE]["path"]).unlink()
    saved(folder, "missing.ipynb", data)
    open_notebook(page, lab, "missing.ipynb")
    page.locator(".rlm-trace-missing", has_text=data[MIME_TYPE]["path"]).wait_for()
    shot(page, "extension-missing")


def test_files_open_as_runs(lab, page, asked, shot):  # noqa: F811
    folder = lab[0]
    _, address, token = lab
    (folder / "kept.rlm.json").write_text(json.dumps(mimebundle(events())[MIME_TYPE]))
    (folder / "broken.rlm.json").write_text('{"version": 1')
    named = folder / "20261121T101500-3fa9c2.jsonl"
    with JsonlWriter(named) as writer:
        for event in events(priced=False):
            writer(event)
    for name in ("kept.rlm.json", named.name):
        page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
        page.locator(".jp-MimeDocument .rlm-panel[data-state=answered]").wait_for()
        page.locator(".jp-MimeDocument .rlm-row[data-kind=batch]").first.wait_for()
    shot(page, "extension-file")
    page.goto(f"{address}/lab/tree/broken.rlm.json?token={token}&reset")
    page.locator(".jp-MimeDocument .rlm-trace-missing", has_text="No run has begun").wait_for()
    assert asked == []


def test_runs_are_listed_and_stopped(lab, page, asked, shot):  # noqa: F811
    folder = lab[0]
    write(folder, "live.ipynb", ASYNC)
    open_notebook(page, lab, "live.ipynb")
    rows = show_runs(page)
    page.locator(".rlm-runs-empty", has_text="No run in this notebook.").wait_for()
    run_all(page)
    live = rows.filter(has_text="How many said yes?")
    live.filter(has_text="running").wait_for()
    page.locator(".rlm-run-figures", has_text="$0.0").wait_for()
    assert live.get_by_role("button", name="Export").is_hidden()
    shot(page, "extension-live")
    dark(page)
    shot(page, "extension-live-dark")
    live.get_by_role("button", name="Stop").click()
    live.filter(has_text="cancelled").wait_for()
    page.locator(".rlm-trace .rlm-panel[data-state=cancelled]").wait_for()
    assert live.get_by_role("button", name="Stop").is_hidden()
    with page.expect_download() as download:
        live.get_by_role("button", name="Export").click()
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert lines[-1]["type"] == "run_finished"
    assert lines[-1]["status"] == "cancelled"
    shot(page, "extension-stopped-dark")
    shut_down_kernels(lab)
    assert asked == []


def test_stop_interrupts_a_kernel_that_hears_nothing(lab, page):  # noqa: F811
    write(lab[0], "deaf.ipynb", SYNC)
    open_notebook(page, lab, "deaf.ipynb")
    rows = show_runs(page)
    run_all(page)
    rows.filter(has_text="running").get_by_role("button", name="Stop").click()
    page.get_by_text("interrupted, cancelled").wait_for()
    rows.filter(has_text="cancelled").wait_for()
    shut_down_kernels(lab)


def test_stop_ends_a_run_in_the_background(lab, page):  # noqa: F811
    write(lab[0], "background.ipynb", BACKGROUND)
    open_notebook(page, lab, "background.ipynb")
    rows = show_runs(page)
    run_all(page)
    running = rows.filter(has_text="running")
    running.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    running.get_by_role("button", name="Stop").click()
    rows.filter(has_text="cancelled").wait_for()
    assert page.get_by_text("KeyboardInterrupt").count() == 0
    shut_down_kernels(lab)


def test_list_follows_notebooks_and_finds_trajectories(lab, page, shot):  # noqa: F811
    folder = lab[0] / "project"
    folder.mkdir()
    linked = mimebundle(events(), folder=folder, inline_bytes=0)
    saved(folder, "first.ipynb", linked, mimebundle(events()))
    mimebundle(events(), folder=folder, inline_bytes=0)
    (folder / "rows.jsonl").write_text('{"row": 1}\n{"row": 2}\n')
    (folder / "kept.rlm.json").write_text(json.dumps(mimebundle(events(priced=False))[MIME_TYPE]))
    open_notebook(page, lab, "project/first.ipynb")
    rows = show_runs(page)
    here, beside = (page.locator(".rlm-runs-section").nth(at).locator(".rlm-run") for at in (0, 1))
    beside.nth(1).wait_for()
    assert [here.count(), beside.count()] == [2, 2]
    kept = beside.filter(has_text="kept.rlm.json")
    assert kept.locator(".rlm-run-figures").inner_text().endswith("?")
    shot(page, "extension-runs")
    # By keys: the first row has the focus, the last one is opened.
    rows.first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(".jp-MimeDocument .rlm-panel[data-state=answered]").wait_for()
    assert here.count() == 2
    dark(page)
    shot(page, "extension-document-dark")
    here.nth(1).get_by_role("button", name="Open").click()
    page.locator(".jp-Notebook .jp-Cell.jp-mod-active .rlm-trace").wait_for()


def test_panel_is_in_jupyter_notebook(lab, page, shot):  # noqa: F811
    pytest.importorskip("notebook", reason="notebook is not installed")
    folder = lab[0] / "classic"
    folder.mkdir()
    saved(folder, "classic.ipynb", mimebundle(events()))
    mimebundle(events(), folder=folder, inline_bytes=0)
    open_notebook(page, lab, "classic/classic.ipynb", app="notebooks")
    page.get_by_role("menuitem", name="View", exact=True).click()
    page.get_by_text("Right Sidebar", exact=True).hover()
    page.get_by_role("menuitem", name="RLM runs").click()
    page.locator(".rlm-run", has_text="answered").nth(1).wait_for()
    shot(page, "extension-notebook-runs")
