"""The kernel `rlm-pyodide` as Jupyter clients see it: the protocol's own suite, and what a person does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from wasm import needs_deno

pytestmark = needs_deno

SUITE = Path(__file__).with_name("pyodide_suite.py")
EXECUTED = 11


def test_it_passes_the_suite_of_the_protocol(spec_folder):
    env = {**os.environ, "JUPYTER_PATH": os.fspath(spec_folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", SUITE, "-v"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    verdicts = [line.rpartition("... ")[2] for line in done.stderr.splitlines() if "... " in line]
    assert done.returncode == 0, done.stderr
    assert verdicts.count("ok") == EXECUTED, done.stderr


class Person:
    """A notebook's side of one kernel."""

    def __init__(self, client):
        self.client = client
        self.typed = []

    def run(self, code, *, timeout=20.0, then=None):
        """Execute a cell; return its reply and what it showed, as (type, content)."""
        shown = []

        def show(message):
            shown.append((message["msg_type"], message["content"]))
            if then is not None and message["msg_type"] == "stream":
                then()

        def answer(message):
            self.client.input(self.typed.pop(0))

        reply = self.client.execute_interactive(
            code, timeout=timeout, output_hook=show, stdin_hook=answer, allow_stdin=True
        )
        return reply["content"], [each for each in shown if each[0] not in ("status", "execute_input")]

    def result(self, code):
        reply, shown = self.run(code)
        assert reply["status"] == "ok", reply
        return [each["data"]["text/plain"] for type_, each in shown if type_ == "execute_result"][-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    path = tmp_path_factory.mktemp("wheels") / "allowed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("allowed/__init__.py", "answer = 42\n")
    return path


@pytest.fixture(scope="module")
def manager(spec_folder, wheel):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", os.fspath(spec_folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("RLM_PYODIDE_WHEELS", os.fspath(wheel.parent))
        patch.setenv("OPENAI_API_KEY", "sk-canary-person")
        manager = KernelManager(kernel_name="rlm-pyodide", transport="ipc", ip=os.fspath(wheel.parent / "k"))
        manager.start_kernel(stderr=subprocess.DEVNULL)
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def person(manager):
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield Person(client)
    client.stop_channels()


def test_a_notebook_has_state_streams_results_and_errors(person):
    person.run("import sys\nn = 20")
    reply, shown = person.run("print('out')\nprint('err', file=sys.stderr)\nn + 1")
    assert reply["status"] == "ok"
    streams = {each["name"]: each["text"] for type_, each in shown if type_ == "stream"}
    assert streams == {"stdout": "out\n", "stderr": "err\n"}
    assert shown[-1][1]["data"] == {"text/plain": "21"}
    assert shown[-1][1]["execution_count"] == reply["execution_count"]
    reply, shown = person.run("def f():\n    raise KeyError('k')\n\nf()")
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "KeyError", "'k'")
    assert f'File "Cell In[{reply["execution_count"]}]", line 4, in <module>' in "\n".join(reply["traceback"])
    assert [type_ for type_, _ in shown] == ["error"]
    assert person.result("import asyncio\nawait asyncio.sleep(0.01, 'slept')") == "'slept'"
    assert person.run("n;")[1] == []


def test_input_is_asked_for(person):
    person.typed = ["Ada", "secret"]
    assert person.result("import getpass\ninput('name? ') + getpass.getpass()") == "'Adasecret'"


def test_input_raises_where_nobody_can_answer(person):
    reply = person.client.execute_interactive("input()", timeout=20, allow_stdin=False, output_hook=id)[
        "content"
    ]
    assert (reply["ename"], reply["evalue"]) == (
        "RuntimeError",
        "this frontend does not support input requests",
    )


def test_an_interrupt_keeps_the_state(person, manager):
    person.run("kept = 7")
    reply, _ = person.run("print('on', flush=True)\nwhile True: pass", then=manager.interrupt_kernel)
    assert reply["ename"] == "KeyboardInterrupt"
    reply, _ = person.run(
        "import asyncio\nprint('on', flush=True)\nawait asyncio.sleep(100)", then=manager.interrupt_kernel
    )
    assert reply["ename"] == "KeyboardInterrupt"
    assert person.result("kept") == "7"


def test_rich_output_is_what_cannot_run(person):
    code = (
        "from IPython.display import HTML, display\n"
        "display(HTML('<img src=http://host/>'))\n"
        "handle = display({'text/plain': 'first'}, raw=True, display_id='one')\n"
        "display({'text/plain': 'second'}, raw=True, display_id='one', update=True)\n"
        "print('\\x1b]0;title\\x07\\x1b[31mred')"
    )
    _, shown = person.run(code)
    assert shown[0][1]["data"] == {"text/plain": "<HTML object>"}
    assert shown[1][1]["transient"] == {"display_id": "one"}
    assert (shown[2][0], shown[2][1]["data"]) == ("update_display_data", {"text/plain": "second"})
    assert shown[3][1]["text"] == "]0;title\x1b[31mred\n"


def test_names_are_completed_and_explained(person):
    person.run(
        "class Thing:\n    'It.'\n    colour = 5\n    def paint(self, hue): 'Paint it.'\nthing = Thing()"
    )
    client = person.client
    matches = client.complete("thing.co", reply=True, timeout=10)["content"]
    assert (matches["matches"], matches["cursor_start"], matches["cursor_end"]) == (["thing.colour"], 0, 8)
    assert "thing" in client.complete("print(thi", reply=True, timeout=10)["content"]["matches"]
    assert client.complete("'a'.up", reply=True, timeout=10)["content"]["matches"] == []
    found = client.inspect("thing.paint(", 12, reply=True, timeout=10)["content"]
    assert "Signature: thing.paint(self, hue)" in found["data"]["text/plain"]
    assert "Paint it." in found["data"]["text/plain"]
    assert client.inspect("nothing", reply=True, timeout=10)["content"]["found"] is False


def test_wheels_that_the_operator_allows_can_be_imported(person):
    assert person.result("import allowed; allowed.answer") == "42"


def test_nothing_of_the_kernels_environment_is_inside(person):
    assert "sk-canary" not in person.result("import os; dict(os.environ)")


def test_a_restart_begins_anew(person, manager):
    person.run("left = 1")
    manager.restart_kernel(now=True)
    person.client.wait_for_ready(timeout=60)
    assert person.result("'left' in globals()") == "False"


def test_a_flood_for_a_person_is_capped_and_counted(person):
    _, shown = person.run("for n in range(300): print('x' * 99_999)")
    texts = [each["text"] for type_, each in shown if type_ == "stream"]
    assert sum(map(len, texts)) < 10_100_000
    assert "characters of output left out" in texts[-1]


def test_the_end_of_the_sandbox_is_the_kernels_and_is_explained(spec_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", os.fspath(spec_folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    manager = KernelManager(kernel_name="rlm-pyodide", transport="ipc", ip=os.fspath(tmp_path / "k"))
    manager.start_kernel(stderr=subprocess.PIPE)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        id_ = client.execute("import os\nos._exit(3)")
        errors = []
        while not errors:
            message = client.get_iopub_msg(timeout=20)
            if message["parent_header"].get("msg_id") == id_ and message["msg_type"] == "error":
                errors.append(message["content"]["evalue"])
        assert "The sandbox ended: Python could not go on" in errors[0]
        process = manager.provisioner.process
        log = process.stderr.read()
        process.stderr.close()
        assert (
            log.decode()
            .strip()
            .splitlines()[-1]
            .startswith("rlm-pyodide: the sandbox ended: Python could not go on")
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
