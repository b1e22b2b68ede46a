"""The guest in kernels other than the newest ipykernel: the oldest one supported, in a Python of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv

import pytest
from kernels import open_repl

from rlm_kernel.repl.bootstrap import GuestSettings

OLDEST = "ipykernel==6.29.5"


@pytest.fixture(scope="session")
def oldest(tmp_path_factory):
    """A kernelspec's name and the folder to find it in, for the oldest ipykernel."""
    folder = tmp_path_factory.mktemp("oldest")
    python = os.environ.get("RLM_TEST_IPYKERNEL_629")
    if not python:
        venv.create(folder / "venv", with_pip=True)
        bin_ = "Scripts" if sys.platform == "win32" else "bin"
        python = os.fspath(folder / "venv" / bin_ / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        done = subprocess.run([*pip, OLDEST], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{OLDEST} can't be installed here: {done.stderr.strip()[-200:]}")
    spec = folder / "kernels" / "oldest"
    spec.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Oldest", "language": "python"})
    )
    return "oldest", folder


@pytest.fixture
def kernel(oldest, monkeypatch):
    name, folder = oldest
    monkeypatch.setenv("JUPYTER_PATH", os.fspath(folder))
    return name


async def test_the_oldest_ipykernel_has_all_of_the_repl(kernel):
    async with open_repl(("context", "one\ntwo"), kernel_name=kernel) as repl:
        assert await repl.value("import ipykernel; ipykernel.__version__") == f"'{OLDEST.split('==')[1]}'"
        assert await repl.value("print('a')\ncontext, llm_query('q')") == "('one\\ntwo', 'reply to q')"
        assert await repl.value("await allm_query('q')") == "'reply to q'"
        assert await repl.value("rlm_query('q', 'z' * 9_000_000)[1] == repr('z' * 9_000_000)") == "True"
        result = await repl.run("%%capture taken\nprint(llm_query('s'))\nFINAL('inner')")
        assert result.final.text == "inner"
        assert (await repl.run("")).status == "ok"
        assert (await repl.run("1/0")).outputs[-1].name == "ZeroDivisionError"


@pytest.mark.parametrize("control", [True, False], ids=["control", "stdin"])
async def test_the_oldest_ipykernel_answers_threads(kernel, control):
    async with open_repl(kernel_name=kernel, settings=GuestSettings(control=control)) as repl:
        repl.delay = 0.1
        shown = await repl.value(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    replies = list(pool.map(llm_query, [f't{i}' for i in range(8)]))\n"
            "replies == [f'reply to t{i}' for i in range(8)]"
        )
        assert shown == "True"
        assert repl.most_in_flight == (8 if control else 1)


async def test_the_oldest_ipykernel_cuts_output(kernel):
    settings = GuestSettings(head=100, tail=50, displays=3, image_bytes=1000)
    async with open_repl(kernel_name=kernel, settings=settings) as repl:
        for code in ("print('<' + 'x' * 5000 + '>')", "!printf '<%05000d>\\n' 0"):
            result = await repl.run(code)
            text = "".join(output.text for output in result.outputs)
            assert "[4,853 characters left out]" in text or "[4,854 characters left out]" in text
            assert (text[0], text.rstrip()[-1]) == ("<", ">")
        result = await repl.run("raise ValueError('z' * 100_000)")
        assert len(result.outputs[-1].text) + len(result.outputs[-1].value) < 1000


@pytest.mark.parametrize(
    "code", ["while True: pass", "llm_query('q')", "await allm_query('q')"], ids=["loop", "call", "task"]
)
async def test_the_oldest_ipykernel_is_interrupted(kernel, code):
    async with open_repl(kernel_name=kernel) as repl:
        repl.delay = 60
        await repl.run("kept = 1")
        result = await repl.run(code, timeout=0.5)
        assert (result.status, result.lost) == ("timed_out", "")
        repl.delay = 0
        assert await repl.value("kept, llm_query('next')") == "(1, 'reply to next')"


async def test_channels_over_tcp_are_encrypted():
    async with open_repl(("context", "text"), tcp=True) as repl:
        assert await repl.value("context, llm_query('q')") == "('text', 'reply to q')"
        manager = repl.session._transport._manager
        assert manager.get_connection_info()["transport"] == "tcp"
        # A client that has the signing key and not the curve keys gets no answer.
        import zmq

        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(manager._make_url("shell"))
            manager.session.send(stranger, "kernel_info_request", {})
            assert not stranger.poll(1000)
