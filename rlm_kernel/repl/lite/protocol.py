"""What the notebook's kernel and the page's bridge say to each other: JSON texts on a BroadcastChannel.

The page's side is ``extension/src/protocol.ts``, which speaks the same version. Both sides post on one
channel, so every message says to whom it goes. What the page passes on comes from a kernel: guest data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..transport import JupyterMessage

__all__ = [
    "TARGET",
    "VERSION",
    "Delivered",
    "Ended",
    "Hello",
    "Report",
    "Started",
    "decode",
    "encode",
    "jupyter_message",
]

VERSION = 1
TARGET = "rlm.bridge"
"""The comm target by which the page is asked for a bridge."""

_CHANNELS = ("shell", "iopub", "stdin", "control")
_WORDS = 500


@dataclass(frozen=True, slots=True)
class Hello:
    """The page listens, and speaks this version."""

    version: Any


@dataclass(frozen=True, slots=True)
class Started:
    """A kernel answers; ``id`` is what the page knows it by."""

    kernel: str
    id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A kernel is gone, or could not be started."""

    kernel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message of a kernel."""

    kernel: str
    message: JupyterMessage


Report = Hello | Started | Ended | Delivered


def encode(op: str, kernel: str = "", **more: Any) -> str:
    """Return a request to the page.

    That is ``hello``, or about a kernel ``start``, ``send``, ``interrupt``, ``restart`` or ``shutdown``.
    """
    about = {"kernel": kernel} if kernel else {}
    return json.dumps({"rlm": VERSION, "to": "page", "op": op, **about, **more})


def decode(text: Any) -> Report | None:
    """Return what the page reports in ``text``; None for our own requests, and for what is no report."""
    try:
        data = json.loads(text)
        # A hello of any version is understood: it says which one the page speaks.
        if data["to"] != "kernel":
            return None
        if data["op"] == "hello":
            return Hello(data["version"])
        if data["rlm"] != VERSION or not isinstance(data["kernel"], str):
            return None
        return _about_a_kernel(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _about_a_kernel(data: Mapping[str, Any]) -> Report | None:
    kernel = data["kernel"]
    if data["op"] == "started":
        return Started(kernel, str(data["id"])[:_WORDS])
    if data["op"] == "ended":
        return Ended(kernel, str(data["reason"])[:_WORDS])
    if data["op"] == "deliver":
        return Delivered(kernel, _message(data["message"]))
    return None


def _message(data: Mapping[str, Any]) -> JupyterMessage:
    channel, header, content = data["channel"], data["header"], data["content"]
    type_, parent = header["msg_type"], (data["parent_header"] or {}).get("msg_id")
    if channel not in _CHANNELS or not isinstance(type_, str) or not isinstance(content, dict):
        raise ValueError("no message of a kernel")
    if "ename" in content:
        content["ename"] = _class_name(content["ename"])
    return JupyterMessage(channel, type_, content, parent if isinstance(parent, str) else None, header)


def _class_name(name: Any) -> Any:
    """Return ``ZeroDivisionError`` for the ``<class 'ZeroDivisionError'>`` that Pyodide's kernel sends."""
    if isinstance(name, str) and name.startswith("<class '") and name.endswith("'>"):
        return name[len("<class '") : -len("'>")].rpartition(".")[2]
    return name


def jupyter_message(
    channel: str, header: Mapping[str, Any], parent: Mapping[str, Any], content: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a Jupyter message in the form in which the page passes it on."""
    return {
        "channel": channel,
        "header": header,
        "parent_header": parent,
        "metadata": {},
        "content": content,
    }
