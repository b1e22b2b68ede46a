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


def cut(text, head, tail):
    """Return ``text`` with its middle left out and counted, if it is longer than head and tail together."""
    dropped = len(text) - head - tail
    if dropped <= 0:
        return text
    return text[:head] + _marker(dropped) + text[len(text) - tail :]


def _marker(dropped):
    return "\n... [{:,} characters left out] ...\n".format(dropped)


class StreamCut:
    """The cut of one stream, put in the place of its ``write``."""

    def __init__(self, stream, head, tail):
        self._stream = stream
        # Not the instance's, which IPython may have wrapped for the length of a cell.
        self._write = type(stream).write.__get__(stream)
        self._head, self._tail = head, tail
        self._lock = threading.RLock()
        self._open = False
        self._watcher = getattr(stream, "watch_fd_thread", None)
        self._mark = "\0rlm {}\0".format(os.urandom(6).hex())
        self._held = ""
        self._seen = threading.Event()
        self._clear()

    def _clear(self):
        self._room = self._head
        self._kept = collections.deque()
        self._kept_length = 0
        self._dropped = 0

    def begin(self):
        """Start a cell."""
        with self._lock:
            self._clear()
            self._open = True
        self._stream.write = self.write

    def write(self, text):
        """Write what is within the head; keep the rest in case it is the tail."""
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not {}".format(type(text).__name__))
        length = len(text)
        with self._lock:
            if self._watcher is not None and threading.current_thread() is self._watcher:
                text = self._unmark(text)
            if not self._open:
                return length
            if self._room:
                now, text = text[: self._room], text[self._room :]
                self._room -= len(now)
                if now:
                    self._write(now)
            if text:
                self._keep(text)
        return length

    def _keep(self, text):
        if len(text) > self._tail:
            self._dropped += self._kept_length + len(text) - self._tail
            self._kept.clear()
            self._kept_length = 0
            text = text[len(text) - self._tail :]
        self._kept.append(text)
        self._kept_length += len(text)
        while self._kept_length - len(self._kept[0]) >= self._tail:
            first = self._kept.popleft()
            self._kept_length -= len(first)
            self._dropped += len(first)

    def end(self):
        """End the cell: wait for what subprocesses wrote, then put out the tail."""
        self._drain()
        with self._lock:
            tail = "".join(self._kept)
            over = len(tail) - self._tail
            if over > 0:
                self._dropped += over
                tail = tail[over:]
            if self._dropped:
                self._write(_marker(self._dropped))
            if tail:
                self._write(tail)
            self._clear()
            self._open = False

    def _drain(self):
        # The watcher reads the pipe in order: once it has come to a mark of ours, it has read all before it.
        watched = getattr(self._stream, "_original_stdstream_fd", None)
        if self._watcher is None or watched is None or not self._watcher.is_alive():
            return
        self._seen.clear()
        try:
            os.write(watched, self._mark.encode("ascii"))
        except OSError:
            return
        self._seen.wait(1.0)

    def _unmark(self, text):
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


class OutputCut:
    """All the cuts of an IPython shell."""

    def __init__(self, shell, head, tail, displays, image_bytes):
        self._shell = shell
        self._head, self._tail = head, tail
        self._displays, self._image_bytes = displays, image_bytes
        self._left = displays
        streams = [each for each in (sys.stdout, sys.stderr) if each is not None]
        self._streams = [StreamCut(each, head, tail) for each in streams]
        for stream in streams:
            _silence_copy(stream)
        if hasattr(shell, "_tee"):
            # IPython 9 keeps a copy of all that a cell prints, around our cut and without a bound.
            shell._tee = lambda channel: contextlib.nullcontext()
        self._wrap_results(shell)
        self._wrap_displays(shell)
        self._wrap_tracebacks(shell)

    def begin(self):
        """Start a cell."""
        self._left = self._displays
        for stream in self._streams:
            stream.begin()

    def end(self):
        """End a cell."""
        for stream in self._streams:
            stream.end()

    def bundle(self, data):
        """Return a MIME bundle with its texts cut and its oversized images named instead of sent."""
        result, notes = {}, []
        for mime, value in data.items():
            if isinstance(value, str) and (mime.startswith("text/") or mime == "image/svg+xml"):
                result[mime] = cut(value, self._head, self._tail)
            elif isinstance(value, (str, bytes)) and len(value) > self._image_bytes:
                notes.append("[{} of {:,} bytes left out: too large]".format(mime, len(value)))
            elif isinstance(value, (dict, list)) and len(str(value)) > self._head + self._tail:
                notes.append("[{} left out: too large]".format(mime))
            else:
                result[mime] = value
        if notes:
            result["text/plain"] = "\n".join([result.get("text/plain", ""), *notes]).strip()
        return result

    def _wrap_results(self, shell):
        hook = getattr(shell, "displayhook", None)
        if hook is None:
            return
        write = hook.write_format_data

        def write_format_data(format_dict, md_dict=None):
            return write(self.bundle(format_dict), md_dict)

        hook.write_format_data = write_format_data

    def _wrap_displays(self, shell):
        publisher = getattr(shell, "display_pub", None)
        if publisher is None:
            return
        publish = publisher.publish

        def publish_some(data, metadata=None, **kwargs):
            self._left -= 1
            if self._left > 0:
                return publish(self.bundle(data), metadata, **kwargs)
            if self._left == 0:
                note = "[more than {} outputs in one cell: the rest is left out]".format(self._displays)
                return publish({"text/plain": note}, {})
            return None

        publisher.publish = publish_some

    def _wrap_tracebacks(self, shell):
        show = getattr(shell, "_showtraceback", None)
        if show is None:
            return

        def show_some(etype, evalue, stb):
            # The guest's own frames say nothing about the model's code.
            frames = [each for each in stb if not each.lstrip().startswith("File <rlm guest")]
            text = cut("\n".join(frames), self._head // 4, self._tail // 2)
            return show(etype, _short(evalue, self._tail), text.split("\n"))

        shell._showtraceback = show_some


def short_error(result, limit):
    """Replace an enormous error of a cell's ``result`` by a short one, since the reply repeats its text."""
    for name in ("error_in_exec", "error_before_exec"):
        error = getattr(result, name, None)
        if error is not None:
            setattr(result, name, _short(error, limit))


def _short(error, limit):
    try:
        text = str(error)
    except Exception as why:
        text = "(its text can't be shown: {})".format(type(why).__name__)
    else:
        if len(text) <= limit:
            return error
    return type(type(error).__name__, (Exception,), {})(cut(text, limit // 2, limit // 2))


def _silence_copy(stream):
    """Stop ipykernel from repeating what subprocesses write on the kernel's own stdout and stderr."""
    copy = getattr(stream, "_original_stdstream_copy", None)
    if copy is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, copy)
        os.close(null)
