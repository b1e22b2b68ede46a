"""A real Chromium for the tests in here; without it, or Playwright, they are skipped and say why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from browsing import aside

CHROMIUM = os.environ.get("RLM_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    names = pyfuncitem._fixtureinfo.argnames
    aside(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of a worker."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed (pip install playwright)")
    playwright = aside(sync_playwright().start)
    browser = aside(playwright.chromium.launch, executable_path=CHROMIUM, args=list(ARGS))
    yield browser
    aside(browser.close)
    aside(playwright.stop)


@pytest.fixture
def shot():
    """Return what writes a screenshot of a page, or of a part of it, under build/screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)

    def take(target, name):
        target.screenshot(path=SHOTS / f"{name}.png")

    return take
