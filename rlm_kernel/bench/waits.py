"""``jupyter rlm bench panel --lab``: how long a person waits for what the notebook shows of a run.

A headless Chromium works a real JupyterLab: it runs `%rlm` cells against a scripted endpoint, stops runs by
the panel's button and by the toolbar's, and opens the saved notebook again without a kernel. Times are the
page's own: from what the person does until the frame in which what is waited for is drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import background
from ..errors import InputError
from ..models.base import Request
from ..models.scripted import ScriptedModel
from ..models.server import ScriptedServer
from .lab import Lab, serve
from .report import conditions, number, spread

__all__ = ["Wait", "as_table", "endpoint", "in_notebook", "measure", "waits"]

KERNELS = ("python3", "rlm")
LATER_QUESTIONS = 3
_CALL_SECONDS = 1.0
_KEY = "sk-canary-bench-of-the-notebook"
_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
_CELL = "parts = [f'part {n}{end}' for n in range(6)]\nfound = llm_query_batched(parts)"
# `timed` does something and returns the milliseconds until each of some things was true and drawn.
_HELPERS = """
window.timed = (act, wanted, within = 120000) => new Promise((resolve, reject) => {
  const found = {}, names = Object.keys(wanted), start = performance.now();
  const missing = () => names.filter((name) => !(name in found));
  const timer = setTimeout(() => reject(new Error(`not seen: ${missing()}`)), within);
  const check = () => {
    for (const name of names) {
      if (name in found || !wanted[name]()) continue;
      found[name] = null;
      requestAnimationFrame(() => {
        found[name] = performance.now() - start;
        if (!names.every((each) => found[each] > 0)) return;
        clearTimeout(timer);
        watch.disconnect();
        resolve(found);
      });
    }
  };
  const watch = new MutationObserver(check);
  watch.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
  act();
  check();
});
window.notebook = () => window.jupyterapp.shell.currentWidget;
window.choose = (index) => {
  const book = notebook().content;
  book.activeCellIndex = index;
  return book.widgets[index].node;
};
window.command = (name, args) => window.jupyterapp.commands.execute(name, args);
window.tree = (node) => {
  const found = node.querySelector(".jp-OutputArea-output details, .jp-OutputArea-output .rlm-panel");
  return found !== null && found.getClientRects().length > 0;
};
"""
_ASK = """(index) => {
  const node = choose(index);
  const out = () => node.querySelector(".jp-OutputArea-output");
  return timed(() => { window.running = command("notebook:run-cell"); }, {
    sign: () => out()?.innerText.trim(),
    panel: () => node.querySelector(".rlm-panel .rlm-question")?.textContent || tree(node),
  });
}"""
_PRINT = """(index) => {
  const node = choose(index);
  return timed(() => { window.running = command("notebook:run-cell"); }, {
    sign: () => node.querySelector(".jp-OutputArea-output")?.innerText.trim(),
  });
}"""
_STOP = """([index, way]) => {
  const node = choose(index);
  const gone = () => /^Cancelled/.test(node.querySelector(".jp-OutputArea-output")?.innerText.trim() ?? "");
  const act = () => {
    if (way === "panel") node.querySelector(".rlm-stop").click();
    else command("notebook:interrupt-kernel");
  };
  return timed(act, {cancelled: () => gone() || node.querySelector(".rlm-panel[data-state=cancelled]")});
}"""
_OPEN = """(path) => timed(() => {
  const kernelPreference = {shouldStart: false, canStart: false};
  command("docmanager:open", {path, factory: "Notebook", kernelPreference});
}, {tree: () => tree(document.body)})"""


@dataclass(slots=True)
class Wait:
    """Something a person waits for: the milliseconds of each time, and those wanted at most, if any."""

    what: str
    kernel: str
    target: float | None
    milliseconds: list[float] = field(default_factory=list)


def waits(args: argparse.Namespace) -> None:
    """Measure, and print a table in Markdown or JSON."""
    before = conditions()
    found, where = measure(args.repeat)
    where = {**before, **where, "load afterwards": conditions()["load"]}
    if args.json:
        rows = [
            {"what": each.what, "kernel": each.kernel, "target_ms": each.target, "ms": each.milliseconds}
            for each in found
        ]
        sys.stdout.write(json.dumps({"conditions": where, "waits": rows}) + "\n")
    else:
        sys.stdout.write(as_table(found, where) + "\n")


def as_table(found: Sequence[Wait], where: Mapping[str, Any]) -> str:
    """Return the conditions and the table in Markdown."""
    known = ", ".join(f"{name} {number(value)}" for name, value in where.items() if value is not None)
    lines = [
        known,
        "",
        "| wait, milliseconds | kernel | median [quartiles] | longest | target |",
        "|---|---|---|---|---|",
    ]
    for each in found:
        longest = max(each.milliseconds)
        if each.target is None:
            verdict = ""
        else:
            verdict = f"{each.target:.0f}: {'reached' if longest <= each.target else 'missed'}"
        lines.append(
            f"| {each.what} | {each.kernel} | {spread(each.milliseconds)} | {number(longest)} | {verdict} |"
        )
    return "\n".join(lines)


def measure(repeat: int) -> tuple[list[Wait], dict[str, Any]]:
    """Return what was waited for, in the order of the table, and the versions of what showed it.

    Raises:
        InputError: there is no Chromium, Playwright or JupyterLab here.
    """
    found: dict[tuple[str, str], Wait] = {}

    def note(what: str, kernel: str, target: float | None, milliseconds: float) -> None:
        found.setdefault((what, kernel), Wait(what, kernel, target)).milliseconds.append(milliseconds)

    with _chromium() as browser, serve() as lab, endpoint() as base_url:
        where = {"jupyterlab": version("jupyterlab"), "chromium": browser.version.partition(".")[0]}
        for _ in range(repeat):
            for kernel in KERNELS:
                in_notebook(browser, lab, base_url, kernel, note)
    return sorted(found.values(), key=lambda each: KERNELS.index(each.kernel)), where


def in_notebook(
    browser: Any, lab: Lab, base_url: str, kernel: str, note: Callable[[str, str, float | None, float], None]
) -> None:
    """Ask, stop, save and open again in a new notebook; tell ``note`` what, kernel, target, milliseconds."""
    name = f"{kernel}-{secrets.token_hex(4)}.ipynb"
    _write(lab.folder / name, kernel, base_url)
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    page.set_default_timeout(120_000)
    page.add_init_script(_HELPERS)
    try:
        _work(page, lab, name, kernel, note)
    finally:
        page.close()


def _work(page: Any, lab: Lab, name: str, kernel: str, note: Any) -> None:
    page.goto(lab.page(f"lab/tree/{name}"))
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.wait_for()
    _idle(page)
    page.evaluate("() => { choose(0); window.running = command('notebook:run-cell'); }")
    _ended(page)
    _idle(page)
    note("for comparison: what a plain cell prints", kernel, None, page.evaluate(_PRINT, 1)["sign"])
    _ended(page)
    for question in range(1 + LATER_QUESTIONS):
        _idle(page)
        seen = page.evaluate(_ASK, 2 + question)
        which = "later questions" if question else "first question"
        note(f"first sign, {which}", kernel, 100.0, seen["sign"])
        note(f"panel with its question, {which}", kernel, None, seen["panel"])
        _ended(page)
    for at, way in enumerate(("panel", "toolbar"), 3 + LATER_QUESTIONS):
        _idle(page)
        page.evaluate(_ASK, at)
        page.locator(".rlm-spacer .rlm-row[data-kind=batch]", has_text="0 of 6 done").wait_for()
        page.locator(".rlm-stop:not([disabled])").wait_for()
        note(
            f"stopped by the {way}'s button: cancelled",
            kernel,
            1000.0,
            page.evaluate(_STOP, [at, way])["cancelled"],
        )
        _ended(page)
    _idle(page)
    page.evaluate("() => command('docmanager:save')")
    page.wait_for_function("() => !notebook().context.model.dirty")
    page.evaluate("() => { notebook().dispose(); }")
    lab.end_kernels()
    seen = page.evaluate(_OPEN, name)
    if page.evaluate("() => Boolean(notebook().sessionContext.session)"):
        raise RuntimeError("the notebook was to be opened without a kernel, and has one")
    note("saved notebook opened in a page that is there: its tree", kernel, 1000.0, seen["tree"])
    page.goto(lab.page(f"lab/tree/{name}"))
    page.wait_for_function("() => window.tree && tree(document.body)")
    note("the same, with JupyterLab loading first", kernel, None, page.evaluate("() => performance.now()"))
    lab.end_kernels()


def _ended(page: Any) -> None:
    """Wait until the cell is over, whatever came of it, and its result is drawn."""
    page.evaluate("() => window.running.catch(() => {})")
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 200))")


def _idle(page: Any) -> None:
    page.wait_for_function(
        "() => window.jupyterapp && notebook()?.sessionContext?.session?.kernel?.status === 'idle'"
    )


def _write(path: Path, kernel: str, base_url: str) -> None:
    import nbformat  # noqa: PLC0415  on use

    setup = (
        f"import os\nos.environ.update(OPENAI_BASE_URL={base_url!r}, OPENAI_API_KEY={_KEY!r}, "
        "RLM_MODEL='big', RLM_SUB_MODEL='small')\n"
        "%load_ext rlm_kernel\nreport = '2022: 3, 2023: 5'\nprint('set up')"
    )
    asked = ["print('here')"]
    asked += ["%rlm Which year was it? -c report"] * (1 + LATER_QUESTIONS)
    asked += ["%rlm Which year was it, at leisure? -c report"] * 2
    cells = [nbformat.v4.new_code_cell(source) for source in (setup, *asked)]  # type: ignore[no-untyped-call]
    metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    book = nbformat.v4.new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]
    nbformat.write(book, path)  # type: ignore[no-untyped-call]


@contextmanager
def endpoint() -> Iterator[str]:
    """Serve a root and a sub-model that waits where the question says so; yield the base URL."""
    waiting = asyncio.Event()

    def root(request: Request) -> str:
        if any(message["role"] == "assistant" for message in request.messages):
            return "```repl\nFINAL(found[0])\n```"
        end = ", at leisure" if "at leisure" in str(request.messages) else ""
        return f"All parts at once.\n```repl\nend = {end!r}\n{_CELL}\n```"

    async def sub(request: Request) -> str:
        if "at leisure" in str(request.messages):
            await waiting.wait()
        # Long enough for the panel to be there before the run is over.
        await asyncio.sleep(_CALL_SECONDS)
        return "2023"

    models = {"big": ScriptedModel(root, name="big"), "small": ScriptedModel(sub, name="small")}
    server = ScriptedServer(models, api_key=_KEY)

    async def end() -> None:
        waiting.set()
        await server.__aexit__(None, None, None)

    background.run(server.__aenter__())
    try:
        yield server.base_url
    finally:
        background.run(end())


@contextmanager
def _chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise InputError("there is no chromium on this machine", hint="install Chromium")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  on use
    except ImportError:
        raise InputError("Playwright is not installed", hint="pip install playwright") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGS))
        try:
            yield browser
        finally:
            browser.close()
