"""The site in a real browser: the notebooks run in the page, and the page asks nobody but its host.

Whatever is not local goes to a proxy that refuses it and counts it. The site is built once, and the browser
started once; most of the time goes into starting kernels.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import json
import os
import re
import socket
import threading
import zipfile
from pathlib import Path

import nbformat
import pytest
from browsing import aside

from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
STEP_SECONDS = 300
HALVES = "sk-canary-in-the-", "browser-0123456789"
KEY = "".join(HALVES)
MINE = "The ship's cat is called Tibbles.\n" * 2000
# What a hostile root model would write: it knows the halves of the key, and puts them together nowhere.
SEARCH = """I look for the key.
```repl
import gc, os, sys
import pyodide_js

HALF, OTHER = "sk-canary-in-the-", "browser-0123456789"

def holds(text, half=HALF, other=OTHER):
    start = text.find(half)
    while start >= 0:
        if text[start + len(half):].startswith(other):
            return True
        start = text.find(half, start + 1)
    return False

found = [name for name in os.environ if holds(os.environ[name])]
found += ["object" for each in gc.get_objects() if isinstance(each, dict) for value in list(each.values())
          if isinstance(value, str) and holds(value)]
step, size = 1 << 22, pyodide_js._module.HEAPU8.length
for start in range(0, size, step):
    # A copy: memory that grows takes what points into it away.
    piece = pyodide_js._module.HEAPU8.slice(start, start + step + 100).to_bytes()
    if holds(piece, HALF.encode(), OTHER.encode()):
        found.append("memory")
drive = [os.path.join(at, name) for at, _, names in os.walk("/drive") for name in names]
print(found, drive, "rlm_kernel" in sys.modules, context.count("Tibbles"), size > step)
```"""
STOPPED = """
from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.notebook import show

turn = "```repl\\nreplies = llm_query_batched([str(i) for i in range(20)])\\n```"
rlm = RLM(model=ScriptedModel([turn, "FINAL(never)"]), sub_model=ScriptedModel("reader", latency=3600))
run = rlm.start("Will it end?", "no")
show(run)
answer = await run
print("it was", answer.status)
"""
ASKED = (
    "import os\nimport rlm_kernel\nos.environ.update({environment})",
    "%load_ext rlm_kernel",
    'text = "It rained. " * 1000',
    "%rlm How often did it rain? -c text",
    """from openai import AsyncOpenAI
from rlm_kernel import OpenAIModel

model = OpenAIModel("magic-root", client=AsyncOpenAI())
answer = await rlm_kernel.RLM(model=model).acompletion("How often?", contexts={"text": text})
print("openai's client:", answer, answer.status)""",
)
STORED = """async () => {
    const said = [JSON.stringify({...localStorage}), JSON.stringify({...sessionStorage}), document.cookie];
    for (const {name} of await indexedDB.databases()) {
        const database = await new Promise((done, failed) => {
            const asked = indexedDB.open(name);
            asked.onsuccess = () => done(asked.result);
            asked.onerror = failed;
        });
        for (const store of database.objectStoreNames) {
            const asked = database.transaction(store).objectStore(store).getAll();
            await new Promise((done) => (asked.onsuccess = done));
            said.push(JSON.stringify(asked.result));
        }
        database.close();
    }
    for (const name of await caches.keys()) {
        const cache = await caches.open(name);
        for (const request of await cache.keys()) said.push(await (await cache.match(request)).text());
    }
    return said.join("\\n");
}"""

# What the panel has shown before there was an answer.
GROWTH = """() => {
    window.grown = [];
    window.underWay = false;
    new MutationObserver(() => {
        const rows = [...document.querySelectorAll(".rlm-panel .rlm-row:not([hidden])")];
        if (rows.length && !document.body.innerText.includes("has the most matches")) grown.push(rows.length);
        if (rows.some((row) => /\\d+ of \\d+ done/.test(row.innerText))) underWay = true;
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def script(name):
    """A module of jupyterlite_site/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "jupyterlite_site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Refusing:
    """A proxy that lets nothing through; ``asked`` is what it was asked for by pages."""

    # What Chromium asks for by itself, whatever the page.
    THEIRS = "content-autofill.googleapis.com:443"

    def __init__(self):
        self.asked = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                line = connection.recv(2000).split(b"\r\n", 1)[0].decode(errors="replace")
                if self.THEIRS not in line:
                    self.asked.append(line)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nrefused")

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def endpoint():
    """An endpoint that lets pages read what it says, in a thread with a loop of its own."""
    models = {
        "test-root": ScriptedModel([SEARCH, "FINAL('I found nothing.')"], name="test-root"),
        "test-sub": ScriptedModel("reader", name="test-sub"),
        "magic-root": ScriptedModel(
            lambda request: "```repl\nFINAL(f'{text.count(chr(114))} times')\n```", name="magic-root"
        ),
    }
    server = ScriptedServer(models, api_key=KEY, origin="*")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def site(endpoint):
    """The served site, its front notebook set to ask the endpoint about the visitor's file."""
    build = script("build")
    if not (build.EXTENSION / "package.json").is_file():
        pytest.skip("the labextension is not built (make extension)")
    folder = ROOT / "build" / f"site-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    (folder / "built.json").unlink(missing_ok=True)
    with (ROOT / "build" / "site-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert build.build(folder)
        assert not build.build(folder), "nothing has changed since"
    front = folder / "files" / "start.ipynb"
    text = front.read_text("utf-8")
    for old, new in (
        ("https://api.openai.com/v1", endpoint.base_url),
        (r"\"gpt-5\", \"gpt-5-mini\"", r"\"test-root\", \"test-sub\""),
        (r"FILE = \"moby-dick.zip\"", r"FILE = \"mine.txt\""),
    ):
        assert old in text
        text = text.replace(old, new)
    front.write_text(text, "utf-8")
    notebook = nbformat.read(folder / "files" / "isolation.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(STOPPED.strip())]
    add(folder, "stopped.ipynb", notebook)
    environment = {"OPENAI_BASE_URL": endpoint.base_url, "OPENAI_API_KEY": KEY, "RLM_MODEL": "magic-root"}
    cells = [cell.replace("{environment}", repr(environment)) for cell in ASKED]
    add(
        folder,
        "asked.ipynb",
        nbformat.v4.new_notebook(
            metadata=notebook.metadata, cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
        ),
    )
    with script("serve").SiteServer(folder) as served:
        served.folder = folder
        yield served


def add(folder, name, notebook):
    """Put a notebook into the site, and into the list of what is there."""
    nbformat.write(notebook, folder / "files" / name)
    listed = folder / "api" / "contents" / "all.json"
    known = json.loads(listed.read_text("utf-8"))
    like = next(each for each in known["content"] if each["name"] == "isolation.ipynb")
    known["content"].append({**like, "name": name, "path": name})
    listed.write_text(json.dumps(known), "utf-8")


@pytest.fixture(scope="module")
def profiles(chromium):
    """Return what opens a new profile of the browser, in which nothing foreign is asked for."""
    proxy = Refusing()
    opened = []

    def profile():
        opened.append(
            aside(
                chromium.new_context,
                viewport={"width": 1280, "height": 1000},
                proxy={"server": proxy.url, "bypass": "<-loopback>,127.0.0.1"},
            )
        )
        opened[-1].set_default_timeout(STEP_SECONDS * 1000)
        return opened[-1]

    # It does count.
    elsewhere = "http://elsewhere.invalid/"
    page = aside(profile().new_page)
    aside(page.goto, elsewhere)
    assert f"GET {elsewhere} HTTP/1.1" in proxy.asked
    yield profile
    for each in opened:
        aside(each.close)
    proxy.close()
    assert [line for line in proxy.asked if elsewhere not in line] == []


@pytest.fixture
def page(profiles):
    """A page of a visitor who has never been here."""
    return aside(profiles().new_page)


def open_and_run(page, site, name):
    page.goto(f"{site.url}/lab/index.html?path={name}")
    run_all(page)


def run_all(page):
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def wait_for_output(page, text):
    page.locator(".jp-OutputArea-output", has_text=text).first.wait_for()


def wait_until_idle(page):
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()


def test_front_notebook_end_to_end_and_reopened(site, endpoint, page, shot, tmp_path):
    with zipfile.ZipFile(site.folder / "files" / "moby-dick.zip") as book:
        counts = {name: book.read(name).decode().count("whale") for name in book.namelist()}
    best = max(counts, key=counts.get)
    page.goto(f"{site.url}/")
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.wait_for()
    mine = tmp_path / "mine.txt"
    mine.write_text(MINE)
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Upload Files").click()
    chosen.value.set_files(mine)
    page.locator(".jp-DirListing-item", has_text="mine.txt").wait_for()
    # It has opened.
    page.locator(".lm-TabBar-tabLabel", has_text="mine.txt").wait_for()
    page.locator(".lm-TabBar-tabLabel", has_text="start.ipynb").click()
    page.evaluate(GROWTH)
    run_all(page)
    page.locator(".rlm-spacer .rlm-row[data-kind=turn]").first.wait_for()
    page.locator(".rlm-panel").first.scroll_into_view_if_needed()
    shot(page, "site-running")
    expected = f"{best} has the most matches of 'whale': {counts[best]}. There are {sum(counts.values())}"
    wait_for_output(page, expected)
    # The tree grew while the run went on: row by row, a batch under way among them.
    grown, under_way = page.evaluate("[[...new Set(grown)], underWay]")
    assert len(grown) > 2
    assert under_way
    asking = page.locator(".jp-Stdin-input")
    asking.wait_for()
    assert asking.get_attribute("type") == "password"
    asking.fill(KEY)
    asking.press("Enter")
    wait_for_output(page, "I found nothing.")
    wait_until_idle(page)
    shot(page, "site-asked")
    assert {each.headers["authorization"] for each in endpoint.requests} == {f"Bearer {KEY}"}
    # What the searching cell printed is what the endpoint was told next.
    told = endpoint.requests[1].body["messages"][-1]["content"]
    assert "[] [] False 2000 True" in told, told
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    stored = page.evaluate(STORED)
    assert "I found nothing." in stored
    assert "Tibbles" in stored
    assert KEY not in stored
    assert KEY not in page.content()
    profile = page.context
    page.close()
    # What was saved is there without a kernel, and again when the page is loaded anew.
    page = profile.new_page()
    page.goto(f"{site.url}/lab/index.html?path=start.ipynb")
    for _ in range(2):
        wait_for_output(page, "has the most matches")
        wait_for_output(page, "I found nothing.")
        shot(page, "site-reopened")
        page.locator(".rlm-trace .rlm-row:not([hidden])").first.wait_for()
        page.locator(".jp-DirListing-item", has_text="mine.txt").wait_for()
        assert KEY not in page.content()
        page.reload()
    wait_for_output(page, "has the most matches")
    # Nothing was loaded that no cell imports.
    loaded = {path.rpartition("/")[2].partition("-")[0] for path in site.sent if path.endswith(".whl")}
    assert {"rlm_kernel", "anywidget", "ipython"} <= loaded
    assert not loaded & {"openai", "pydantic", "pydantic_core", "httpx2", "nbformat", "jsonschema", "jiter"}


def test_stop(site, page, shot):
    open_and_run(page, site, "stopped.ipynb")
    page.locator(".rlm-spacer .rlm-row[data-kind=batch]").filter(has_text="0 of 20 done").wait_for()
    page.locator(".rlm-stop:not([disabled])").click()
    wait_for_output(page, "it was cancelled")
    shot(page, "site-stopped")


def test_the_side_panel_lists_and_stops(site, page, shot):
    open_and_run(page, site, "stopped.ipynb")
    page.locator(".rlm-spacer .rlm-row[data-kind=batch]").filter(has_text="0 of 20 done").wait_for()
    page.get_by_title("RLM runs").click()
    run = page.locator(".rlm-runs .rlm-run").filter(has_text="Will it end?")
    run.filter(has_text="running").wait_for()
    shot(page, "site-runs")
    run.get_by_role("button", name="Stop").click()
    wait_for_output(page, "it was cancelled")
    run.filter(has_text="cancelled").wait_for()


def test_the_magic_needs_no_await_and_openai_is_an_option(site, page, shot):
    open_and_run(page, site, "asked.ipynb")
    wait_for_output(page, "1000 times")
    wait_for_output(page, "openai's client: 1000 times answered")
    shot(page, "site-magic")


def test_a_cell_that_never_ends_and_what_the_other_kernel_sees(site, page, shot):
    open_and_run(page, site, "isolation.ipynb")
    wait_for_output(page, "'drive': False")
    wait_for_output(page, "'objects': 0")
    wait_for_output(page, "100000 characters are still here")
    wait_for_output(page, "your variables, functions and imports are gone")
    shot(page, "site-recovered")


def test_how_it_works(site, page):
    open_and_run(page, site, "how-it-works.ipynb")
    wait_for_output(page, "Question: On how many days is there a storm?")
    wait_for_output(page, "'run_finished': 1")
    said = page.locator(".jp-OutputArea-output").all_inner_texts()
    assert any(re.search(r"\b285\b", text) for text in said)


def test_what_is_pinned_has_hashes_and_no_addresses():
    wheels = (ROOT / "jupyterlite_site" / "wheels.json").read_text("utf-8")
    tools = (ROOT / "jupyterlite_site" / "tools.txt").read_text("utf-8")
    assert "://" not in wheels + tools
    for told in json.loads(wheels)["packages"].values():
        assert re.fullmatch(r"[0-9a-f]{64}", told["sha256"])
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in tools.splitlines())
