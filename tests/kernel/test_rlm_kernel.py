"""The kernel `Python (RLM)`: a kernel like any other, which hears the panel while a question waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import Endpoint, Notebook

import rlm_kernel
from rlm_kernel.errors import InputError
from rlm_kernel.kernels.rlm.install import install

CONFORMANCE = Path(__file__).with_name("conformance.py")


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix=str(prefix))
    return prefix / "share" / "jupyter"


@pytest.fixture(scope="module")
def kernel(endpoint, specs, tmp_path_factory):
    notebook = Notebook("rlm", endpoint.environment(), tmp_path_factory.mktemp("home"), path=specs)
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(kernel, endpoint):
    endpoint.reset()
    kernel.run("old, new = 'abc', 'abcd'")
    return kernel


def test_conformance(endpoint, specs, tmp_path):
    pytest.importorskip("jupyter_kernel_test", reason="jupyter_kernel_test is not installed")
    environment = {**endpoint.environment(), "JUPYTER_PATH": str(specs), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, CONFORMANCE, "rlm"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "executed 13, skipped 0", done.stdout + done.stderr


def test_it_says_who_it_is(kernel):
    kernel.client.kernel_info()
    info = kernel.client.get_shell_msg(timeout=30)["content"]
    assert info["implementation"] == "rlm-kernel"
    assert info["implementation_version"] == rlm_kernel.__version__
    assert info["language_info"]["name"] == "python"
    assert "%rlm?" in info["banner"]
    assert kernel.value("'rlm' in get_ipython().magics_manager.magics['line']") == "True"


def test_the_panel_is_heard_while_a_question_waits(notebook, endpoint):
    cell = notebook.send("%rlm slow model -c old")
    opened = cell.until(
        lambda m: m["msg_type"] == "comm_open" and "_snapshot" in m["content"]["data"]["state"]
    )
    comm = opened["content"]["comm_id"]
    assert endpoint.waiting.wait(30)

    def send(content):
        data = {"comm_id": comm, "data": {"method": "custom", "content": content}}
        notebook.client.shell_channel.send(notebook.client.session.msg("comm_msg", data))

    send({"op": "ping"})
    cell.until(lambda m: m["content"].get("data", {}).get("content", {}).get("op") == "pong")
    send({"op": "stop"})
    name, lines = cell.failed()
    assert name == "NoAnswerError"
    assert "cancelled" in lines[0]
    assert notebook.value("_rlm.status") == "'cancelled'"


def test_two_clients(notebook, endpoint):
    second = notebook.connect()
    try:
        ran = notebook.send("%rlm -q What? -c new\n_rlm.text", client=second).fine()
        assert ran.value == "'new is abcd'"
        waiting = notebook.send("%rlm -q slow model -c old")
        assert endpoint.waiting.wait(30)
        after = notebook.send("_rlm.text", client=second)
        endpoint.gate.set()
        waiting.fine()
        assert after.fine().value == "'old is abc'"
    finally:
        second.stop_channels()


def test_a_subshell_steers_a_question_that_waits(notebook, endpoint):
    client = notebook.client
    message = client.session.msg("create_subshell_request", {})
    client.control_channel.send(message)
    subshell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
    waiting = notebook.send("%rlm slow model -c old")
    assert endpoint.waiting.wait(30)

    def aside(code):
        message = client.session.msg(
            "execute_request", {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        )
        message["header"]["subshell_id"] = subshell
        client.shell_channel.send(message)
        reply = client.get_shell_msg(timeout=30)
        assert reply["parent_header"]["msg_id"] == message["header"]["msg_id"]
        assert reply["content"]["status"] == "ok", reply["content"]

    aside("%rlm say tell it: hello")
    # A question in a subshell waits there, beside the other one.
    aside("%rlm -q What? -c new")
    endpoint.gate.set()
    waiting.fine()
    assert notebook.value("_rlm.text") == "'old is abc and hello'"


def test_restart_leaves_no_kernel_behind(notebook, endpoint):
    children = "import psutil\n[each.pid for each in psutil.Process().children(recursive=True)]"
    notebook.run("%rlm -q What? -c old")
    before = json.loads(notebook.value(children))
    assert before
    notebook.client.stop_channels()
    notebook.manager.restart_kernel()
    notebook.client = notebook.connect()
    import psutil

    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], 20)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    assert notebook.value("'old' in globals()") == "False"
    assert notebook.value("old = 'abc'\n%rlm -q What? -c old\n_rlm.text") == "'old is abc'"


def test_install(tmp_path):
    command = [sys.executable, "-m", "rlm_kernel.cli", "kernelspec", "install", "--prefix", str(tmp_path)]
    done = subprocess.run(
        [*command, "--name", "mine", "--display-name", "Mine", "--env", "RLM_MODEL", "small"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(rlm_kernel.__path__[0]).removesuffix("rlm_kernel")},
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "share" / "jupyter" / "kernels" / "mine"
    assert str(folder) in done.stdout
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    assert spec["argv"][-3:] == ["rlm_kernel.kernels.rlm", "-f", "{connection_file}"]
    assert (spec["display_name"], spec["env"]) == ("Mine", {"RLM_MODEL": "small"})
    assert {path.name for path in folder.iterdir()} == {
        *("kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
    }
    with pytest.raises(InputError, match="looks like a key"):
        install(prefix=str(tmp_path), env={"OPENAI_API_KEY": "sk-canary"})
    with pytest.raises(InputError, match="name"):
        install(prefix=str(tmp_path), name="not a name/")
