"""The code in README and docs runs, as it stands, against a scripted endpoint."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, *tags):
    return [code for tag, code in FENCE.findall(page.read_text()) if tag in tags]


def run(command, shop):
    """Run ``command`` in the shop; it must succeed, and show no key."""
    folder, environment = shop
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sk-canary" not in done.stdout + done.stderr


def answer_at_once(request):
    return "```repl\nFINAL(42)\n```" if len(request.messages) < 4 else "FINAL(42)"


@pytest.fixture
def shop(tmp_path):
    """A folder with the files that the pages speak of, and the environment of an endpoint."""
    for name in ("report.txt", "v1.txt", "v2.txt", "notes/a.txt", "notes/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"the text of {name}\n")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    models = {name: ScriptedModel(answer_at_once, name=name) for name in ("gpt-5", "gpt-5-mini")}
    server = ScriptedServer(models)
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
    scripts = Path(sys.executable).parent
    yield (
        tmp_path,
        {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-canary-docs",
            "RLM_MODEL": "gpt-5",
        },
    )
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_code_runs(page, shop):
    run([sys.executable, "-W", "error", "-c", "\n".join(blocks(page, "python"))], shop)


COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if "jupyter rlm" in line
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_run(page, line, shop):
    run(["bash", "-c", line.replace("jupyter rlm", f"{sys.executable} -m rlm_kernel.cli")], shop)


def test_make_targets_in_the_readme_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(blocks(ROOT / "README.md", "sh")), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
