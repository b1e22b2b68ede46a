"""Server-sent events, the format of streamed replies: bytes in, the data of events out.

The format is https://html.spec.whatwg.org/multipage/server-sent-events.html, of which only ``data`` matters
to chat protocols. Lines end in LF, CR LF or CR; an event may be cut anywhere, within a character too.
"""

from __future__ import annotations

__all__ = ["EventLines"]


class EventLines:
    """The events of one stream: `feed` it bytes as they come, then `rest` at its end."""

    def __init__(self) -> None:
        self._partial = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Take in ``piece``; return the data of the events that it completes."""
        if not piece:
            return []
        *lines, self._partial = _split(self._partial + piece)
        return self._events(lines)

    def rest(self) -> list[bytes]:
        """Return the data of an event that the stream's end completes without a blank line."""
        last, self._partial = self._partial, b""
        return self._events([last.rstrip(b"\r"), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            if not line:
                if self._data:
                    found.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._data.append(b"")
        return found


def _split(text: bytes) -> list[bytes]:
    """Split into lines, the last of which has no end yet: no break, or a CR that an LF may follow."""
    if b"\r" not in text:
        return text.split(b"\n")
    last = b""
    if text.endswith(b"\r"):
        text, last = text[:-1], b"\r"
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines[-1] += last
    return lines
