"""The panel in JupyterLab and Notebook: a run is watched, stopped, saved, and read without a kernel."""

from __future__ import annotations

import re
from contextlib import suppress

import nbformat
import pytest
from browsing import aside

from rlm_kernel.bench.lab import Lab, serve

pytestmark = pytest.mark.browser

SETUP = """
import asyncio, pathlib
from rlm_kernel import RLM
from rlm_kernel.models.prices import Price
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.notebook import RunPanel, show

async def gated(request):
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.02)
    return "yes, <b>said</b> the sub-model"

BATCH = "One for each part.\\n```repl\\nx = llm_query_batched([f'question {i}' for i in range(40)])\\n```"

def rlm():
    price = {"*": Price(1, 2)}
    look = "Let me look.\\n```repl\\nprint(len(context))\\n```"
    turns = [look, BATCH, "```repl\\nFINAL(f'{len(x)} said yes')\\n```"]
    return RLM(
        model=ScriptedModel(turns, name="root", prices=price),
        sub_model=ScriptedModel(gated, name="sub", prices=price),
    )
"""
ASYNC = """run = rlm().start("How many said yes?", "abc " * 1000)
panel = show(run)
answer = await run
print(answer.status, panel.status, panel.answer == answer.text)"""
SYNC = """run = rlm().start("How many said yes?", "abc " * 1000, in_background=True)
panel = RunPanel(run)
display(panel)
try:
    print(run.wait().status)
except KeyboardInterrupt:
    run.cancel()
    print("interrupted,", run.wait().status)"""


@pytest.fixture(scope="module")
def lab():
    """Serve a folder in JupyterLab; return the folder and the server's address."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    with serve() as server:
        yield server.folder, server.address, server.token


@pytest.fixture
def page(chromium):
    page = aside(chromium.new_page, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    aside(page.close)


def write(folder, name, *cells):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in (SETUP.strip(), *cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, folder / name)


def open_notebook(page, lab, name, *, app="lab/tree"):
    _, address, token = lab
    page.goto(f"{address}/{app}/{name}?token={token}&reset")
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.wait_for()


def run_all(page):
    def ask():
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()

    until_begun(page, ask)


def until_begun(page, ask):
    """Have the first cell run: what is asked for before the page has its kernel is lost."""
    from playwright.sync_api import TimeoutError as NotInTime

    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    begun = page.locator(".jp-CodeCell .jp-InputPrompt").first.filter(has_text=re.compile(r"\[(\*|\d+)\]"))
    for _ in range(6):
        page.locator(".jp-CodeCell .cm-content").first.click()
        ask()
        with suppress(NotInTime):
            begun.wait_for(timeout=10_000)
            return
    raise AssertionError("the page's kernel runs no cell")


def shut_down_kernels(lab):
    Lab(*lab).end_kernels()


def wait_for_panel(page):
    batch = page.locator(".rlm-spacer .rlm-row[data-kind=batch]")
    batch.filter(has_text="0 of 40 done").wait_for()
    return batch


def test_run_is_watched_saved_and_read_without_a_kernel(lab, page, shot):
    folder = lab[0]
    write(folder, "watched.ipynb", ASYNC)
    open_notebook(page, lab, "watched.ipynb")
    run_all(page)
    batch = wait_for_panel(page)
    labels = page.locator(".rlm-spacer .rlm-row:not([hidden]) .rlm-label").all_inner_texts()
    assert [" ".join(label.split()) for label in labels] == [
        *("Turn 1", "[1]", "Turn 2", "[2]", "llm_query_batched \u00d7 40")
    ]
    page.locator(".rlm-stop:not([disabled])").wait_for()
    assert page.inner_text(".rlm-stop") == "Stop"
    shot(page, "lab-running")
    # The whole text is fetched from the kernel while the run goes on; Lab's own keys keep out.
    page.locator(".rlm-row[data-kind=cell]").first.click()
    page.locator(".rlm-detail", has_text="4000").wait_for()
    page.focus(".rlm-tree")
    page.keyboard.press("ArrowDown")
    page.locator(".rlm-row[data-kind=turn][aria-selected=true]").wait_for()
    assert page.locator(".jp-Cell").count() == 2
    assert batch.is_visible()
    (folder / "go").touch()
    tree = page.locator(".jp-OutputArea-output details")
    tree.first.wait_for()
    page.get_by_text("answered answered True").wait_for()
    (folder / "go").unlink()
    assert page.locator(".rlm-panel").count() == 0
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    saved = nbformat.read(folder / "watched.ipynb", as_version=4)
    nbformat.validate(saved)
    bundles = [output.data for output in saved.cells[1].outputs if "data" in output]
    assert [set(each) for each in bundles] == [{"application/vnd.rlm.trace+json", "text/html", "text/plain"}]
    assert "widgets" not in saved.metadata
    shut_down_kernels(lab)
    open_notebook(page, lab, "watched.ipynb")
    tree.first.wait_for()
    page.get_by_text("40 said yes").first.wait_for()
    for text in ("Turn 2", "x = llm_query_batched", "llm_query_batched"):
        page.locator(".jp-OutputArea-output summary", has_text=text).last.click()
    page.get_by_text("yes, <b>said</b> the sub-model").first.wait_for()
    shot(page, "lab-static")


def test_stop_button_stops_in_jupyter_notebook(lab, page, shot):
    pytest.importorskip("notebook", reason="notebook is not installed")
    folder = lab[0]
    write(folder, "stopped.ipynb", ASYNC)
    open_notebook(page, lab, "stopped.ipynb", app="notebooks")
    run_all(page)
    wait_for_panel(page)
    page.locator(".rlm-stop:not([disabled])").click()
    page.get_by_text("cancelled cancelled True").wait_for()
    page.locator(".jp-OutputArea-output", has_text="Cancelled: How many said yes?").first.wait_for()
    shot(page, "notebook-stopped")
    shut_down_kernels(lab)
    assert not (folder / "go").exists()


def test_busy_kernel_gets_an_interrupt_in_the_dark(lab, page, shot):
    write(lab[0], "busy.ipynb", SYNC)
    open_notebook(page, lab, "busy.ipynb")
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text("JupyterLab Dark", exact=True).click()
    page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
    run_all(page)
    wait_for_panel(page)
    button = page.locator(".rlm-stop:not([disabled])")
    button.wait_for()
    assert button.inner_text() == "Interrupt kernel"
    assert "busy" in button.get_attribute("title")
    assert page.locator(".rlm-say").is_disabled()
    ink = page.eval_on_selector(".rlm-panel", "element => getComputedStyle(element).color")
    assert min(int(part) for part in ink[ink.index("(") + 1 : -1].split(",")[:3]) > 200
    shot(page, "lab-busy-dark")
    button.click()
    page.get_by_text("interrupted, cancelled").wait_for()
    page.locator(".rlm-panel[data-state=cancelled]").wait_for()
    shut_down_kernels(lab)
