"""`Python (RLM)` under JupyterLab's debugger: a breakpoint in a cell that asks, over the control channel."""

from __future__ import annotations

import json

import pytest
from notebooks import Endpoint, Notebook

from rlm_kernel.kernels.rlm.install import install, spec

CODE = "%rlm -q What? -c old\nfound = _rlm.text\nend = found + '!'\nend"


class Debugger:
    """The debugger's side of a front end: requests over the control channel, one after the other."""

    def __init__(self, notebook):
        self.client = notebook.client
        self.number = 0

    def ask(self, command, arguments=None):
        self.number += 1
        content = {"type": "request", "seq": self.number, "command": command, "arguments": arguments or {}}
        message = self.client.session.msg("debug_request", content)
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                assert reply["content"].get("success"), (command, reply["content"])
                return reply["content"].get("body") or {}


@pytest.fixture
def notebook(tmp_path):
    endpoint = Endpoint()
    install(prefix=str(tmp_path / "prefix"))
    path = tmp_path / "prefix" / "share" / "jupyter"
    notebook = Notebook("rlm", endpoint.environment(), tmp_path, path=path)
    yield notebook
    notebook.close()
    endpoint.close()


def test_a_breakpoint_is_reached_in_a_cell_that_asks(notebook):
    assert spec()["metadata"]["debugger"] is True
    notebook.client.kernel_info()
    assert "debugger" in notebook.client.get_shell_msg(timeout=60)["content"]["supported_features"]
    notebook.run("old = 'abc'")
    debugger = Debugger(notebook)
    debugger.ask(
        "initialize", {"clientID": "test", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}
    )
    debugger.ask("attach")
    source = debugger.ask("dumpCell", {"code": CODE})["sourcePath"]
    set_at = debugger.ask(
        "setBreakpoints", {"breakpoints": [{"line": 3}], "source": {"path": source}, "sourceModified": False}
    )
    assert [each["verified"] for each in set_at["breakpoints"]] == [True]
    debugger.ask("configurationDone")
    cell = notebook.send(CODE)
    stopped = cell.until(lambda m: m["msg_type"] == "debug_event" and m["content"]["event"] == "stopped")
    assert stopped["content"]["body"]["reason"] == "breakpoint"
    thread = stopped["content"]["body"]["threadId"]
    frame = debugger.ask("stackTrace", {"threadId": thread})["stackFrames"][0]
    assert (frame["source"]["path"], frame["line"]) == (source, 3)
    value = debugger.ask("evaluate", {"expression": "found", "frameId": frame["id"]})
    assert json.loads(value["result"].replace("'", '"')) == "old is abc"
    debugger.ask("continue", {"threadId": thread})
    assert cell.fine().value == "'old is abc!'"
    debugger.ask("disconnect", {"restart": False, "terminateDebuggee": False})
    assert notebook.value("end") == "'old is abc!'"
