"""`%rlm` in JupyterLab, as a person uses it: ask, watch, press Tab, stop, fill in forms."""

from __future__ import annotations

import asyncio
import threading

import nbformat
import pytest
from test_lab import lab, open_notebook, page, run_all, shut_down_kernels, until_begun  # noqa: F401  two are fixtures

from rlm_kernel.messages import message_text
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

pytestmark = pytest.mark.browser

KEY = "sk-canary-browser-0123456789"
COMPARE = """
lines = [(a, b) for a, b in zip(old.splitlines(), new.splitlines()) if a != b]
notes = llm_query_batched([f"What changed, in a few words? {a} -> {b}" for a, b in lines])
"""


class Endpoint:
    """A scripted endpoint in a thread of its own, whose sub-model waits for `gate`."""

    def __init__(self):
        self.gate = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        models = {"big": self.root, "small": self.sub}
        self.server = ScriptedServer(
            {name: ScriptedModel(script, name=name) for name, script in models.items()}, api_key=KEY
        )
        self.call(self.server.__aenter__())

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self):
        self.gate.set()
        self.call(self.server.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def root(self, request):
        if sum(message["role"] == "assistant" for message in request.messages) == 0:
            return f"I compare them line by line.\n```repl\n{COMPARE.strip()}\n```"
        return "```repl\nFINAL(f'{len(lines)} lines changed: ' + '; '.join(notes))\n```"

    async def sub(self, request):
        await asyncio.to_thread(self.gate.wait)
        return f"line {message_text(request.messages[0]).split()[7]}"


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def write(folder, name, endpoint, kernel, *cells):
    setup = (
        f"import os\nos.environ.update(OPENAI_BASE_URL={endpoint.server.base_url!r}, OPENAI_API_KEY={KEY!r}, "
        "RLM_MODEL='big', RLM_SUB_MODEL='small')\n"
        "old = '\\n'.join(f'line {n} was here' for n in range(30))\n"
        "new = old.replace('3 was', '3 is').replace('7 was', '7 is')"
    )
    sources = [setup, *cells]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
    )
    nbformat.write(notebook, folder / name)


def outputs(saved):
    """How many outputs each cell has; one that a kernel has emptied shows nothing."""
    shown = [
        [each for each in cell.outputs if each.get("data") != {"text/plain": ""}] for cell in saved.cells
    ]
    return [len(each) for each in shown]


@pytest.mark.parametrize("kernel", ["python3", "rlm"])
def test_a_question_is_watched_and_answered(lab, page, shot, endpoint, kernel):  # noqa: F811
    folder = lab[0]
    name = f"asked-{kernel}.ipynb"
    write(
        folder,
        name,
        endpoint,
        kernel,
        "%load_ext rlm_kernel",
        "%rlm What changed? -c old -c new",
        "_rlm.status",
    )
    open_notebook(page, lab, name)
    run_all(page)
    batch = page.locator(".rlm-spacer .rlm-row[data-kind=batch]")
    batch.filter(has_text="0 of 6 done").wait_for()
    button = page.locator(".rlm-stop:not([disabled])")
    button.wait_for()
    assert button.inner_text() == ("Stop" if kernel == "rlm" else "Interrupt kernel")
    shot(page, f"magic-running-{kernel}")
    endpoint.gate.set()
    page.locator(".jp-OutputArea-output details").first.wait_for()
    page.get_by_text("'answered'").wait_for()
    assert page.get_by_text("6 lines changed: line").count() == 1
    assert page.locator(".rlm-panel").count() == 0
    shot(page, f"magic-answered-{kernel}")
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    saved = nbformat.read(folder / name, as_version=4)
    nbformat.validate(saved)
    assert outputs(saved) == [0, 0, 1, 1]
    shut_down_kernels(lab)


@pytest.mark.parametrize("kernel", ["python3", "rlm"])
def test_stop_stops(lab, page, endpoint, kernel):  # noqa: F811
    name = f"stopped-{kernel}.ipynb"
    write(
        lab[0],
        name,
        endpoint,
        kernel,
        "%load_ext rlm_kernel\n%rlm What changed? -c old -c new",
        "print('after')",
    )
    open_notebook(page, lab, name)
    run_all(page)
    page.locator(".rlm-spacer .rlm-row[data-kind=batch]").filter(has_text="0 of 6 done").wait_for()
    page.locator(".rlm-stop:not([disabled])").click()
    error = "NoAnswerError" if kernel == "rlm" else "KeyboardInterrupt"
    page.locator(".jp-OutputArea-output", has_text=error).wait_for()
    page.locator(".jp-OutputArea-output", has_text="Cancelled: What changed?").wait_for()
    assert page.locator(".jp-OutputArea-output", has_text="after").count() == 0
    shut_down_kernels(lab)


def test_in_jupyter_notebook(lab, page, shot, endpoint):  # noqa: F811
    """Asked, watched, stopped by the toolbar, asked again, saved, and opened again without its kernel."""
    pytest.importorskip("notebook", reason="notebook is not installed")
    folder = lab[0]
    ask = "%rlm What changed? -c old -c new"
    write(folder, "classic.ipynb", endpoint, "rlm", ask, ask, "%rlm insert")
    open_notebook(page, lab, "classic.ipynb", app="notebooks")
    until_begun(page, lambda: page.keyboard.press("Shift+Enter"))
    batch = page.locator(".rlm-spacer .rlm-row[data-kind=batch]").filter(has_text="0 of 6 done")
    page.keyboard.press("Shift+Enter")
    batch.wait_for()
    page.keyboard.press("Escape")
    page.locator(
        "[data-command='notebook:interrupt-kernel'], [data-command='notebook:interrupt']"
    ).first.click()
    page.locator(".jp-OutputArea-output", has_text="Cancelled: What changed?").wait_for()
    page.locator(".jp-CodeCell .cm-content").nth(2).click()
    page.keyboard.press("Shift+Enter")
    batch.wait_for()
    shot(page, "classic-running")
    endpoint.gate.set()
    page.get_by_text("6 lines changed: line").first.wait_for()
    page.locator(".jp-CodeCell .cm-content").nth(3).click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-OutputArea-output", has_text="2 cells of run 2, below").wait_for()
    page.keyboard.press("Control+s")
    saved = folder / "classic.ipynb"
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    for _ in range(100):
        if len(nbformat.read(saved, as_version=4).cells) == 6:
            break
        page.wait_for_timeout(100)
    book = nbformat.read(saved, as_version=4)
    nbformat.validate(book)
    assert [cell.metadata.get("tags") for cell in book.cells[4:]] == [["rlm-cell"], ["rlm-cell"]]
    compile(book.cells[4].source, "cell", "exec")
    assert "widgets" not in book.metadata
    shut_down_kernels(lab)
    open_notebook(page, lab, "classic.ipynb", app="notebooks")
    page.locator(".jp-OutputArea-output details").first.wait_for()
    page.get_by_text("6 lines changed: line").first.wait_for()
    shot(page, "classic-static")
    shut_down_kernels(lab)


def test_a_line_beside_the_panel_is_not_seen(lab, page, endpoint):  # noqa: F811
    write(lab[0], "line.ipynb", endpoint, "python3", "%load_ext rlm_kernel\n%rlm What changed? -c old -c new")
    open_notebook(page, lab, "line.ipynb")
    run_all(page)
    page.locator(".rlm-spacer .rlm-row[data-kind=batch]").wait_for()
    line = page.locator(".rlm-beside-panel", has_text="Running: What changed?")
    line.wait_for(state="attached")
    assert not line.is_visible()
    assert page.locator(".rlm-panel").is_visible()
    endpoint.gate.set()
    page.get_by_text("6 lines changed: line").first.wait_for()
    line.wait_for(state="detached")
    shut_down_kernels(lab)


def test_tab_offers_variables_with_their_sizes(lab, page, shot, endpoint):  # noqa: F811
    write(lab[0], "tab.ipynb", endpoint, "python3", "%load_ext rlm_kernel", "%rlm What changed? -c ")
    open_notebook(page, lab, "tab.ipynb")
    run_all(page)
    page.get_by_text("-c has no value").first.wait_for()
    page.locator(".jp-CodeCell .cm-content").nth(2).click()
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    first = page.locator(".jp-Completer-item").first
    first.wait_for()
    assert "new" in first.inner_text()
    shot(page, "magic-tab")
    page.keyboard.press("Enter")
    page.locator(".cm-content", has_text="-c new").wait_for()
    page.keyboard.type(" --")
    page.keyboard.press("Tab")
    page.locator(".jp-Completer-item", has_text="--budget").first.wait_for()
    shot(page, "magic-tab-options")
    shut_down_kernels(lab)


def test_forms(lab, page, shot, endpoint):  # noqa: F811
    ask = "from rlm_kernel.notebook import ask\nask()"
    write(lab[0], "forms.ipynb", endpoint, "python3", "%load_ext rlm_kernel\n%rlm config", ask, "%rlm insert")
    endpoint.gate.set()
    open_notebook(page, lab, "forms.ipynb")
    page.get_by_text("| Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").first.click()
    for _ in range(3):
        page.keyboard.press("Shift+Enter")
    page.locator(".widget-text input").first.wait_for()
    field = page.get_by_role("textbox", name="max_depth")
    field.fill("2")
    field.press("Enter")
    page.locator(".widget-hbox", has=field).get_by_text("this notebook").wait_for()
    page.locator(".widget-select-multiple select").select_option(index=[0, 1])
    page.locator(".widget-textarea textarea").fill("What changed?")
    shot(page, "magic-forms")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".rlm-panel", has_text="6 lines changed").wait_for()
    shot(page, "magic-form-answered")
    page.locator(".jp-CodeCell .cm-content").nth(3).click()
    page.keyboard.press("Control+Enter")
    for turn in (1, 2):
        page.locator(".jp-CodeCell .cm-content", has_text=f"# %% turn {turn}, block 1").wait_for()
    page.locator(".jp-OutputArea-output", has_text="2 cells of run 1, below").wait_for()
    cells = page.locator(".jp-CodeCell .cm-content").all_inner_texts()
    assert [text.split("\n")[0] for text in cells[3:]] == [
        *("%rlm insert", "# %% turn 1, block 1", "# %% turn 2, block 1")
    ]
    shot(page, "magic-inserted")
    shut_down_kernels(lab)
