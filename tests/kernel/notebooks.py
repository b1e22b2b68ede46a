"""Notebooks for the tests of magics: kernels as a front end has them, and a scripted endpoint with gates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import threading
import time
from pathlib import Path

import rlm_kernel
from rlm_kernel.messages import message_text
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

ROOT = Path(rlm_kernel.__file__).parents[1]
KEY = "sk-canary-notebook-0123456789"
LOOK = "kept = [name for name in ('old', 'new') if name in globals()]\nkept"


class Endpoint:
    """A scripted endpoint in a thread of its own.

    What it says goes by the question: one that speaks of a slow model, sub-call or cell gets to one and
    waits, at models until `gate` is set; the answer of others is what their contexts hold.
    """

    def __init__(self):
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        models = {
            "scripted": ScriptedModel(self.root, name="scripted"),
            "other": ScriptedModel(self.sub, name="other"),
        }
        self.server = ScriptedServer(models, api_key=KEY)
        self.call(self.server.__aenter__())

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self):
        self.gate.set()
        self.call(self.server.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def reset(self):
        self.gate.clear()
        self.waiting.clear()
        self.server.requests.clear()

    def environment(self, *, key=True):
        keys = {"OPENAI_API_KEY": KEY} if key else {}
        return {
            **os.environ,
            **keys,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": self.server.base_url,
            "RLM_MODEL": "scripted",
        }

    def questions(self):
        """The questions of the root's requests, as the endpoint has read them."""
        texts = ["\n".join(map(message_text, each.body["messages"])) for each in self.server.requests]
        return [found[1] for text in texts if (found := re.search(r"QUESTION: (.*?) :END", text, re.DOTALL))]

    async def opened(self):
        self.waiting.set()
        await asyncio.to_thread(self.gate.wait)

    async def root(self, request):
        text = "\n".join(map(message_text, request.messages))
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if "slow model" in text:
            await self.opened()
        if "slow sub-call" in text and turn == 0:
            return "```repl\nprint(llm_query('wait'))\n```"
        if "slow cell" in text and turn == 0:
            return "```repl\nimport time\nllm_query('begun')\nwhile True:\n    time.sleep(0.02)\n```"
        if "no answer" in text:
            return "```repl\nkept = 1\n```"
        if turn == 0:
            return f"Let me look.\n```repl\n{LOOK}\n```"
        said = re.search(r"tell it: (\w+)", text)
        end = f" and {said[1]}" if said else ""
        found = "', '.join(f'{name} is {globals()[name]}' for name in kept)"
        return f"```repl\nFINAL({found} + {end!r})\n```"

    async def sub(self, request):
        if "begun" in message_text(request.messages[-1]):
            self.waiting.set()
        else:
            await self.opened()
        return "done"


class Cell:
    """A cell that was executed: its reply and what it has put out."""

    def __init__(self, client, request, everything):
        self.client = client
        self.everything = everything
        self.request = request
        self.heard = []
        self.reply = None
        self.asked = []

    def outputs(self, kind):
        return [each["content"] for each in self.heard if each["msg_type"] == kind]

    @property
    def text(self):
        return "".join(each["text"] for each in self.outputs("stream"))

    @property
    def value(self):
        values = self.outputs("execute_result")
        return values[0]["data"]["text/plain"] if values else None

    @property
    def last(self):
        """The last data of what was displayed."""
        return [*self.outputs("display_data"), *self.outputs("update_display_data")][-1]["data"]

    def until(self, wanted, seconds=60):
        for message in self.heard:
            if wanted(message):
                return message
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                if self.client.allow_stdin:
                    self._asked()
                message = self.client.get_iopub_msg(timeout=0.05)
                self.heard.append(message)
                self.everything.append(message)
                if wanted(message):
                    return message
        raise AssertionError(f"it did not come: {[m['msg_type'] for m in self.heard][-20:]}, {self.text}")

    def _asked(self):
        with contextlib.suppress(queue.Empty):
            request = self.client.get_stdin_msg(timeout=0)
            self.asked.append(request["content"])
            self.client.input(self.answer)

    answer = ""

    def ended(self, seconds=60):
        self.until(
            lambda m: (
                m["msg_type"] == "status"
                and m["content"]["execution_state"] == "idle"
                and m["parent_header"].get("msg_id") == self.request
            ),
            seconds,
        )
        while self.reply is None:
            reply = self.client.get_shell_msg(timeout=seconds)
            if reply["parent_header"].get("msg_id") == self.request:
                self.reply = reply["content"]
        return self

    def fine(self):
        self.ended()
        assert self.reply["status"] == "ok", self.reply
        return self

    def failed(self):
        """The error that the cell has ended in, as (name, lines)."""
        self.ended()
        assert self.reply["status"] == "error", self.heard
        return self.reply["ename"], self.reply["traceback"]


class Notebook:
    """A kernel and its client."""

    def __init__(self, name, environment, folder, *, path=None):
        from jupyter_client.manager import KernelManager

        if path is not None:
            environment = {**environment, "JUPYTER_PATH": str(path)}
        # Sockets are named after the file, from the root: the kernel has another working folder.
        file = str(folder / f"{name}.json")
        self.manager = KernelManager(kernel_name=name, transport="ipc", connection_file=file)
        if path is not None:
            self.manager.kernel_spec_manager.kernel_dirs.insert(0, str(path / "kernels"))
        self.manager.start_kernel(env={**environment, "IPYTHONDIR": str(folder / "ipython")}, cwd=str(folder))
        self.heard = []
        self.client = self.connect()

    def connect(self):
        client = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client

    def send(self, code, *, client=None, answer="", **options):
        client = client or self.client
        cell = Cell(client, client.execute(code, **options), self.heard)
        cell.answer = answer
        return cell

    def run(self, code, **options):
        return self.send(code, **options).fine()

    def value(self, code):
        return self.run(code).value

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()
