"""The panel in a real kernel, its front end played over the kernel's own channels."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from pathlib import Path

import pytest

import rlm_kernel

SETUP = """
import asyncio, json, threading
from rlm_kernel import RLM, events as ev
from rlm_kernel.models.prices import Price
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.notebook import RunPanel, show

gate = threading.Event()

async def gated(request):
    while not gate.is_set():
        await asyncio.sleep(0.01)
    return "yes"

def start(**options):
    turns = ["Ask.\\n```repl\\nx = llm_query('question')\\n```", "```repl\\nFINAL(x)\\n```"]
    price = {"*": Price(1, 2)}
    rlm = RLM(
        model=ScriptedModel(turns, name="root", prices=price),
        sub_model=ScriptedModel(gated, name="sub", prices=price),
        api_key="sk-canary-panel-in-a-kernel",
    )
    return rlm.start("Is it so?", "abc", **options)
"""


class FrontEnd:
    """What a notebook's page does: it runs cells, hears comms and outputs, and sends messages to comms."""

    def __init__(self, client):
        self.client = client
        self.heard = []
        self.states = {}

    def run(self, code):
        """Send a cell; `ended` waits for it."""
        return self.client.execute(code)

    def until(self, wanted, seconds=60):
        """Listen until a message for which ``wanted`` is true; return it."""
        for message in self.heard:
            if wanted(message):
                return message
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=0.5)
                self.heard.append(message)
                self._note(message)
                if wanted(message):
                    return message
        kinds = [message["msg_type"] for message in self.heard]
        raise AssertionError(f"nothing of the kind came: {kinds[-20:]}")

    def _note(self, message):
        if message["msg_type"] == "comm_open":
            self.states[message["content"]["comm_id"]] = message["content"]["data"]["state"]

    def ended(self, request):
        self.until(
            lambda m: (
                m["msg_type"] == "status"
                and m["content"]["execution_state"] == "idle"
                and m["parent_header"].get("msg_id") == request
            )
        )
        errors = [m["content"] for m in self.heard if m["msg_type"] == "error"]
        assert errors == []

    def panel(self):
        """Wait for a panel; return its comm and its first state."""
        opened = self.until(
            lambda m: m["msg_type"] == "comm_open" and "_snapshot" in m["content"]["data"]["state"]
        )
        return opened["content"]["comm_id"], opened["content"]["data"]["state"]

    def send(self, comm, content):
        data = {"method": "custom", "content": content}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        self.client.shell_channel.send(message)

    def custom(self, comm, op, **fields):
        """Wait for a message of the panel's; return its content."""

        def wanted(message):
            content = self.content(message, comm)
            return content.get("op") == op and all(content.get(name) == fields[name] for name in fields)

        return self.content(self.until(wanted), comm)

    def content(self, message, comm):
        if message["msg_type"] != "comm_msg" or message["content"]["comm_id"] != comm:
            return {}
        return message["content"]["data"].get("content", {})

    def stdout(self):
        return "".join(m["content"]["text"] for m in self.heard if m["msg_type"] == "stream")


@pytest.fixture(scope="module")
def client():
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3", transport="ipc")
    root = str(Path(rlm_kernel.__file__).parents[1])
    manager.start_kernel(env={**os.environ, "PYTHONPATH": root})
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive(SETUP, timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


@pytest.fixture
def front(client):
    client.execute_interactive("gate.clear()", timeout=60)
    return FrontEnd(client)


def types(events):
    return [event["type"] for event in events]


def test_a_run_goes_out_in_batches_and_answers_questions(front):
    cell = front.run(
        "run = start(); panel = show(run); answer = await run\n"
        "print(panel.status, panel.answer, panel.cost_usd == float(answer.usage.cost_usd))"
    )
    comm, state = front.panel()
    assert state["_can_stop"] is True
    assert state["_can_say"] is True
    assert (state["status"], state["answer"]) == ("starting", "")
    front.until(
        lambda m: (
            "call_started" in types(front.content(m, comm).get("events", []))
            and any(event.get("kind") == "llm_query" for event in front.content(m, comm)["events"])
        )
    )
    shown = front.until(lambda m: m["msg_type"] == "display_data")["content"]
    assert "Run in progress" in shown["data"]["text/html"]
    assert shown["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == comm
    front.send(comm, {"op": "ping"})
    front.custom(comm, "pong")
    front.send(comm, {"op": "resync"})
    snapshot = front.custom(comm, "snapshot")
    assert types(snapshot["events"])[0] == "run_started"
    front.send(comm, {"op": "detail", "ask": 7, "id": "r1/1"})
    detail = front.custom(comm, "detail", ask=7)
    assert types(detail["events"]) == ["message_added", "message_added", "call_started", "call_finished"]
    assert "Is it so?" in detail["events"][1]["message"]["content"]
    front.send(comm, {"op": "detail", "ask": 8, "id": "no such row"})
    assert front.custom(comm, "detail", ask=8)["events"] == []
    for nonsense in (None, [], "stop", {"op": "no such thing"}, {"op": "say", "text": 3}):
        front.send(comm, nonsense)
    front.send(comm, {"op": "say", "text": "go on"})
    front.send(comm, {"op": "stop"})
    front.custom(comm, "stopping")
    front.ended(cell)
    assert front.stdout() == "cancelled Ask. True\n"
    swapped = front.until(lambda m: m["msg_type"] == "update_display_data")["content"]
    assert set(swapped["data"]) == {"application/vnd.rlm.trace+json", "text/html", "text/plain"}
    assert swapped["transient"]["display_id"] == shown["transient"]["display_id"]
    front.until(lambda m: m["msg_type"] == "comm_close" and m["content"]["comm_id"] == comm)
    numbers = [
        front.content(m, comm)["number"] for m in front.heard if front.content(m, comm).get("op") == "events"
    ]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert "sk-canary" not in str([m["content"] for m in front.heard])


def test_a_busy_kernel_sends_everything_anew_by_itself(front):
    cell = front.run(
        "threading.Timer(0.6, gate.set).start()\n"
        "run = start(in_background=True); panel = RunPanel(run); answer = run.wait()"
    )
    comm, _ = front.panel()
    front.send(comm, {"op": "ping"})

    def whole(message):
        data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
        return types(data.get("state", {}).get("_snapshot", {}).get("events", []))

    last = front.until(lambda m: "run_finished" in whole(m))
    assert whole(last)[0] == "run_started"
    assert not any(front.content(m, comm).get("op") == "pong" for m in front.heard)
    front.ended(cell)
    front.custom(comm, "pong")


def test_recorded_events_are_in_the_first_state(front):
    code = """
    seen = []
    gate.set()
    run = start(readers=[seen.append])
    await run
    panel = RunPanel(seen)
    again = RunPanel(run)
    """
    front.ended(front.run("\n".join(line.strip() for line in code.splitlines())))
    comm, state = front.panel()
    assert types(state["_snapshot"]["events"])[-1] == "run_finished"
    assert state["_can_stop"] is False
    late = [s for c, s in front.states.items() if c != comm and "_snapshot" in s]
    assert len(late) == 1
    # A panel on a run that is over is told of all of it, as soon as the loop runs.
    again = next(c for c, s in front.states.items() if s is late[0])
    front.until(lambda m: "run_finished" in types(front.content(m, again).get("events", [])))


def test_traits_follow_the_run_and_nobody_else(front):
    code = """
    import ipywidgets, traitlets
    gate.set()
    run = start()
    panel = RunPanel(run)
    seen = []
    panel.observe(lambda change: seen.append((change.name, change.new)), ["status", "answer"])
    box = ipywidgets.VBox([ipywidgets.HTML("above"), panel])
    await run
    panel.set_state({"status": "hacked", "answer": "hacked", "_can_stop": False})
    assert (panel.status, panel.answer, panel._can_stop) == ("answered", "yes", True)
    try:
        panel.status = "mine"
    except traitlets.TraitError:
        print("read-only")
    print(seen, isinstance(panel, ipywidgets.DOMWidget), panel.cost_usd > 0)
    """
    lines = code.splitlines()
    front.ended(front.run("\n".join(line[4:] for line in lines)))
    assert front.stdout() == (
        "read-only\n[('status', 'running'), ('answer', 'yes'), ('status', 'answered')] True True\n"
    )
