"""The faces of IPython and ipykernel that the guest of the REPL uses, towards this sandbox.

One guest serves all kernels: what it asks of a shell and of a kernel is here, and travels by the sandbox's
own way.
"""

from __future__ import annotations

import builtins
import io
import json
import time
from typing import Any

from .showing import bundle

__all__ = ["DisplayHook", "DisplayPublisher", "Events", "Kernel", "Result", "Stream"]

STDIN = 1
FLUSH_SECONDS = 0.05
FLUSH_CHARS = 65_536
# Code in a cell may replace what these names stand for elsewhere.
_loads, _monotonic = json.loads, time.monotonic


class Stream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr``: what is written goes to the host, in pieces."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name: Any, agent: Any) -> None:
        self.name = f"<{name}>"
        self._kind = name
        self._agent = agent
        self._parts: list[str] = []
        self._size = 0
        self._flushed = 0.0

    def writable(self) -> Any:
        return True

    def isatty(self) -> Any:
        return False

    def write(self, text: Any) -> Any:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._parts.append(text)
        self._size += len(text)
        if self._size > FLUSH_CHARS or _monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        self._flushed = _monotonic()
        if parts:
            self._agent.put_out(self._kind, "".join(parts))

    def close(self) -> None:
        self.flush()


class Info:
    """What hooks learn of a cell."""

    def __init__(self, code: Any) -> None:
        self.raw_cell = code


class Result:
    """What hooks learn of a cell that has ended."""

    def __init__(self, code: Any) -> None:
        self.info = Info(code)
        self.error_in_exec: BaseException | None = None
        self.error_before_exec: BaseException | None = None
        self.result: Any = None


class Events:
    """The hooks around cells."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Any]] = {"pre_run_cell": [], "post_run_cell": []}

    def register(self, name: Any, hook: Any) -> None:
        self._hooks.setdefault(name, []).append(hook)

    def trigger(self, name: Any, argument: Any) -> None:
        for hook in list(self._hooks[name]):
            hook(argument)


class DisplayHook:
    """Shows the value of a cell's last expression."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __call__(self, value: Any) -> None:
        if value is None:
            return
        namespace = self._agent.namespace
        setattr(builtins, "_", value)  # noqa: B010  IPython has it too
        namespace["_"] = value
        data = bundle(value)
        if data:
            self.write_format_data(data)

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self._agent.show("result", format_dict)


class DisplayPublisher:
    """Shows what `display` was given."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def publish(self, data: Any, metadata: Any = None, **kwargs: Any) -> None:
        transient = kwargs.get("transient") or {}
        self._agent.show(
            "display", data, display_id=transient.get("display_id"), update=kwargs.get("update", False)
        )

    def clear_output(self, wait: Any = False) -> None:
        self._agent.flush()
        self._agent.tell({"op": "clear", "wait": bool(wait)})


class Kernel:
    """The part of an ipykernel that the REPL's guest uses: stdin, iopub, control, the parent of a cell."""

    iopub_socket = "iopub"

    def __init__(self, agent: Any, poll: Any) -> None:
        self._agent = agent
        self._poll = poll
        self._replies: list[str] = []
        self.control_handlers: dict[str, Any] = {}
        self.stdin_socket = self
        self.session = self
        self.iopub_thread = self

    def get_parent(self, channel: Any = None) -> Any:
        return {"header": {"msg_id": str(self._agent.cell)}}

    def schedule(self, function: Any) -> None:
        function()

    def send(
        self,
        channel: Any,
        type_: Any,
        content: Any,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        **kwargs: Any,
    ) -> None:
        """Send a message as the cell that ``parent`` stands for."""
        self._agent.flush()
        cell = int(parent["header"]["msg_id"]) if parent else self._agent.cell
        if type_ == "rlm_request":
            texts = [text for text, count in content["envelopes"]]
            counts = [count for text, count in content["envelopes"]]
            self._pack("post", cell, texts, buffers, {"counts": counts})
        else:
            head = {"password": bool(content.get("password"))}
            self._pack("ask", cell, [content["prompt"]], buffers, head)

    def _pack(self, op: Any, cell: Any, texts: Any, buffers: Any, head: Any) -> None:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        parts.extend(bytes(each) for each in buffers or ())
        body = b"".join(parts)
        self._agent.tell(
            {"op": op, "cell": cell, "sizes": [len(each) for each in parts], **head}, body, urgent=True
        )

    def receive(self, milliseconds: Any) -> Any:
        """Take what has arrived next, waiting for it so long; tell whether there was anything."""
        item = self._poll(milliseconds)
        if item is None:
            return False
        kind, data = item
        text = data.to_bytes().decode("utf-8", "surrogatepass")
        if kind == STDIN:
            self._replies.append(text)
            return True
        message = _loads(text)
        handler = self.control_handlers.get(message["type"])
        if handler is not None:
            handler(None, None, {"content": message["content"]})
        return True

    def poll(self, milliseconds: Any) -> Any:
        """Wait for a reply on stdin; false if none came."""
        if not self._replies:
            self.receive(milliseconds)
        return bool(self._replies)

    def recv(self, socket: Any) -> Any:
        """Return the next reply on stdin."""
        return None, {"content": {"value": self._replies.pop(0)}}

    def ask(self, prompt: Any, password: Any) -> Any:
        """Ask the person in front of the kernel for a line."""
        self._replies.clear()
        content = {"prompt": str(prompt), "password": password}
        self.send("stdin", "input_request", content)
        while not self.poll(100):
            pass
        line = self._replies.pop(0)
        if line == "\x04":
            raise EOFError
        return line
