"""How files and folders on the host become values.

Invariant: nothing is left out or read otherwise than one would expect without a note that says so, and a
file that can't be read is an error that names it.
"""

from __future__ import annotations

import codecs
import difflib
import glob
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .documents.base import Limits, RefusedError
from .documents.reading import Gathering, Reading, kind_of
from .errors import ContextError
from .guest.decode import DecodeError, Decoder, decode_file
from .guest.formats import PIECE_BYTES
from .guest.image import Image, image_mime

__all__ = ["Loaded", "file_pieces", "listed", "read_path", "read_paths", "unreadable"]

_SKIPPED_FOLDERS = frozenset(("__pycache__", "node_modules"))
_HEAD = 8192
_LISTED_CHARS = 300


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files hold. ``notes`` are sentences on what was skipped or is not as one would expect.

    ``path`` says where it was read, ``reading`` what documents brought along. It can be given as a context.
    """

    value: Any
    notes: tuple[str, ...] = ()
    path: str | None = None
    reading: Reading = field(default_factory=Reading)


def read_path(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Loaded:
    """Read a file or a folder.

    A file with a NUL in its first 8 KiB is bytes; any other is text: UTF-8 (a byte order mark is dropped),
    and bytes that are not become lone surrogates (``surrogateescape``), so that nothing is lost. Images are
    an `Image`. Line ends stay as they are. PDF, Word, HTML and notebooks are their text; ``.parquet``,
    ``.feather`` and ``.arrow`` are DataFrames; a zip archive is like a folder (`rlm_kernel.documents`).

    A folder is a dict of relative path (with ``/``) -> text, sorted, of all texts and documents below it.
    Other files, hidden folders, ``__pycache__``, ``node_modules`` and links to folders are skipped, and the
    notes say so; documents that can't be read are refused by name.

    Raises:
        ContextError: missing, unreadable, empty, refused, or of a format whose reader is not installed.
    """
    return _read_all([(Path(path), False)], limits)


def read_paths(patterns: Sequence[str | Path], *, limits: Limits | None = None) -> Loaded:
    """Read files, folders, glob patterns (``**`` too) and ``-``, the standard input. A `Path` is no pattern.

    One file or folder in all is what `read_path` makes of it; several are a dict of path -> value. A pattern
    matches files as in a shell; those that are no text are skipped, where a named file is taken as it is.
    Standard input, and other pipes, are held as bytes and text at once while they are decoded.

    Raises:
        ContextError: as `read_path`; also a pattern that matches no file.
    """
    found: list[tuple[Path, bool]] = []
    for pattern in patterns:
        if isinstance(pattern, Path) or not glob.has_magic(pattern) or os.path.lexists(pattern):
            found.append((Path(pattern), False))
            continue
        matches = [Path(each) for each in glob.iglob(pattern, recursive=True) if os.path.isfile(each)]
        if not matches:
            raise ContextError(
                f"no file matches {pattern}", hint=f"patterns are relative to {os.getcwd()}; quote them"
            )
        found += ((each, True) for each in sorted(matches))
    return _read_all(list(dict.fromkeys(found)), limits)


def file_pieces(file: Path, piece_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a file, up to ``piece_bytes`` at a time."""
    with open(file, "rb", buffering=0) as opened:
        yield from iter(lambda: opened.read(piece_bytes), b"")


def listed(parts: Sequence[str]) -> str:
    """Return ``parts`` on one line, cut to 300 characters."""
    text = "; ".join(parts)
    return text if len(text) <= _LISTED_CHARS else text[: _LISTED_CHARS - 3] + "..."


def unreadable(path: str | Path, error: OSError) -> ContextError:
    """Return the error that says why the file or folder at ``path`` can't be read."""
    return ContextError(
        f"can't read {path}: {error.strerror or error}", hint="check its permissions, or leave it out"
    )


def _read_all(found: Sequence[tuple[Path, bool]], limits: Limits | None) -> Loaded:
    """Read each (path, whether it may be skipped)."""
    skips = _Skips(limits)
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
        elif (kind := _kind(path)) is not None:
            values.update(skips.documents.many(path.as_posix(), kind, partial(_bytes, path, skips)))
        else:
            values[path.as_posix()] = _read_one(path, skips)
    return _non_empty(None, values, skips)


def _non_empty(path: Path | None, value: Any, skips: _Skips) -> Loaded:
    reading = skips.documents.reading()
    if not isinstance(value, Image) and len(value) == 0:
        what = "the files given hold no text" if path is None else f"{path} is empty"
        if path is not None and os.path.isdir(path):
            what = f"no text files in {path}"
        told = [*([reading.refusals()] if reading.refused else []), *skips.notes()]
        raise ContextError(what, hint=listed(told) or "give a path with something in it")
    return Loaded(value, skips.notes(), None if path is None else str(path), reading)


class _Skips:
    """Counts what was left out, to say so in a few words."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.documents = Gathering(limits)
        self.folders: set[str] = set()
        self.binaries: list[str] = []
        self.links: list[str] = []
        self.others: list[str] = []

    def notes(self) -> tuple[str, ...]:
        """Return one sentence a kind."""
        found = []
        for names, what in (
            (self.binaries + self.documents.binaries, "not text, skipped"),
            (self.links, "links to folders, not followed"),
            (sorted(self.folders | self.documents.hidden), "folders skipped"),
        ):
            if names:
                more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
                found.append(f"{what}: {', '.join(names[:3])}{more}")
        return (*found, *self.others, *self.documents.notes)


def _walk(folder: Path, skips: _Skips) -> Iterator[Path]:
    """Yield the regular files below ``folder``, sorted, as paths that begin with it."""

    def fail(error: OSError) -> None:
        raise unreadable(error.filename or folder, error) from error

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
    texts: dict[str, Any] = {}
    for name, path in sorted(files.items()):
        try:
            with open(path, "rb", buffering=0) as file:
                head = file.read(_HEAD)
            kind = kind_of(path.name, head)
            if kind is not None:
                load = partial(_bytes, path, skips)
                texts.update(skips.documents.many(name.as_posix(), kind, load))
            elif b"\0" in head or image_mime(head):
                skips.binaries.append(name.as_posix())
            else:
                texts[name.as_posix()] = _read_text(path, skips)
        except OSError as error:
            raise unreadable(path, error) from error
    return texts


def _read_one(path: Path, skips: _Skips) -> Any:
    if str(path) == "-":
        return _from_bytes(sys.stdin.buffer.read(), "standard input", skips)
    try:
        with open(path, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe can be read once only
                return _from_bytes(file.read(), path.as_posix(), skips)
            head = file.read(_HEAD)
        kind = kind_of(path.name, head)
        if kind is not None:
            return skips.documents.one(kind, path.suffix.lower(), partial(_bytes, path, skips))
        if image_mime(head):
            return Image(path.read_bytes())
        if b"\0" in head:
            return _from_bytes(decode_file("bytes", path), path.as_posix(), skips)
        return _read_text(path, skips)
    except RefusedError as error:
        raise ContextError(
            f"{path} can't be read: {error}",
            hint=error.hint or "check the file, or leave it out",
        ) from error
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _from_bytes(data: bytes, name: str, skips: _Skips) -> Any:
    if image_mime(data):
        return Image(data)
    if b"\0" in data[:_HEAD]:
        skips.others.append(f"{name} is not text: it is given as bytes")
        return data
    return _decoded(data, name, skips)


def _read_text(path: Path, skips: _Skips) -> str:
    """Decode a file piece by piece, so that there is one copy of it only."""
    decoder = Decoder("text")
    try:
        for number, piece in enumerate(file_pieces(path, PIECE_BYTES)):
            decoder.feed(piece if number else piece.removeprefix(codecs.BOM_UTF8))
        return str(decoder.finish())
    except DecodeError:
        return _decoded(path.read_bytes(), path.as_posix(), skips)


def _decoded(data: bytes, name: str, skips: _Skips) -> str:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError:
        skips.others.append(f"{name} is not all UTF-8: its other bytes are lone surrogates")
        return data.decode("utf-8", "surrogateescape")


def _kind(path: Path) -> str | None:
    """Return the kind of document at ``path``; None for any other, for a pipe, and for what is missing."""
    try:
        if str(path) == "-" or not path.is_file():
            return None
        with open(path, "rb", buffering=0) as file:
            return kind_of(path.name, file.read(_HEAD))
    except OSError:
        return None


def _bytes(path: Path, skips: _Skips) -> bytes:
    """Return a whole document, unless it is too large."""
    try:
        skips.documents.allowance.check_file(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _missing(path: Path) -> ContextError:
    parent = path.parent
    if not os.path.isdir(parent):
        existing = next((each for each in parent.parents if os.path.isdir(each)), Path())
        hint = f"{existing.absolute()} exists, {parent} does not"
        return ContextError(f"no file or folder {path}", hint=hint)
    try:
        near = difflib.get_close_matches(path.name, os.listdir(parent), n=1, cutoff=0.5)
    except OSError:
        near = []
    hint = f"did you mean {parent / near[0]}?" if near else f"look into {parent.absolute()}"
    return ContextError(f"no file or folder {path}", hint=hint)
