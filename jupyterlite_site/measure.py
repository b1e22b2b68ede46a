"""Measure a built site in Chromium: bytes, requests, and seconds to the first cell and to the end of the run.

    python jupyterlite_site/measure.py [DIR] [--chromium PATH]

Each visit is a browser with a profile of its own; the second one of a visit finds what the first has cached.
Nothing is compressed on the way. Needs Playwright (``pip install playwright``).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright
from serve import SITE, SiteServer

PATIENCE_MS = 300_000


def main() -> None:
    """Measure two visits in one profile, and print a row for each moment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    options = parser.parse_args()
    if not (options.folder / "jupyter-lite.json").is_file():
        sys.exit(f"measure.py: there is no site in {options.folder}; jupyterlite_site/build.py makes one")
    print(f"{'':28} {'seconds':>8} {'MB':>6} {'requests':>9}")
    with SiteServer(options.folder) as site, _browser(options.chromium) as context:
        foreign: list[str] = []
        context.on("request", lambda request: _note(request.url, site.url, foreign))
        for visit in ("first visit", "second visit"):
            print(visit)
            _visit(context, site)
        print(f"requests to others: {len(foreign)} {foreign[:3] or ''}")


def _visit(context: BrowserContext, site: SiteServer) -> None:
    site.sent.clear()
    site.requests = 0
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    begun = time.monotonic()

    def passed(what: str) -> None:
        megabytes = sum(site.sent.values()) / 1e6
        print(f"  {what:26} {time.monotonic() - begun:8.1f} {megabytes:6.1f} {site.requests:9}", flush=True)

    page.goto(f"{site.url}/lab/index.html?path=start.ipynb")
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    passed("notebook on screen")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    _prompt(page, 1)
    passed("first cell executed")
    page.locator(".rlm-spacer .rlm-row[data-kind=turn]").first.wait_for()
    passed("first turn")
    page.locator(".rlm-spacer .rlm-row[data-kind=cell]").first.wait_for()
    passed("first cell of the model")
    page.locator(".jp-OutputArea-output", has_text="has the most matches").first.wait_for()
    passed("answer")
    page.locator(".jp-Stdin-input").press("Enter")
    _prompt(page, page.locator(".jp-CodeCell").count())
    passed("whole notebook")
    page.close()


def _prompt(page: Page, number: int) -> None:
    page.wait_for_function(
        r"n => /\[\d+\]/.test(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[n - 1].innerText)",
        arg=number,
    )


def _note(url: str, own: str, foreign: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        foreign.append(url)


@contextlib.contextmanager
def _browser(chromium: str | None) -> Iterator[BrowserContext]:
    # A profile on disk: a private window keeps less, and asks for large files again.
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            viewport={"width": 1280, "height": 900},
        )
        try:
            yield context
        finally:
            context.close()


if __name__ == "__main__":
    main()
