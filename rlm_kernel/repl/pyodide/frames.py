"""The frames on the pipe between the host and a sandbox's supervisor; the other end is ``supervisor.mjs``.

From the sandbox: u32 length, token (16 bytes), u32 number, u8 origin, u32 length of header, header, body. To
it: u32 length, u32 length of header, header, body. Numbers are little-endian, a header is a JSON object, a
body bytes.

Invariant: `Reader.feed` gives frames that carry the session's token and follow each other without a gap, and
whose header is of a known kind with fields of the right types; anything else raises `Tampered`, whatever the
bytes.
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_FRAME", "TOKEN_BYTES", "Frame", "Reader", "Tampered", "pack"]

TOKEN_BYTES = 16
MAX_FRAME = 72 * 1024 * 1024
MAX_HEADER = 1024 * 1024
MAX_PIECES = 20_000
_HEAD = struct.Struct("<16sIBI")
_SUPERVISOR, _GUEST = 0, 1


class Tampered(Exception):  # noqa: N818  it says what happened
    """The sandbox sent what none of its programs sends."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A checked frame. ``op`` says what it is, ``header`` holds its fields, ``body`` bytes of the guest's."""

    op: str
    header: Mapping[str, Any]
    body: memoryview


_FIELDS: Mapping[int, Mapping[str, Mapping[str, type]]] = {
    _SUPERVISOR: {"broken": {"reason": str}},
    _GUEST: {
        "ready": {"python": str},
        "snapshot": {},
        "stream": {"cell": int, "name": str},
        "result": {"cell": int},
        "display": {"cell": int},
        "clear": {"wait": bool},
        "error": {"cell": int, "ename": str, "evalue": str},
        "failed": {"cell": int, "ename": str, "evalue": str},
        "fault": {"cell": int, "reason": str},
        "ask": {"cell": int, "sizes": list, "password": bool},
        "post": {"cell": int, "sizes": list, "counts": list},
        "done": {"cell": int},
        "stored": {"id": int, "error": str},
        "answer": {"id": int},
    },
}


def pack(header: Mapping[str, Any], body: bytes | memoryview = b"") -> bytes:
    """Return a frame for the sandbox."""
    head = json.dumps(header).encode()
    return struct.pack("<II", 4 + len(head) + len(body), len(head)) + head + bytes(body)


class Reader:
    """Cuts what comes out of a sandbox into frames, and checks each."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._number = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that ``data`` completes.

        Raises:
            Tampered: it is not from the supervisor, or not of a known form.
        """
        self._buffer += data
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from("<I", self._buffer)
            if not _HEAD.size <= length <= MAX_FRAME:
                raise Tampered(f"a frame of {length:,} bytes")
            # The token is looked at before the rest has come: bytes that aren't its own are seen at once.
            if len(self._buffer) >= 4 + TOKEN_BYTES:
                self._check_token()
            if len(self._buffer) < 4 + length:
                return
            frame = memoryview(bytes(self._buffer[4 : 4 + length]))
            del self._buffer[: 4 + length]
            yield self._checked(frame)

    def _check_token(self) -> None:
        if not hmac.compare_digest(bytes(self._buffer[4 : 4 + TOKEN_BYTES]), self._token):
            raise Tampered("a frame without the session's token")

    def _checked(self, frame: memoryview) -> Frame:
        _, number, origin, size = _HEAD.unpack_from(frame)
        if number != self._number:
            raise Tampered(f"frame {number} where {self._number} was due")
        self._number += 1
        if origin not in _FIELDS or size > MAX_HEADER or _HEAD.size + size > len(frame):
            raise Tampered("a frame of a form that there isn't")
        try:
            header = json.loads(bytes(frame[_HEAD.size : _HEAD.size + size]))
        except (ValueError, RecursionError):
            raise Tampered("a header that is not JSON") from None
        if not isinstance(header, dict):
            raise Tampered("a header that is no object")
        op = str(header.get("op"))
        fields = _FIELDS[origin].get(op)
        if fields is None:
            raise Tampered("a frame of a kind that there isn't")
        for name, type_ in fields.items():
            if type(header.get(name)) is not type_:
                raise Tampered(f"a frame {op!r} with a bad field {name!r}")
        body = frame[_HEAD.size + size :]
        _check_sizes(op, header, body)
        return Frame(op, header, body)


def _check_sizes(op: str, header: Mapping[str, Any], body: memoryview) -> None:
    if "sizes" not in _FIELDS[_GUEST].get(op, {}):
        return
    sizes = header["sizes"]
    if len(sizes) > MAX_PIECES or not all(type(each) is int and each >= 0 for each in sizes):
        raise Tampered("pieces of impossible sizes")
    if sum(sizes) != len(body) or not sizes:
        raise Tampered("pieces that are not those announced")
    counts = header.get("counts", [len(sizes) - 1])
    if not all(type(each) is int and each >= 0 for each in counts) or sum(counts) + len(counts) != len(sizes):
        raise Tampered("buffers that are not those announced")
