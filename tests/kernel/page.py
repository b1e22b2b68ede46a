"""A page's bridge without a page: kernels are processes that behave as JupyterLite's Pyodide kernel does.

Which is: one message at a time, no control channel, `input()` that blocks, one stream message for each write,
and classes in the place of their names in errors. What runs in them is the real guest.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid

from rlm_kernel.repl.lite import protocol
from rlm_kernel.repl.lite.bridge import Bridge
from rlm_kernel.repl.lite.session import LiteSession
from rlm_kernel.repl.lite.slots import Slots
from rlm_kernel.repl.lite.transport import LiteTransport

KERNEL = r"""
import builtins, json, os, sys, types
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

out = os.fdopen(os.dup(1), "w", buffering=1)
parent = {}

def emit(channel, type_, content):
    header = {"msg_id": os.urandom(8).hex(), "msg_type": type_}
    message = {"channel": channel, "header": header, "parent_header": parent, "content": content}
    out.write(json.dumps(message | {"metadata": {}}) + "\n")
    return header["msg_id"]

def ask(prompt=""):
    asked = emit("stdin", "input_request", {"prompt": prompt, "password": False})
    for line in sys.stdin:
        message = json.loads(line)
        if message["header"]["msg_type"] == "input_reply" and message["parent_header"]["msg_id"] == asked:
            return message["content"]["value"]
    os._exit(0)

class Stream:
    encoding = "utf-8"
    def __init__(self, name):
        self.name = name
    def write(self, text):
        emit("iopub", "stream", {"name": self.name, "text": text})
    def flush(self):
        pass
    def isatty(self):
        return False

class Shell(InteractiveShell):
    failed = None
    def _showtraceback(self, etype, evalue, stb):
        self.failed = {"ename": str(etype), "evalue": str(evalue), "traceback": stb}

config = Config()
config.HistoryManager.enabled = False
shell = Shell.instance(config=config)
shell.kernel = types.SimpleNamespace()
sys.stdout, sys.stderr = Stream("stdout"), Stream("stderr")
for line in sys.stdin:
    message = json.loads(line)
    if message["header"]["msg_type"] != "execute_request":
        continue
    parent = message["header"]
    builtins.input = ask
    shell.failed = None
    emit("iopub", "status", {"execution_state": "busy"})
    shell.run_cell(message["content"]["code"], store_history=True)
    if shell.failed:
        emit("iopub", "error", shell.failed)
    emit("shell", "execute_reply", {"status": "error", **shell.failed} if shell.failed else {"status": "ok"})
    emit("iopub", "status", {"execution_state": "idle"})
"""


class Page:
    """A `Line` to a page that has the bridge. ``deaf`` is how many hellos it does not hear."""

    name = "page"

    def __init__(self, *, deaf: int = 0, version: int = protocol.VERSION) -> None:
        self.deaf = deaf
        self.version = version
        self.asked: list[dict] = []
        self.kernels: dict[str, asyncio.subprocess.Process] = {}
        self.most = 0
        self._take = lambda text: None
        self._tasks: set[asyncio.Task] = set()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Page:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in list(self.kernels.values()):
            process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def bridge(self) -> Bridge:
        """The bridge, found once."""
        if not hasattr(self, "_bridge"):
            self._bridge = Bridge(self, lambda: None)
            await self._bridge.meet(5.0)
        return self._bridge

    def session(self, slots: Slots | None = None) -> LiteSession:
        """A session that is not started."""
        return LiteSession(LiteTransport(slots or Slots(2), self.bridge))

    def listen(self, take) -> None:
        self._take = take

    def post(self, text: str) -> None:
        request = json.loads(text)
        self.asked.append(request)
        if request["op"] == "start":
            self._do(self._start(request["kernel"]))
        elif request["op"] == "hello":
            if self.deaf:
                self.deaf -= 1
            else:
                asyncio.get_running_loop().call_soon(
                    lambda: self.tell(op="hello", kernel="", version=self.version)
                )
        elif (process := self.kernels.get(request["kernel"])) is not None:
            if request["op"] == "send":
                process.stdin.write(json.dumps(request["message"]).encode() + b"\n")
            elif request["op"] == "shutdown":
                del self.kernels[request["kernel"]]
                process.kill()

    def close(self) -> None:
        self._take = lambda text: None

    def tell(self, **report) -> None:
        """Report something, as the page would."""
        self._take(json.dumps({"rlm": protocol.VERSION, "to": "kernel", **report}))

    def _do(self, work) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, kernel: str) -> None:
        async with self._turn:
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KERNEL, limit=100_000_000, **pipes
            )
            self.kernels[kernel] = process
            self.most = max(self.most, len(self.kernels))
        self.tell(op="started", kernel=kernel, id=uuid.uuid4().hex)
        async for line in process.stdout:
            self.tell(op="deliver", kernel=kernel, message=json.loads(line))
        await process.wait()
        if self.kernels.pop(kernel, None) is not None:
            self.tell(op="ended", kernel=kernel, reason="its worker has ended")
