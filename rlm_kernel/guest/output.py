"""Cut what a cell puts out, before it leaves the kernel.

Of each stream the first ``head`` and the last ``tail`` characters of a cell are kept and what lies between
is counted. The head goes out at once, the tail when the cell ends. Writes to the file descriptors (by
subprocesses, or C code) pass through the same cut, since ipykernel's watcher threads feed the streams.
Results, displayed data and tracebacks are cut to the same size; between cells nothing goes out.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from _thread import get_ident
from typing import Any

__all__ = ["OutputCut", "StreamCut", "cut", "short_error"]


# Pieces of a flood that may wait until the tail is cut to its size.
MOST_UNCUT = 1000


def cut(text: str, head: int, tail: int) -> str:
    """Return ``text`` with its middle left out and counted, if it is longer than head and tail together."""
    dropped = len(text) - head - tail
    if dropped <= 0:
        return text
    return text[:head] + _marker(dropped) + text[len(text) - tail :]


def _marker(dropped: int) -> str:
    return f"\n... [{dropped:,} characters left out] ...\n"


class StreamCut:
    """The cut of one stream, put in the place of its ``write``."""

    def __init__(self, stream: Any, head: int, tail: int) -> None:
        self.stream = stream
        # Not the instance's, which IPython may have wrapped for the length of a cell.
        self._write = type(stream).write.__get__(stream)
        self._head, self._tail = head, tail
        self._lock = threading.RLock()
        self._open = False
        self._watcher: threading.Thread | None = getattr(stream, "watch_fd_thread", None)
        self._watcher_ident = None if self._watcher is None else self._watcher.ident
        self._flush = stream.flush
        self._unflushed = True
        self._watched = getattr(stream, "_original_stdstream_fd", -1)
        self._pipe = _identity(self._watched)
        self._mark = f"\0rlm {os.urandom(6).hex()}\0"
        self._held = ""
        self._seen = threading.Event()
        self._clear()
        # A cell that closes it would silence all later ones.
        stream.close = stream.flush
        # ipykernel flushes several times a cell, and each time waits for another thread.
        stream.flush = self.flush

    def _clear(self) -> None:
        self._room = self._head
        self._full = False
        self._kept: collections.deque[str] = collections.deque()
        self._uncut = 0
        self._dropped = 0

    def begin(self) -> None:
        """Start a cell."""
        with self._lock:
            self._clear()
            self._open = True
        self.stream.write = self.write

    def write(self, text: str) -> int:
        """Write what is within the head; keep the rest in case it is the tail."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        length = len(text)
        if self._full and get_ident() != self._watcher_ident:
            # The way of a flood: no lock, and the tail is cut to its size only now and then.
            self._kept.append(text)
            self._uncut += 1
            if self._uncut < MOST_UNCUT and length <= self._tail:
                return length
            with self._lock:
                self._cut_tail()
            return length
        with self._lock:
            if get_ident() == self._watcher_ident:
                text = self._unmark(text)
            if not self._open:
                return length
            if self._room:
                self._unflushed = True
                now, text = text[: self._room], text[self._room :]
                self._room -= len(now)
                self._full = not self._room
                if now:
                    self._write(now)
            if text:
                self._kept.append(text)
                self._cut_tail()
        return length

    def _cut_tail(self) -> None:
        """Cut what is kept to the size of the tail, and count what goes."""
        kept, self._uncut = self._kept, 0
        over = sum(map(len, kept)) - self._tail
        while over > 0:
            first = kept.popleft()
            if len(first) > over:
                kept.appendleft(first[over:])
            gone = min(over, len(first))
            self._dropped += gone
            over -= gone

    def end(self) -> None:
        """End the cell: wait for what subprocesses wrote, then put out the tail."""
        self._seen.wait(1.0)
        with self._lock:
            self._cut_tail()
            tail = "".join(self._kept)
            dropped = self._dropped
            self._clear()
            self._open = False
            if dropped or tail:
                self._unflushed = True
            if dropped:
                self._write(_marker(dropped))
            if tail:
                self._write(tail)

    def flush(self) -> None:
        """Send what was written, if anything was."""
        if self._unflushed:
            self._unflushed = False
            self._flush()

    def mark(self) -> None:
        """Put a mark behind what subprocesses have written; `end` waits for the watcher to come to it."""
        # The watcher reads the pipe in order.
        self._seen.set()
        if self._watcher is None or not self._watcher.is_alive():
            return
        if self._pipe is None or _identity(self._watched) != self._pipe:
            return  # The cell has led the descriptor elsewhere: a mark would end up there.
        self._seen.clear()
        try:
            os.write(self._watched, self._mark.encode("ascii"))
        except OSError:
            self._seen.set()

    def _unmark(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        if "\0" in text:
            if self._mark in text:
                text = text.replace(self._mark, "")
                self._seen.set()
            start = text.rfind("\0")
            if start >= 0 and self._mark.startswith(text[start:]):
                self._held, text = text[start:], text[:start]
        return text


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return what tells the open file behind a descriptor from others."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class OutputCut:
    """All the cuts of an IPython shell."""

    def __init__(
        self,
        shell: Any,
        head: int,
        tail: int,
        displays: int,
        image_bytes: int,
        *,
        streams: dict[str, Any] | None = None,
    ) -> None:
        self._head, self._tail = head, tail
        self._displays, self._image_bytes = displays, image_bytes
        self._left = displays
        streams = {"stdout": sys.stdout, "stderr": sys.stderr} if streams is None else streams
        self._streams = {
            name: StreamCut(each, head, tail) for name, each in streams.items() if each is not None
        }
        for each in self._streams.values():
            _silence_copy(each.stream)
        if hasattr(shell, "_tee"):
            # IPython 9 keeps a copy of all that a cell prints, around our cut and without a bound.
            shell._tee = lambda channel: contextlib.nullcontext()
        self._wrap_results(shell)
        self._wrap_displays(shell)
        self._wrap_tracebacks(shell)

    def begin(self) -> None:
        """Start a cell."""
        self._left = self._displays
        for each in self._streams.values():
            each.begin()

    def end(self) -> None:
        """End a cell; its own streams must not swallow what the next one writes."""
        for name, each in self._streams.items():
            setattr(sys, name, each.stream)
            each.mark()
        for each in self._streams.values():
            each.end()

    def complain(self, text: str) -> None:
        """Put a note of the REPL's own into the cell's stderr."""
        if "stderr" in self._streams:
            self._streams["stderr"].write(text)

    def bundle(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a MIME bundle with its texts cut and its oversized images named instead of sent."""
        result: dict[str, Any] = {}
        notes = []
        for mime, value in data.items():
            if isinstance(value, str) and (mime.startswith("text/") or mime == "image/svg+xml"):
                result[mime] = cut(value, self._head, self._tail)
            elif isinstance(value, (str, bytes)) and len(value) > self._image_bytes:
                notes.append(f"[{mime} of {len(value):,} bytes left out: too large]")
            elif isinstance(value, (dict, list)) and len(str(value)) > self._head + self._tail:
                notes.append(f"[{mime} left out: too large]")
            else:
                result[mime] = value
        if notes:
            result["text/plain"] = "\n".join([result.get("text/plain", ""), *notes]).strip()
        return result

    def _wrap_results(self, shell: Any) -> None:
        hook = getattr(shell, "displayhook", None)
        if hook is None:
            return
        write = hook.write_format_data

        def write_format_data(format_dict: dict[str, Any], md_dict: Any = None) -> Any:
            return write(self.bundle(format_dict), md_dict)

        hook.write_format_data = write_format_data

    def _wrap_displays(self, shell: Any) -> None:
        publisher = getattr(shell, "display_pub", None)
        if publisher is None:
            return
        publish = publisher.publish

        def publish_some(data: dict[str, Any], metadata: Any = None, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                return publish(self.bundle(data), metadata, **kwargs)
            if self._left == -1:
                note = f"[more than {self._displays} outputs in one cell: the rest is left out]"
                return publish({"text/plain": note}, {})
            return None

        publisher.publish = publish_some

    def _wrap_tracebacks(self, shell: Any) -> None:
        show = getattr(shell, "_showtraceback", None)
        if show is None:
            return

        def show_some(etype: Any, evalue: Any, stb: list[str] | str) -> Any:
            lines = [stb] if isinstance(stb, str) else stb
            # The guest's own frames say nothing about the model's code.
            frames = [each for each in lines if not each.lstrip().startswith("File <rlm guest")]
            text = cut("\n".join(frames), self._head // 4, self._tail // 2)
            return show(etype, _short(evalue, self._tail), text.split("\n"))

        shell._showtraceback = show_some


def short_error(result: Any, limit: int) -> None:
    """Replace an enormous error of a cell's ``result`` by a short one, since the reply repeats its text."""
    for name in ("error_in_exec", "error_before_exec"):
        error = getattr(result, name, None)
        if error is not None:
            setattr(result, name, _short(error, limit))


def _short(error: Any, limit: int) -> Any:
    try:
        text = str(error)
    except Exception as why:  # noqa: BLE001  an edge: objects of model-written classes raise anything
        text = f"(its text can't be shown: {type(why).__name__})"
    else:
        if len(text) <= limit:
            return error
    return type(type(error).__name__, (Exception,), {})(cut(text, limit // 2, limit // 2))


def _silence_copy(stream: Any) -> None:
    """Stop ipykernel from repeating what subprocesses write on the kernel's own stdout and stderr."""
    copy = getattr(stream, "_original_stdstream_copy", None)
    if copy is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, copy)
        os.close(null)
