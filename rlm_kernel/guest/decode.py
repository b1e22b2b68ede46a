"""How bytes that travelled become a value again.

Invariant: `Decoder` gives back what `encode` took, and on any other bytes raises `DecodeError` and nothing
else; it never executes what it reads. Pieces may be cut anywhere.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import importlib
import io
import json
import pathlib
from collections.abc import Generator, Iterator
from typing import Any, Optional, Union

from .formats import FORMATS, MAX_NESTING, PIECE_BYTES, TAG, reason
from .image import Image

__all__ = ["DecodeError", "Decoder", "Lines", "decode_file", "decode_line"]

# typing's forms, because these lines run on Python 3.9 too.
_Piece = Union[bytes, bytearray, memoryview]  # noqa: UP007
_Sink = Generator[None, Optional[_Piece], Any]  # noqa: UP045


class DecodeError(ValueError):
    """Bytes that are not what `encode` makes: truncated, of another format, or hostile."""


class Decoder:
    """Takes the pieces of one value as they come, and gives the value.

    Peak memory is one copy of a text or of bytes, and of a list or dict the value and one line. An Arrow
    stream is held whole beside the frame made of it, and a hostile one can make a frame far larger than
    itself: the host hands such bytes from kernel to kernel, and refuses to decode them by ``frames=False``.

    Args:
        fmt: one of `FORMATS`.
        total_bytes: how many bytes there must be in all, where that is known. Without it, a text or
            bytes that lost their end can't be told from whole ones.
        frames: whether DataFrames may be made.

    Raises:
        DecodeError: from every method, for a format or bytes that `encode` never makes.
    """

    def __init__(self, fmt: str, total_bytes: int | None = None, *, frames: bool = True) -> None:
        if fmt not in _SINKS:
            raise DecodeError(f"unknown format {str(fmt)[:40]!r}; known: {', '.join(FORMATS)}")
        self._format = fmt
        self._total = total_bytes
        self._seen = 0
        self._sink: _Sink | None = _SINKS[fmt](fmt, frames)
        next(self._sink)

    def feed(self, piece: _Piece) -> None:
        """Take the next piece, of any size."""
        self._seen += len(piece)
        if self._total is not None and self._seen > self._total:
            raise DecodeError(f"more than the {self._total:,} bytes announced")
        self._send(piece)

    def finish(self) -> Any:
        """Return the value; the decoder is of no more use."""
        if self._total is not None and self._seen != self._total:
            raise DecodeError(f"truncated: {self._seen:,} of {self._total:,} bytes")
        return self._send(None)

    def _send(self, piece: _Piece | None) -> Any:
        sink, self._sink = self._sink, None
        if sink is None:
            raise DecodeError("this decoder has ended")
        try:
            sink.send(piece)
        except StopIteration as ended:
            return ended.value
        except DecodeError:
            raise
        except _MISREAD as error:
            raise DecodeError(f"no value in format {self._format}: {reason(error)}") from error
        self._sink = sink
        return None


def decode_file(fmt: str, path: str | pathlib.Path, *, frames: bool = True) -> Any:
    """Return the value that the file at ``path`` holds, read piece by piece.

    Raises:
        DecodeError: the bytes are not of that format.
        OSError: the file can't be read.
    """
    decoder = Decoder(fmt, frames=frames)
    with open(path, "rb", buffering=0) as file:
        for piece in iter(lambda: file.read(PIECE_BYTES), b""):
            decoder.feed(piece)
    return decoder.finish()


class Lines:
    """Cuts pieces into lines. ``rest`` is what came after the last newline."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """The bytes after the last newline."""
        return b"".join(self._parts)

    def feed(self, piece: _Piece) -> Iterator[bytes]:
        """Yield the lines that ``piece`` completes, without their newlines."""
        first, *others = bytes(piece).split(b"\n")
        self._parts.append(first)
        for other in others:
            line, self._parts = self.rest, [other]
            yield line


def decode_line(fmt: str, line: bytes, *, frames: bool = True) -> list[Any] | int:
    """Return what one line of a list or dict holds: elements, (key, value) lists, or the final count.

    Raises:
        DecodeError: it is no such line.
    """
    try:
        found = _loads(line, frames)
    except DecodeError:
        raise
    except _MISREAD as error:
        raise DecodeError(f"no line in format {fmt}: {reason(error)}") from error
    if type(found) is int:
        return found
    if type(found) is not list:
        raise DecodeError(f"a line in format {fmt} that is no array")
    if fmt == "dict":
        for pair in found:
            if type(pair) is not list or len(pair) != 2:
                raise DecodeError("a line in format dict with something else than pairs")
            _check_hashable(pair[0])
    return found


def _text_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    # CPython grows a str in place when `+=` is applied to a local that holds the only reference: so the text
    # stays a local of this one frame, and decoding needs one copy instead of two.
    text = ""
    tail = b""
    while True:
        piece = yield
        if piece is None:
            break
        if tail:
            piece = tail + piece
        end = len(piece) - _unfinished(piece)
        tail = bytes(piece[end:])
        text += str(memoryview(piece)[:end], "utf-8", "surrogatepass")
    if tail:
        raise DecodeError("truncated: the text ends within a character")
    return text


def _unfinished(data: _Piece) -> int:
    """Return how many bytes at the end begin a UTF-8 sequence that isn't complete.

    The incremental decoder of `codecs` can't do it: cut after two of a surrogate's three bytes, it fails.
    """
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if 0xC0 <= byte < 0xF8:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < needed else 0
        if not 0x80 <= byte < 0xC0:
            return 0
    return 0


def _gather() -> _Sink:
    # BytesIO hands out the very buffer it grew: one copy, where bytearray or join make two.
    buffer = io.BytesIO()
    while True:
        piece = yield
        if piece is None:
            return buffer.getvalue()
        buffer.write(piece)


def _bytes_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    return (yield from _gather())


def _lines_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    lines = Lines()
    items: list[Any] = []
    pairs: dict[Any, Any] = {}
    count = 0
    ended = False
    while True:
        piece = yield
        if piece is None:
            break
        for line in lines.feed(piece):
            if ended:
                raise DecodeError("a line after the count")
            found = decode_line(fmt, line, frames=frames)
            if isinstance(found, int):
                ended = True
                if found != count:
                    raise DecodeError(f"{count:,} elements where {found:,} were announced")
                continue
            count += len(found)
            if fmt == "dict":
                pairs.update(found)
            else:
                items += found
    if not ended or lines.rest:
        raise DecodeError(f"truncated after {count:,} elements")
    return pairs if fmt == "dict" else items


def _json_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    return _loads((yield from _gather()), frames)


def _image_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    data = yield from _gather()
    mime, _, _ = data[:64].partition(b"\n")
    return Image(memoryview(data)[len(mime) + 1 :], mime.decode("ascii") or "an unnamed")


def _frame_sink(fmt: str, frames: bool) -> _Sink:  # noqa: FBT001
    if not frames:
        raise DecodeError(_NO_FRAMES)
    return _frame((yield from _gather()))


_SINKS = {
    "text": _text_sink,
    "bytes": _bytes_sink,
    "list": _lines_sink,
    "dict": _lines_sink,
    "json": _json_sink,
    "arrow": _frame_sink,
    "image": _image_sink,
}


def _frame(data: bytes) -> Any:
    try:
        importlib.import_module("pandas")
        pa = importlib.import_module("pyarrow")
    except ImportError as error:
        raise DecodeError(f"a DataFrame needs pandas and pyarrow here: {error}") from None
    # Before 14.0.1 reading a stream could execute code that it holds (CVE-2023-47248).
    if tuple(int(each) for each in pa.__version__.split(".")[:2]) < (14, 1):
        raise DecodeError(f"pyarrow {pa.__version__} does not read streams safely; 14.1 or later does")
    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        table.validate(full=True)
        return table.to_pandas()
    except Exception as error:  # an edge: Arrow and pandas raise anything on hostile bytes
        raise DecodeError(f"no DataFrame in these bytes: {reason(error)}") from error


def _loads(data: bytes, frames: bool) -> Any:  # noqa: FBT001
    value = (_decoder if frames else _frameless).decode(str(data, "utf-8", "surrogatepass"))
    if data.count(b"[") + data.count(b"{") > MAX_NESTING:
        _check_nesting(value)
    return value


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            child
            for each in level
            if isinstance(each, (list, dict, tuple, set, frozenset))
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise DecodeError(f"nested more than {MAX_NESTING} levels deep")


def _check_hashable(value: Any) -> None:
    """Refuse what can't be a key; a deep tuple too, whose hash recurses in C without a bound."""
    if type(value) is not str:
        _check_nesting(value)
        hash(value)


def _restore(found: dict[str, Any]) -> Any:
    """Return what a JSON object stands for: itself, or the value of a tag."""
    if TAG not in found:
        return found
    tag, value = found[TAG], found.get("v")
    if len(found) != 2 or type(tag) is not str or tag not in _READERS:
        raise DecodeError(f"unknown tag {str(tag)[:40]!r}")
    kind, read = _READERS[tag]
    if type(value) is not kind:
        raise DecodeError(f"tag {tag} around a {type(value).__name__}")
    return read(value)


def _restore_frameless(found: dict[str, Any]) -> Any:
    if found.get(TAG) == "arrow":
        raise DecodeError(_NO_FRAMES)
    return _restore(found)


def _read_set(value: list[Any]) -> set[Any]:
    for each in value:
        _check_hashable(each)
    return set(value)


def _read_dict(value: list[Any]) -> dict[Any, Any]:
    for key, _ in value:
        _check_hashable(key)
    return dict(value)


def _read_bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


_READERS: dict[str, tuple[type, Any]] = {
    "tuple": (list, tuple),
    "set": (list, _read_set),
    "frozenset": (list, lambda value: frozenset(_read_set(value))),
    "dict": (list, _read_dict),
    "bytes": (str, _read_bytes),
    "int": (str, lambda value: int(value, 16)),
    "datetime": (str, datetime.datetime.fromisoformat),
    "date": (str, datetime.date.fromisoformat),
    "time": (str, datetime.time.fromisoformat),
    "decimal": (str, decimal.Decimal),
    "path": (str, pathlib.Path),
    "image": (str, lambda value: Image(_read_bytes(value))),
    "arrow": (str, lambda value: _frame(_read_bytes(value))),
}
_decoder = json.JSONDecoder(object_hook=_restore)
_frameless = json.JSONDecoder(object_hook=_restore_frameless)
_NO_FRAMES = "a DataFrame, where none may be made"
# What the standard library raises on text that is no JSON, or tags around the wrong things.
_MISREAD = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
