"""Jupyter messages as websocket frames: ``v1.kernel.websocket.jupyter.org``, and the form before it.

In v1 every message is one binary frame: the number of offsets and the offsets, each a little-endian uint64,
then the name of the channel, header, parent header, metadata and content as JSON, and the buffers. The older
form is JSON in a text frame, or, with buffers, a binary one of big-endian uint32 offsets
(https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html).
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ..transport import Channel, JupyterMessage

__all__ = ["V1", "FrameError", "pack", "unpack"]

V1 = "v1.kernel.websocket.jupyter.org"
"""The subprotocol to ask for."""

_CHANNELS = frozenset(get_args(Channel))
_PARTS = 4
MAX_OFFSETS = 100_000


class FrameError(ValueError):
    """A frame that holds no message."""


def pack(
    channel: Channel,
    header: Mapping[str, Any],
    parent_header: Mapping[str, Any],
    content: Mapping[str, Any],
    buffers: Sequence[bytes],
    *,
    v1: bool,
) -> bytes | str:
    """Return a message as the frame that carries it."""
    if v1:
        parts = [json.dumps(each).encode() for each in (header, parent_header, {}, content)]
        chunks = [channel.encode(), *parts, *buffers]
        offsets = [8 * (len(chunks) + 2)]
        for chunk in chunks:
            offsets.append(offsets[-1] + len(chunk))
        return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *chunks])
    message = {
        "channel": channel,
        "header": header,
        "parent_header": parent_header,
        "metadata": {},
        "content": content,
    }
    if not buffers:
        return json.dumps({**message, "buffers": []})
    chunks = [json.dumps(message).encode(), *buffers]
    starts = [4 * (len(chunks) + 1)]
    for chunk in chunks[:-1]:
        starts.append(starts[-1] + len(chunk))
    return b"".join([struct.pack(f"!{len(starts) + 1}I", len(starts), *starts), *chunks])


def unpack(frame: bytes | str, *, v1: bool) -> JupyterMessage:
    """Return the message in a frame, which is a kernel's or a gateway's and not trusted.

    Raises:
        FrameError: there is none in it.
    """
    try:
        if v1:
            if isinstance(frame, str):
                raise FrameError("a text frame")
            channel, parts, buffers = _unpack_v1(frame)
            header, parent, _, content = (json.loads(bytes(each)) for each in parts)
        else:
            message, buffers = _unpack_json(frame)
            channel = message["channel"]
            header, parent, content = (message.get(each) for each in ("header", "parent_header", "content"))
        parent = parent or {}
        id_ = parent.get("msg_id")
        if (
            channel not in _CHANNELS
            or not isinstance(content, dict)
            or not isinstance(header["msg_type"], str)
        ):
            raise FrameError("no message of a kernel")
        return JupyterMessage(
            channel, header["msg_type"], content, id_ if isinstance(id_, str) else None, header, buffers
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise FrameError(f"a frame that holds no message: {type(error).__name__}") from None


def _unpack_v1(frame: bytes) -> tuple[Any, list[memoryview], list[memoryview]]:
    (count,) = struct.unpack_from("<Q", frame)
    if not _PARTS + 2 <= count <= MAX_OFFSETS:
        raise FrameError("a wrong number of parts")
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    view = memoryview(frame)
    chunks = [view[start:end] for start, end in itertools.pairwise(offsets)]
    return str(chunks[0], "utf-8"), chunks[1 : 1 + _PARTS], chunks[1 + _PARTS :]


def _unpack_json(frame: bytes | str) -> tuple[dict[str, Any], list[memoryview]]:
    if isinstance(frame, str):
        return json.loads(frame), []
    (count,) = struct.unpack_from("!I", frame)
    if not 1 <= count <= MAX_OFFSETS:
        raise FrameError("a wrong number of parts")
    starts = [*struct.unpack_from(f"!{count}I", frame, 4), len(frame)]
    view = memoryview(frame)
    chunks = [view[start:end] for start, end in itertools.pairwise(starts)]
    return json.loads(bytes(chunks[0])), chunks[1:]
