"""A picture that code in a cell can hold, send to a model and show, without an imaging library.

Only the headers of files are read; what they hold is never decoded.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Union

__all__ = ["Image", "image_mime"]

# typing's form, because this line runs on Python 3.9 too.
_Data = Union[bytes, bytearray, memoryview]  # noqa: UP007


class Image:
    """A PNG, JPEG, GIF or WebP file in memory; Jupyter displays it.

    ``mime`` is read from the data when it is not given. ``width`` and ``height`` are in pixels, or None where
    the header doesn't tell.

    Raises:
        ValueError: the data are none of the four, or not of the type given.
    """

    __slots__ = ("data", "height", "mime", "width")

    def __init__(self, data: _Data, mime: str = "") -> None:
        found = image_mime(data)
        if found is None or mime not in ("", found):
            raise ValueError(f"these {len(data)} bytes are no {mime or 'PNG, JPEG, GIF or WebP'} image")
        self.data = bytes(data)
        self.mime = found
        self.width, self.height = _image_size(self.data, found)

    def __repr__(self) -> str:
        pixels = "" if self.width is None else f" {self.width}x{self.height}"
        return f"<Image {self.mime}{pixels}, {len(self.data):,} bytes>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.mime, self.data) == (other.mime, other.data)

    def __hash__(self) -> int:
        return hash(self.data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the forms Jupyter shows; it filters them itself."""
        return {self.mime: base64.b64encode(self.data).decode(), "text/plain": repr(self)}


def image_mime(data: _Data) -> str | None:
    """Return the MIME type of an image file by its first bytes, or None for any other file."""
    head = bytes(data[:12])
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "image/webp"
    return None


def _image_size(data: bytes, mime: str) -> tuple[int | None, int | None]:
    try:
        if mime == "image/png":
            width, height = struct.unpack_from(">II", data, 16)
        elif mime == "image/gif":
            width, height = struct.unpack_from("<HH", data, 6)
        elif mime == "image/jpeg":
            width, height = _jpeg_size(data)
        else:
            width, height = _webp_size(data)
    except struct.error:
        return None, None
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while data[at + 1 : at + 2] == b"\xff":  # fill bytes before a marker
            at += 1
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF or length < 2:
            raise struct.error("no segment here")
        # SOF0 to SOF15 hold the size; C4, C8 and CC lie among them and are other segments.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":  # 24 bits each, less one
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    if chunk == b"VP8L":  # 14 bits each, less one, after the signature byte
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    if chunk != b"VP8 ":
        raise struct.error("no WebP bitstream")
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
