"""Every script and notebook in examples/ runs, as it stands, against a scripted endpoint.

What the endpoint says to ``examples/NAME.py`` (or ``NAME.ipynb``) is in ``tests/examples/NAME.py``:

- ``MODELS``: what is served, model name -> script (see `rlm_kernel.models.scripted`);
- ``check(output)``: sees that the text which the example printed is right;
- ``prepare(folder)``, if the example reads files: makes them in its working folder, and returns its
  command-line arguments, a list of texts;
- ``missing()``, if the example needs what a machine may not have: names that, or returns an empty text.

Examples take the endpoint from the environment, as any user's script does: ``OPENAI_BASE_URL``,
``OPENAI_API_KEY``, and ``RLM_MODEL``, which is the first of ``MODELS``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

ROOT = Path(__file__).parents[1]
POLICIES = Path(__file__).parent / "examples"
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb"))
KEY = "sk-canary-examples-0123456789"


def policy_of(name):
    path = POLICIES / f"{name}.py"
    assert path.exists(), f"examples/{name} has no policy: write tests/examples/{name}.py"
    spec = importlib.util.spec_from_file_location(f"policy_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def served(scripts):
    """Serve ``scripts`` from another thread; yield the server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ScriptedServer(
        {name: ScriptedModel(script, name=name) for name, script in scripts.items()}, api_key=KEY
    )
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run_script(path, arguments, folder, environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", path, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def run_notebook(path, folder, environment):
    """Run a notebook in a process of its own, so that its kernel gets the environment; return its text."""
    target = folder / path.name
    code = (
        "import nbformat, sys\nfrom nbclient import NotebookClient\n"
        "notebook = nbformat.read(sys.argv[1], 4)\n"
        "NotebookClient(notebook, timeout=120, kernel_name='python3').execute()\n"
        "nbformat.write(notebook, sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, path, target]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    import nbformat

    cells = nbformat.read(target, 4).cells
    return "\n".join(text_of(cell.outputs) for cell in cells if cell.cell_type == "code")


def text_of(outputs):
    # A busy kernel sends a line in two pieces.
    streams = "".join(each.text for each in outputs if each.output_type == "stream")
    shown = [each.data.get("text/plain", "") for each in outputs if "data" in each]
    return "\n".join([streams, *shown])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    policy = policy_of(path.stem)
    if hasattr(policy, "missing") and (missing := policy.missing()):
        pytest.skip(missing)
    arguments = policy.prepare(tmp_path) if hasattr(policy, "prepare") else []
    with served(policy.MODELS) as server:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
            "RLM_MODEL": next(iter(policy.MODELS)),
        }
        if path.suffix == ".py":
            output = run_script(path, arguments, tmp_path, environment)
        else:
            output = run_notebook(path, tmp_path, environment)
    assert KEY not in output
    assert server.requests
    policy.check(output)


def test_every_policy_has_an_example():
    names = {path.stem for path in EXAMPLES}
    assert {path.stem for path in POLICIES.glob("*.py")} <= names
