"""How a value becomes bytes that travel, piece by piece; the forms are those of `formats`.

Invariant: what can't travel is refused by an `EncodeError` that says where in the value it is, and beside
the value itself there is never more than one element of it, and a few pieces, in memory.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import importlib
import io
import json
import pathlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from .formats import MAX_NESTING, PIECE_BYTES, TAG, reason
from .image import Image
from .lazy import LazyText

__all__ = ["EncodeError", "check", "encode", "format_of"]

_LINE_BYTES = 1024 * 1024
_BATCH = 256
# Far below the digit limit of int <-> str, which differs between Pythons and can be set.
_HUGE = 1 << 1000
_SCALARS = frozenset((str, int, float, bool, type(None)))
_POSSIBLE = (
    "a context is made of str, bytes, numbers, bool, None, list, tuple, set, dict, date and time, Decimal, "
    "Path, Image and pandas DataFrame"
)


class EncodeError(ValueError):
    """A value, or something inside it, that can't travel. The message says where it is."""


def format_of(value: Any, name: str = "context") -> str:
    """Return the format in which ``value`` would travel, by its type alone.

    Raises:
        EncodeError: no format takes a value of this type.
    """
    if isinstance(value, LazyText):
        return "text"
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
    if isinstance(value, LazyText):
        return fmt, value.pieces(piece_bytes)
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
        raise EncodeError(f"{name} is a DataFrame that Arrow can't hold: {reason(error)}") from error
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
                result = {TAG: kind, "v": sorted(result, key=_dumps)}
            elif isinstance(value, tuple):
                result = {TAG: "tuple", "v": result}
        self._open.discard(id(value))
        return result

    def _dict(self, value: dict[Any, Any]) -> Any:
        if set(map(type, value)) <= {str} and TAG not in value:
            if _plain(value.values()):
                return value
            return {key: self.tag(each, key) for key, each in value.items()}
        return {TAG: "dict", "v": [[self.tag(key), self.tag(each, key)] for key, each in value.items()]}

    def _leaf(self, value: Any) -> Any:
        if _is_a(value, "pandas", "NAType") or _is_a(value, "pandas", "NaTType"):
            return None
        for kind, tag, write in _LEAVES:
            if isinstance(value, kind):
                return {TAG: tag, "v": write(value)} if tag else write(value)
        if _is_picture(value):
            image = _as_image(value, self.where())
            return {TAG: "image", "v": base64.b64encode(image.data).decode()}
        if _is_frame(value):
            stream = b"".join(_frame_parts(value, self.where()))
            return {TAG: "arrow", "v": base64.b64encode(stream).decode()}
        if _is_a(value, "numpy", "generic") and type(value.item()) is not type(value):
            return self.tag(value.item())
        raise EncodeError(f"{self.where()} is a {type(value).__name__}: {_POSSIBLE}{_advice(value)}")


def _write_int(value: int) -> Any:
    return int(value) if -_HUGE < value < _HUGE else {TAG: "int", "v": hex(value)}


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
        raise EncodeError(f"{name} is an image that PNG can't hold: {reason(error)}") from error
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
