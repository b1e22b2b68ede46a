"""How a context travels between host and kernel: a format name and a stream of bytes, on both sides.

This file runs on the host and, shipped as source, inside kernels: standard library only, Python 3.9 and
later, Pyodide too. Invariant: `Decoder` gives back what `encode` took, and on any other bytes raises
`DecodeError` and nothing else; it never executes what it reads. Pieces may be cut anywhere.

=======  ===========================  =========================================================
format   value                        bytes
=======  ===========================  =========================================================
text     str                          UTF-8, lone surrogates encoded like any other code point
bytes    bytes, bytearray             as they are
list     list                         lines, each a JSON array of elements; last line: the count
dict     dict                         lines, each a JSON array of [key, value]; last line: the count
json     any other JSON-able value    one JSON document
arrow    pandas DataFrame             an Arrow IPC stream
image    Image, PIL image (as PNG)    the MIME type, a newline, the image file
=======  ===========================  =========================================================

JSON is UTF-8, not escaped, so that surrogates stay apart. What JSON lacks is tagged, ``{"$rlm": tag, "v":
...}``: tuple, set, frozenset, bytes, datetime, date, time, decimal, path, int (huge ones, in hexadecimal),
dict (with other keys than str; pairs), image and arrow. Subclasses come back as their base, numpy scalars
as Python's, pandas' NA and NaT as None.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import importlib
import io
import json
import pathlib
import struct
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, Optional, Union

__all__ = [
    "FORMATS",
    "MAX_NESTING",
    "PIECE_BYTES",
    "DecodeError",
    "Decoder",
    "EncodeError",
    "Image",
    "Lines",
    "check",
    "decode_file",
    "decode_line",
    "encode",
    "format_of",
    "image_mime",
]

FORMATS = ("text", "bytes", "list", "dict", "json", "arrow", "image")
PIECE_BYTES = 4 * 1024 * 1024
MAX_NESTING = 200

_LINE_BYTES = 1024 * 1024
_BATCH = 256
_TAG = "$rlm"
# Far below the digit limit of int <-> str, which differs between Pythons and can be set.
_HUGE = 1 << 1000
_SCALARS = frozenset((str, int, float, bool, type(None)))
_POSSIBLE = (
    "a context is made of str, bytes, numbers, bool, None, list, tuple, set, dict, date and time, Decimal, "
    "Path, Image and pandas DataFrame"
)

# typing's forms, because these lines run on Python 3.9 too.
_Piece = Union[bytes, bytearray, memoryview]  # noqa: UP007
_Sink = Generator[None, Optional[_Piece], Any]  # noqa: UP045


class EncodeError(ValueError):
    """A value, or something inside it, that can't travel. The message says where it is."""


class DecodeError(ValueError):
    """Bytes that are not what `encode` makes: truncated, of another format, or hostile."""


# --- images ---------------------------------------------------------------------------------------------


class Image:
    """A PNG, JPEG, GIF or WebP file in memory; Jupyter displays it.

    ``mime`` is read from the data when it is not given. ``width`` and ``height`` are in pixels, or None where
    the header doesn't tell.

    Raises:
        ValueError: the data are none of the four, or not of the type given.
    """

    __slots__ = ("data", "height", "mime", "width")

    def __init__(self, data: _Piece, mime: str = "") -> None:
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


def image_mime(data: _Piece) -> str | None:
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


# --- encoding -------------------------------------------------------------------------------------------


def format_of(value: Any, name: str = "context") -> str:
    """Return the format in which ``value`` would travel, by its type alone.

    Raises:
        EncodeError: no format takes a value of this type.
    """
    for kind, fmt in _TOP:
        if isinstance(value, kind):
            return fmt
    if _is_frame(value):
        return "arrow"
    if _is_picture(value):
        return "image"
    if not isinstance(value, (tuple, set, frozenset)):
        _Tagger(name).tag(value)
    return "json"


def encode(value: Any, piece_bytes: int = PIECE_BYTES, name: str = "context") -> tuple[str, Iterator[bytes]]:
    """Return the format and the pieces of ``value``, each but the last of ``piece_bytes``.

    Pieces are made as they are asked for: beside the value itself there is never more than one element of
    it, and a few pieces, in memory. ``name`` is how error messages call the value.

    Raises:
        EncodeError: at once for the value's own type, from the iterator for something inside it.
    """
    fmt = format_of(value, name)
    if fmt == "text":
        return fmt, _text_pieces(value, piece_bytes)
    if fmt == "bytes":
        return fmt, _slices(memoryview(value), piece_bytes)
    return fmt, _regroup(_PARTS[fmt](value, name), piece_bytes)


def check(value: Any, name: str = "context") -> None:
    """Raise `EncodeError` where `encode` would fail.

    Texts, bytes and plain elements of a list or dict cost a look at their types; anything nested is encoded
    and dropped, element by element, and a DataFrame batch by batch.
    """
    fmt = format_of(value, name)
    if fmt in ("list", "dict"):
        tagger = _Tagger(name)
        for batch in _batches(value):
            if not _plain_batch(batch, keyed=fmt == "dict"):
                for _ in _batch_texts(batch, tagger, keyed=fmt == "dict"):
                    pass
    elif fmt in _PARTS:
        for _ in _PARTS[fmt](value, name):
            pass


def _text_pieces(text: str, piece_bytes: int) -> Iterator[bytes]:
    if text.isascii():
        return (text[at : at + piece_bytes].encode() for at in range(0, len(text), piece_bytes))
    step = max(1, piece_bytes // 4)
    parts = (text[at : at + step].encode("utf-8", "surrogatepass") for at in range(0, len(text), step))
    return _regroup(parts, piece_bytes)


def _slices(view: memoryview, piece_bytes: int) -> Iterator[bytes]:
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    return (bytes(view[at : at + piece_bytes]) for at in range(0, len(view), piece_bytes))


def _regroup(parts: Iterable[bytes], piece_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of ``parts`` in pieces of equal size; a large part is never copied as a whole."""
    buffer = bytearray()
    for part in parts:
        if len(buffer) + len(part) < piece_bytes:
            buffer += part
            continue
        at = piece_bytes - len(buffer)
        yield bytes(buffer) + part[:at]
        while len(part) - at >= piece_bytes:
            yield part[at : at + piece_bytes]
            at += piece_bytes
        buffer = bytearray(part[at:])
    if buffer:
        yield bytes(buffer)


def _batches(value: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Yield (step, element) by the hundreds, so that plain data are checked and written at C's speed."""
    elements: Iterator[tuple[Any, Any]] = iter(value.items()) if isinstance(value, dict) else enumerate(value)
    return iter(lambda: list(islice(elements, _BATCH)), [])


def _plain_batch(batch: list[tuple[Any, Any]], *, keyed: bool) -> bool:
    return _plain([each for _, each in batch]) and (not keyed or {type(key) for key, _ in batch} == {str})


def _batch_texts(batch: list[tuple[Any, Any]], tagger: _Tagger, *, keyed: bool) -> Iterator[str]:
    if keyed:
        return (f"[{_json(tagger, key)},{_json(tagger, each, key)}]" for key, each in batch)
    return (_json(tagger, each, at) for at, each in batch)


def _element_parts(value: Any, name: str) -> Iterator[bytes]:
    keyed = isinstance(value, dict)
    tagger = _Tagger(name)
    count = line = 0
    for batch in _batches(value):
        count += len(batch)
        texts = _batch_texts(batch, tagger, keyed=keyed)
        if _plain_batch(batch, keyed=keyed):
            plain = [each for pair in batch for each in pair] if keyed else [each for _, each in batch]
            # Strings are what can make a batch large; then its elements go one by one.
            if sum(len(each) for each in plain if type(each) is str) < _LINE_BYTES:
                texts = iter([_dumps(batch if keyed else plain)[1:-1]])
        for text in texts:
            part = text.encode("utf-8", "surrogatepass")
            if line and line + len(part) > _LINE_BYTES:
                yield b"]\n"
                line = 0
            yield b"," if line else b"["
            yield part
            line += len(part) + 1
    if line:
        yield b"]\n"
    yield b"%d\n" % count


def _json_parts(value: Any, name: str) -> Iterator[bytes]:
    yield _json(_Tagger(name), value).encode("utf-8", "surrogatepass")


def _image_parts(value: Any, name: str) -> Iterator[bytes]:
    image = _as_image(value, name)
    yield image.mime.encode() + b"\n"
    yield image.data


def _frame_parts(frame: Any, name: str) -> Iterator[bytes]:
    try:
        pa = importlib.import_module("pyarrow")
    except ImportError:
        raise EncodeError(
            f"{name} is a DataFrame, which travels by pyarrow, and that is not installed"
        ) from None
    sink = io.BytesIO()
    try:
        schema = pa.Schema.from_pandas(frame)
        rows = max(1, len(frame))
        step = max(1, min(rows, rows * PIECE_BYTES // max(1, int(frame.memory_usage(deep=False).sum()))))
        with pa.ipc.new_stream(sink, schema) as writer:
            for at in range(0, len(frame), step):
                writer.write_batch(pa.RecordBatch.from_pandas(frame.iloc[at : at + step], schema=schema))
                yield sink.getvalue()
                sink.seek(0)
                sink.truncate()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"{name} is a DataFrame that Arrow can't hold: {_one_line(error)}") from error
    yield sink.getvalue()


_TOP = ((str, "text"), ((bytes, bytearray, memoryview), "bytes"), (list, "list"), (dict, "dict"))
_PARTS = {
    "list": _element_parts,
    "dict": _element_parts,
    "json": _json_parts,
    "arrow": _frame_parts,
    "image": _image_parts,
}
_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def _json(tagger: _Tagger, value: Any, *steps: Any) -> str:
    try:
        return _dumps(tagger.tag(value, *steps))
    except RecursionError:
        raise EncodeError(f"{tagger.where()} is nested too deeply to be sent from here") from None


def _plain(values: Iterable[Any]) -> bool:
    """Tell whether every value is one that JSON has, and none is a container."""
    kinds = set(map(type, values))
    return kinds <= _SCALARS and (
        int not in kinds or all(-_HUGE < each < _HUGE for each in values if type(each) is int)
    )


class _Tagger:
    """Turns a value into one that JSON has; remembers where it is for the sake of error messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: list[Any] = []
        self._open: set[int] = set()

    def where(self) -> str:
        """Return the path to the value at hand, as Python would write it, shortened."""
        steps = [f"[{_step(each)}]" for each in self._steps[:6]]
        return self._name + "".join(steps) + ("[...]" if len(self._steps) > 6 else "")

    def tag(self, value: Any, *steps: Any) -> Any:
        """Return ``value``, found by taking ``steps`` from here, as plain JSON values and tags."""
        kind = type(value)
        if kind in _SCALARS and (kind is not int or -_HUGE < value < _HUGE):
            return value
        self._steps += steps
        result = (
            self._container(value)
            if isinstance(value, (dict, list, tuple, set, frozenset))
            else self._leaf(value)
        )
        if steps:
            del self._steps[-len(steps) :]
        return result

    def _container(self, value: Any) -> Any:
        if id(value) in self._open:
            raise EncodeError(f"{self.where()} contains itself")
        if len(self._open) >= MAX_NESTING:
            raise EncodeError(f"{self.where()} is nested more than {MAX_NESTING} levels deep")
        self._open.add(id(value))
        result: Any
        if isinstance(value, dict):
            result = self._dict(value)
        else:
            result = value if _plain(value) else [self.tag(each, at) for at, each in enumerate(value)]
            if isinstance(value, (set, frozenset)):  # sorted, so that equal sets have equal bytes
                kind = "set" if isinstance(value, set) else "frozenset"
                result = {_TAG: kind, "v": sorted(result, key=_dumps)}
            elif isinstance(value, tuple):
                result = {_TAG: "tuple", "v": result}
        self._open.discard(id(value))
        return result

    def _dict(self, value: dict[Any, Any]) -> Any:
        if set(map(type, value)) <= {str} and _TAG not in value:
            if _plain(value.values()):
                return value
            return {key: self.tag(each, key) for key, each in value.items()}
        return {_TAG: "dict", "v": [[self.tag(key), self.tag(each, key)] for key, each in value.items()]}

    def _leaf(self, value: Any) -> Any:
        if _is_a(value, "pandas", "NAType") or _is_a(value, "pandas", "NaTType"):
            return None
        for kind, tag, write in _LEAVES:
            if isinstance(value, kind):
                return {_TAG: tag, "v": write(value)} if tag else write(value)
        if _is_picture(value):
            image = _as_image(value, self.where())
            return {_TAG: "image", "v": base64.b64encode(image.data).decode()}
        if _is_frame(value):
            stream = b"".join(_frame_parts(value, self.where()))
            return {_TAG: "arrow", "v": base64.b64encode(stream).decode()}
        if _is_a(value, "numpy", "generic") and type(value.item()) is not type(value):
            return self.tag(value.item())
        raise EncodeError(f"{self.where()} is a {type(value).__name__}: {_POSSIBLE}{_advice(value)}")


def _write_int(value: int) -> Any:
    return int(value) if -_HUGE < value < _HUGE else {_TAG: "int", "v": hex(value)}


# Unbound methods: a subclass (an enum, pandas' Timestamp) may write itself otherwise.
_LEAVES: tuple[tuple[Any, str, Any], ...] = (
    (str, "", str.__str__),
    (int, "", _write_int),
    (float, "", float),
    ((bytes, bytearray, memoryview), "bytes", lambda value: base64.b64encode(value).decode()),
    (datetime.datetime, "datetime", datetime.datetime.isoformat),
    (datetime.date, "date", datetime.date.isoformat),
    (datetime.time, "time", datetime.time.isoformat),
    (decimal.Decimal, "decimal", str),
    (pathlib.PurePath, "path", str),
)


def _is_a(value: Any, package: str, name: str) -> bool:
    """Tell whether a class of that name from that package is among the value's, without importing it."""
    return any(
        each.__name__ == name and str(each.__module__).partition(".")[0] == package
        for each in type(value).__mro__
    )


def _is_frame(value: Any) -> bool:
    return _is_a(value, "pandas", "DataFrame")


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image) or _is_a(value, "PIL", "Image")


def _as_image(value: Any, name: str) -> Image:
    if isinstance(value, Image):
        return value
    png = io.BytesIO()
    try:
        value.save(png, format="PNG")
    except (OSError, ValueError) as error:
        raise EncodeError(f"{name} is an image that PNG can't hold: {_one_line(error)}") from error
    return Image(png.getvalue())


def _advice(value: Any) -> str:
    """Return what to do with an object that comes close, or nothing."""
    for method, advice in (
        ("to_frame", "to_frame()"),
        ("to_pandas", "to_pandas()"),
        ("tolist", "tolist()"),
        ("model_dump", "model_dump()"),
    ):
        if hasattr(type(value), method):
            return f" (its {advice} would do)"
    if hasattr(type(value), "__dataclass_fields__"):
        return " (dataclasses.asdict() would do)"
    return ""


def _step(key: Any) -> str:
    text = json.dumps(key[:40]) if isinstance(key, str) else type(key).__name__
    return str(key) if isinstance(key, int) and -_HUGE < key < _HUGE else text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- decoding -------------------------------------------------------------------------------------------


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
            raise DecodeError(f"no value in format {self._format}: {_one_line(error)}") from error
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
        raise DecodeError(f"no line in format {fmt}: {_one_line(error)}") from error
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
        raise DecodeError(f"no DataFrame in these bytes: {_one_line(error)}") from error


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
    if _TAG not in found:
        return found
    tag, value = found[_TAG], found.get("v")
    if len(found) != 2 or type(tag) is not str or tag not in _READERS:
        raise DecodeError(f"unknown tag {str(tag)[:40]!r}")
    kind, read = _READERS[tag]
    if type(value) is not kind:
        raise DecodeError(f"tag {tag} around a {type(value).__name__}")
    return read(value)


def _restore_frameless(found: dict[str, Any]) -> Any:
    if found.get(_TAG) == "arrow":
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
