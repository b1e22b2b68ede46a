"""What the user hands to a run: named values, and how files become values.

A `Context` holds its value by reference and encodes it piece by piece when a kernel asks (`codec`), so
that the host never has a second copy. Everything that can't travel is refused when a context is made,
before any token is spent.
"""

from __future__ import annotations

import builtins
import codecs
import difflib
import glob
import hashlib
import importlib
import json
import keyword
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import ContextError
from .events import ContextInfo
from .guest import codec
from .guest.codec import EncodeError, Image
from .guest.describe import describe

__all__ = ["RESERVED", "Context", "Loaded", "check_name", "collect", "read_path", "read_paths"]

_CALLS = ("llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched", "recursive_lm")
RESERVED = frozenset(
    (*_CALLS, *(f"a{name}" for name in _CALLS), "FINAL", "FINAL_VAR", "SHOW_VARS", "answer", "budget")
)
"""Names in the REPL that no context may take."""

_IPYTHON = frozenset(("In", "Out", "get_ipython", "exit", "quit", "display"))
_FRAMES = {".parquet": "read_parquet", ".feather": "read_feather", ".arrow": "read_feather"}
_SKIPPED_FOLDERS = frozenset(("__pycache__", "node_modules"))
_HEAD = 8192
_TEXT_DEPTH = 2
_SPOOLED_LINE = 8 * 1024 * 1024
_SPOOLED_TEXTS = 256 * 1024 * 1024
_NOTE_CHARS = 300
_DESCRIPTION_CHARS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One context: its name in the REPL and its value, or the file with its encoded bytes.

    Made by `of` or `spooled`. ``format`` is one of `codec.FORMATS`. ``file`` is where the encoded bytes lie
    if they came from a kernel. ``path`` says where the value was read from, ``notes`` what was left out.
    """

    name: str
    format: str
    file: Path | None = None
    path: str | None = None
    notes: tuple[str, ...] = ()
    _value: Any = field(default=None, repr=False)
    _memo: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, name: str, value: Any, *, path: str | None = None, notes: Sequence[str] = ()) -> Context:
        """Make a context of a value, which is kept by reference.

        Raises:
            ContextError: a name that can't be used, an empty value, or one that can't be sent to a kernel.
        """
        check_name(name)
        if _is_empty(value):
            origin = f" ({path})" if path else ""
            raise ContextError(
                f"{name}{origin} is empty: {_short_repr(value)}",
                hint="give a context with something in it, or ask without one",
            )
        try:
            codec.check(value, name)
            format_ = codec.format_of(value, name)
        except EncodeError as error:
            hint = "turn it into one of these types first"
            if "not installed" in str(error):
                hint = "pip install 'rlm-kernel[data]'"
            raise ContextError(str(error), hint=hint) from error
        return cls(name, format_, path=path, notes=tuple(notes), _value=value)

    @classmethod
    def spooled(cls, name: str, format: str, path: Path, info: ContextInfo) -> Context:  # noqa: A002
        """Make a context of encoded bytes that came from a kernel, in a file which it owns from now on.

        ``info`` is the kernel's own description: it is shown, cut, and never relied upon.

        Raises:
            ContextError: an unknown format.
        """
        if format not in codec.FORMATS:
            raise ContextError(
                f"a context in unknown format {format[:40]!r}", hint=f"known: {', '.join(codec.FORMATS)}"
            )
        described = replace(
            info, name=name, description=info.description[:_DESCRIPTION_CHARS], sha256=None, path=None
        )
        return cls(name, format, file=path, _memo={"info": described})

    @property
    def value(self) -> Any:
        """The value itself; decoded anew at each access where the bytes came from a kernel.

        Raises:
            ContextError: those bytes are no value, or hold a DataFrame, which only kernels decode (see
                `codec.Decoder`), or the file is gone.
        """
        if self.file is None:
            return self._value
        try:
            return codec.decode_file(self.format, self.file, frames=False)
        except codec.DecodeError as error:
            raise ContextError(
                f"{self.name} came from a kernel and can't be read: {error}", hint="send it as text"
            ) from error
        except OSError as error:
            raise _unreadable(self.file, error) from error

    @property
    def size_bytes(self) -> int | None:
        """The number of encoded bytes, where it is known without encoding, else None."""
        if self.file is not None:
            try:
                return self.file.stat().st_size
            except OSError:
                return None
        if self.format == "bytes":
            return memoryview(self._value).nbytes
        return len(self._value) if self.format == "text" and self._value.isascii() else None

    @property
    def sha256(self) -> str | None:
        """The digest of the encoded bytes, in hexadecimal; None until `pieces` was read to its end."""
        digest: str | None = self._memo.get("sha256")
        return digest

    def digest(self) -> str:
        """Return `sha256`, encoding everything once if that has not happened yet."""
        if self.sha256 is None:
            for _ in self.pieces():
                pass
        return str(self.sha256)

    def info(self) -> ContextInfo:
        """Return the context as the root model is told of it; the value is looked at once only."""
        if "info" not in self._memo:
            found = describe(self._value, self.name)
            if self.notes:
                found["description"] += f"\nNot everything is in it: {_joined(self.notes)}"
            self._memo["info"] = ContextInfo(name=self.name, path=self.path, **found)
        info: ContextInfo = self._memo["info"]
        return replace(info, sha256=self.sha256)

    def pieces(self, piece_bytes: int = codec.PIECE_BYTES) -> Iterator[bytes]:
        """Yield the encoded bytes, made as they are asked for: a caller may wait between two pieces.

        Raises:
            ContextError: the value was changed into something that can't travel, or the file is gone.
        """
        digest = hashlib.sha256()
        try:
            source = (
                codec.encode(self._value, piece_bytes, self.name)[1]
                if self.file is None
                else _file_pieces(self.file, piece_bytes)
            )
            for piece in source:
                digest.update(piece)
                yield piece
        except EncodeError as error:
            raise ContextError(str(error), hint="leave the context alone while a run uses it") from error
        except OSError as error:
            raise _unreadable(self.file or self.name, error) from error
        self._memo["sha256"] = digest.hexdigest()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (where, text) for the context itself, or the texts up to two levels inside it.

        Bytes from a kernel may be hostile: they are read if they are at most 256 MiB, up to the first line
        of a list or dict that is malformed or longer than 8 MiB.
        """
        if self.file is None:
            yield from _texts(self._value, "", _TEXT_DEPTH)
            return
        try:
            if self.format in ("text", "list", "dict") and self.file.stat().st_size <= _SPOOLED_TEXTS:
                yield from _spooled_texts(self.format, self.file)
        except (OSError, codec.DecodeError):
            return

    def release(self) -> None:
        """Delete the file that `spooled` was given. Safe to call twice; a value is only let go."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Refuse a name that a variable of the REPL can't have.

    Raises:
        ContextError: no identifier, a keyword, a private name, or one that has a meaning there.
    """
    hint = "choose another name, such as `old` or `report`"
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ContextError(f"{name!r} can't be the name of a context: it is no Python identifier", hint=hint)
    if name in RESERVED or name in _IPYTHON or name.startswith("_") or hasattr(builtins, name):
        raise ContextError(
            f"{name!r} can't be the name of a context: it has a meaning in the REPL", hint=hint
        )


def collect(context: Any = None, contexts: Mapping[str, Any] | None = None) -> tuple[Context, ...]:
    """Return the contexts that a user passed: one, named ``context``, and any number by name.

    A `pathlib.Path`, or a list of them, stands for what it holds; None for no context.

    Raises:
        ContextError: anything about them that can't be used.
    """
    named = [] if context is None else [("context", context)]
    if contexts is not None:
        if not isinstance(contexts, Mapping):
            raise ContextError(
                f"contexts must be a dict of name -> value, not a {type(contexts).__name__}",
                hint="pass a single one as context=",
            )
        named += contexts.items()
    if len(named) > 1 and [name for name, _ in named].count("context") > 1:
        raise ContextError("two contexts are called 'context'", hint="give the one in contexts= another name")
    return tuple(_collected(name, value) for name, value in named)


def _collected(name: str, value: Any) -> Context:
    check_name(name)
    if isinstance(value, Path):
        loaded = read_path(value)
        return Context.of(name, loaded.value, path=str(value), notes=loaded.notes)
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, Path) for each in value):
        loaded = _read_all([(each, False) for each in value])
        return Context.of(name, loaded.value, path=_joined([str(each) for each in value]), notes=loaded.notes)
    return Context.of(name, value)


# --- texts inside a value -------------------------------------------------------------------------------


def _texts(value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif depth and isinstance(value, (dict, list, tuple)):
        for step, each in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(each, (str, dict, list, tuple)):
                yield from _texts(each, f"{where}[{_step(step)}]", depth - 1)


def _step(key: Any) -> str:
    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else _short_repr(key)


def _spooled_texts(format_: str, file: Path) -> Iterator[tuple[str, str]]:
    if format_ == "text":
        yield "", codec.decode_file("text", file)
        return
    lines = codec.Lines()
    count = 0
    for piece in _file_pieces(file, codec.PIECE_BYTES):
        for line in lines.feed(piece):
            if len(line) > _SPOOLED_LINE:
                return
            found = codec.decode_line(format_, line, frames=False)
            if isinstance(found, int):
                return
            for step, each in found if format_ == "dict" else enumerate(found, count):
                yield from _texts(each, f"[{_step(step)}]", _TEXT_DEPTH - 1)
            count += len(found)


def _file_pieces(file: Path, piece_bytes: int) -> Iterator[bytes]:
    with open(file, "rb", buffering=0) as opened:
        yield from iter(lambda: opened.read(piece_bytes), b"")


# --- files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files hold. ``notes`` are sentences on what was skipped or is not as one would expect."""

    value: Any
    notes: tuple[str, ...] = ()


def read_path(path: str | os.PathLike[str]) -> Loaded:
    """Read a file or a folder.

    A file with a NUL in its first 8 KiB is bytes; any other is text: UTF-8 (a byte order mark is dropped),
    and bytes that are not become lone surrogates (``surrogateescape``), so that nothing is lost. Images are
    an `Image`; ``.parquet``, ``.feather`` and ``.arrow`` are DataFrames. Line ends stay as they are.

    A folder is a dict of relative path (with ``/``) -> text, sorted, of all text files below it. Other files,
    hidden folders, ``__pycache__``, ``node_modules`` and links to folders are skipped, and the notes say so.

    Raises:
        ContextError: missing, unreadable, empty, or of a format whose reader is not installed.
    """
    return _read_all([(Path(path), False)])


def read_paths(patterns: Sequence[str]) -> Loaded:
    """Read files, folders, glob patterns (``**`` too) and ``-``, the standard input.

    One file or folder in all is what `read_path` makes of it; several are a dict of path -> value. A pattern
    matches files as in a shell; those that are no text are skipped, where a named file is taken as it is.
    Standard input, and other pipes, are held as bytes and text at once while they are decoded.

    Raises:
        ContextError: as `read_path`; also a pattern that matches no file.
    """
    found: list[tuple[Path, bool]] = []
    for pattern in patterns:
        if pattern == "-" or not glob.has_magic(pattern) or os.path.lexists(pattern):
            found.append((Path(pattern), False))
            continue
        matches = [Path(each) for each in glob.iglob(pattern, recursive=True) if os.path.isfile(each)]
        if not matches:
            raise ContextError(
                f"no file matches {pattern}", hint=f"patterns are relative to {os.getcwd()}; quote them"
            )
        found += ((each, True) for each in sorted(matches))
    return _read_all(list(dict.fromkeys(found)))


def _read_all(found: Sequence[tuple[Path, bool]]) -> Loaded:
    """Read each (path, whether it may be skipped)."""
    skips = _Skips()
    if len(found) == 1:
        path, _ = found[0]
        if os.path.isdir(path):
            files = {each.relative_to(path): each for each in _walk(path, skips)}
            return _non_empty(path, _read_many(files, skips), skips)
        return _non_empty(path, _read_one(path, skips), skips)
    values: dict[str, Any] = {}
    for path, skippable in found:
        if os.path.isdir(path):
            values.update(_read_many({each: each for each in _walk(path, skips)}, skips))
        elif skippable:
            values.update(_read_many({path: path}, skips))
        else:
            values[path.as_posix()] = _read_one(path, skips)
    return _non_empty(None, values, skips)


def _non_empty(path: Path | None, value: Any, skips: _Skips) -> Loaded:
    if _is_empty(value):
        what = "the files given hold no text" if path is None else f"{path} is empty"
        if path is not None and os.path.isdir(path):
            what = f"no text files in {path}"
        raise ContextError(what, hint=_joined(skips.notes()) or "give a path with something in it")
    return Loaded(value, skips.notes())


class _Skips:
    """Counts what was left out, to say so in a few words."""

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self.binaries: list[str] = []
        self.links: list[str] = []
        self.others: list[str] = []

    def notes(self) -> tuple[str, ...]:
        """Return one sentence a kind."""
        found = []
        for names, what in (
            (self.binaries, "not text, skipped"),
            (self.links, "links to folders, not followed"),
            (sorted(self.folders), "folders skipped"),
        ):
            if names:
                more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
                found.append(f"{what}: {', '.join(names[:3])}{more}")
        return (*found, *self.others)


def _walk(folder: Path, skips: _Skips) -> Iterator[Path]:
    """Yield the regular files below ``folder``, sorted, as paths that begin with it."""

    def fail(error: OSError) -> None:
        raise _unreadable(error.filename or folder, error) from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        kept = []
        for name in sorted(folders):
            if name.startswith(".") or name in _SKIPPED_FOLDERS:
                skips.folders.add(name)
            elif os.path.islink(os.path.join(parent, name)):
                skips.links.append(Path(parent, name).relative_to(folder).as_posix())
            else:
                kept.append(name)
        folders[:] = kept
        yield from (
            Path(parent, name) for name in sorted(files) if os.path.isfile(os.path.join(parent, name))
        )


def _read_many(files: Mapping[Path, Path], skips: _Skips) -> dict[str, str]:
    """Read the text files among ``files``, by the name each is to have."""
    texts = {}
    for name, path in sorted(files.items()):
        try:
            with open(path, "rb", buffering=0) as file:
                head = file.read(_HEAD)
            if b"\0" in head or codec.image_mime(head):
                skips.binaries.append(name.as_posix())
            else:
                texts[name.as_posix()] = _read_text(path, skips)
        except OSError as error:
            raise _unreadable(path, error) from error
    return texts


def _read_one(path: Path, skips: _Skips) -> Any:
    if str(path) == "-":
        return _from_bytes(sys.stdin.buffer.read(), "standard input", skips)
    reader = _FRAMES.get(path.suffix.lower())
    try:
        with open(path, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe can be read once only
                return _from_bytes(file.read(), path.as_posix(), skips)
            head = file.read(_HEAD)
        if reader is not None:
            return _read_frame(path, reader)
        if codec.image_mime(head):
            return Image(path.read_bytes())
        if b"\0" in head:
            return _from_bytes(codec.decode_file("bytes", path), path.as_posix(), skips)
        return _read_text(path, skips)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _from_bytes(data: bytes, name: str, skips: _Skips) -> Any:
    if codec.image_mime(data):
        return Image(data)
    if b"\0" in data[:_HEAD]:
        skips.others.append(f"{name} is not text: it is given as bytes")
        return data
    return _decoded(data, name, skips)


def _read_text(path: Path, skips: _Skips) -> str:
    """Decode a file piece by piece, so that there is one copy of it only."""
    decoder = codec.Decoder("text")
    try:
        for number, piece in enumerate(_file_pieces(path, codec.PIECE_BYTES)):
            decoder.feed(piece if number else piece.removeprefix(codecs.BOM_UTF8))
        return str(decoder.finish())
    except codec.DecodeError:
        return _decoded(path.read_bytes(), path.as_posix(), skips)


def _decoded(data: bytes, name: str, skips: _Skips) -> str:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError:
        skips.others.append(f"{name} is not all UTF-8: its other bytes are lone surrogates")
        return data.decode("utf-8", "surrogateescape")


def _read_frame(path: Path, reader: str) -> Any:
    try:
        importlib.import_module("pyarrow")
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ContextError(
            f"{path} needs pandas and pyarrow: {error}", hint="pip install 'rlm-kernel[data]'"
        ) from error
    try:
        return getattr(pandas, reader)(path)
    except OSError:
        raise
    except Exception as error:
        raise ContextError(
            f"{path} can't be read as a DataFrame: {_short_repr(error)}",
            hint="check that the file is whole, or rename it to have it read as bytes",
        ) from error


def _missing(path: Path) -> ContextError:
    parent = path.parent
    if not os.path.isdir(parent):
        existing = next((each for each in parent.parents if os.path.isdir(each)), Path())
        return ContextError(f"there is no {path}", hint=f"{existing.absolute()} exists, {parent} does not")
    try:
        near = difflib.get_close_matches(path.name, os.listdir(parent), n=1, cutoff=0.5)
    except OSError:
        near = []
    hint = f"did you mean {parent / near[0]}?" if near else f"look into {parent.absolute()}"
    return ContextError(f"there is no {path}", hint=hint)


def _unreadable(path: str | Path, error: OSError) -> ContextError:
    return ContextError(
        f"can't read {path}: {error.strerror or error}", hint="check its permissions, or leave it out"
    )


def _is_empty(value: Any) -> bool:
    if value is None:
        return True
    sized = isinstance(value, (str, bytes, bytearray, memoryview, list, dict, tuple, set, frozenset))
    return (sized or type(value).__name__ == "DataFrame") and len(value) == 0


def _joined(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text if len(text) <= _NOTE_CHARS else text[: _NOTE_CHARS - 3] + "..."


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
