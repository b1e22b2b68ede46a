"""What the user hands to a run: named values.

A `Context` holds its value by reference and encodes it piece by piece when a kernel asks, so that the host
never has a second copy. Everything that can't travel is refused when a context is made, before any token is
spent.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import keyword
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .documents.reading import Reading
from .errors import ContextError
from .events import ContextInfo
from .files import Loaded, file_pieces, listed, read_path, read_paths, unreadable
from .guest import decode, encode
from .guest.describe import describe
from .guest.formats import FORMATS, PIECE_BYTES
from .guest.lazy import USE as VIEW_USE

__all__ = ["RESERVED", "Context", "check_name", "collect", "reads_files"]

_CALLS = ("llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched", "recursive_lm")
RESERVED = frozenset(
    (*_CALLS, *(f"a{name}" for name in _CALLS), "FINAL", "FINAL_VAR", "SHOW_VARS", "answer", "budget")
)
"""Names in the REPL that no context may take."""

_IPYTHON = frozenset(("In", "Out", "get_ipython", "exit", "quit", "display"))
_TEXT_DEPTH = 2
_SPOOLED_LINE = 8 * 1024 * 1024
_SPOOLED_TEXTS = 256 * 1024 * 1024
_DESCRIPTION_CHARS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One context: its name in the REPL and its value, or the file with its encoded bytes.

    Made by `of`, `live` or `spooled`. ``format`` is one of `FORMATS`, or ``live``. ``file`` is where the
    encoded bytes lie if they came from a kernel, or `spool` put them there. ``path`` says where the value was
    read from, ``notes`` what was left out. ``lazy`` is whether kernels get a view of it, see
    `rlm_kernel.guest.lazy`. ``reading`` tells of documents among its files.
    """

    name: str
    format: str
    file: Path | None = None
    path: str | None = None
    notes: tuple[str, ...] = ()
    lazy: bool = False
    reading: Reading = field(default_factory=Reading, repr=False)
    _value: Any = field(default=None, repr=False)
    _memo: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        value: Any,
        *,
        path: str | None = None,
        notes: Sequence[str] = (),
        reading: Reading | None = None,
    ) -> Context:
        """Make a context of a value, which is kept by reference.

        Raises:
            ContextError: a name that can't be used, an empty value, or one that can't be sent to a kernel.
        """
        check_name(name)
        _check_not_empty(name, value, path)
        try:
            encode.check(value, name)
            format_ = encode.format_of(value, name)
        except encode.EncodeError as error:
            hint = "turn it into one of these types first"
            if "not installed" in str(error):
                hint = "pip install 'rlm-kernel[data]'"
            raise ContextError(str(error), hint=hint) from error
        return cls(name, format_, path=path, notes=tuple(notes), reading=reading or Reading(), _value=value)

    @classmethod
    def live(
        cls,
        name: str,
        value: Any,
        *,
        path: str | None = None,
        notes: Sequence[str] = (),
        reading: Reading | None = None,
    ) -> Context:
        """Make a context of any value, for a REPL in this process, which is handed the value itself.

        Raises:
            ContextError: a name that can't be used, or an empty value.
        """
        check_name(name)
        _check_not_empty(name, value, path)
        return cls(name, "live", path=path, notes=tuple(notes), reading=reading or Reading(), _value=value)

    @classmethod
    def spooled(cls, name: str, format: str, path: Path, info: ContextInfo) -> Context:  # noqa: A002
        """Make a context of encoded bytes that came from a kernel, in a file which it owns from now on.

        ``info`` is the kernel's own description: it is shown, cut, and never relied upon.

        Raises:
            ContextError: an unknown format.
        """
        if format not in FORMATS:
            raise ContextError(
                f"a context in unknown format {format[:40]!r}", hint=f"known: {', '.join(FORMATS)}"
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
                `decode.Decoder`), or the file is gone.
        """
        if self.file is None:
            return self._value
        try:
            return decode.decode_file(self.format, self.file, frames=False)
        except decode.DecodeError as error:
            raise ContextError(
                f"{self.name} came from a kernel and can't be read: {error}", hint="send it as text"
            ) from error
        except OSError as error:
            raise unreadable(self.file, error) from error

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

    def renamed(self, name: str) -> Context:
        """Return the same context under another name.

        Raises:
            ContextError: see `check_name`.
        """
        check_name(name)
        info = self.info()
        described = info.description
        if described.startswith(f"{self.name}: "):
            described = name + described[len(self.name) :]
        memo = {**self._memo, "info": replace(info, name=name, description=described)}
        return replace(self, name=name, _memo=memo)

    def lazy_above(self, size: int | None) -> Context:
        """Return the context, to be loaded as a lazy view if it is a text of more than ``size`` bytes."""
        if size is None or self.lazy or self.format != "text":
            return self
        length = self.size_bytes
        # Without being encoded, a text has one byte a character at least.
        if (length if length is not None else len(self._value)) <= size:
            return self
        info = self.info()
        about = info.description.removeprefix(f"{self.name}: ")
        described = f"{self.name}: LazyText, a view of a text that is not loaded: {about}\n{VIEW_USE}"
        memo = {**self._memo, "info": replace(info, type="LazyText", description=described)}
        return replace(self, lazy=True, _memo=memo)

    def info(self) -> ContextInfo:
        """Return the context as the root model is told of it; the value is looked at once only."""
        if "info" not in self._memo:
            found = describe(self._value, self.name)
            if self.notes:
                found["description"] += f"\nNot everything is in it: {listed(self.notes)}"
            told = (*self.reading.legend, *filter(None, [self.reading.refusals()]))
            found["description"] = "\n".join([found["description"], *told])
            self._memo["info"] = ContextInfo(name=self.name, path=self.path, **found)
        info: ContextInfo = self._memo["info"]
        return replace(info, sha256=self.sha256)

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield the encoded bytes, made as they are asked for: a caller may wait between two pieces.

        Raises:
            ContextError: the value was changed into something that can't travel, or the file is gone.
        """
        digest = hashlib.sha256()
        try:
            source = (
                encode.encode(self._value, piece_bytes, self.name)[1]
                if self.file is None
                else file_pieces(self.file, piece_bytes)
            )
            for piece in source:
                digest.update(piece)
                yield piece
        except encode.EncodeError as error:
            raise ContextError(str(error), hint="leave the context alone while a run uses it") from error
        except OSError as error:
            raise unreadable(self.file or self.name, error) from error
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
        except (OSError, decode.DecodeError):
            return

    def spool(self, path: Path) -> Context:
        """Return the same context, its encoded bytes in a new file at ``path`` that only this user can read.

        Raises:
            ContextError: the file can't be written, or the value can't be read any more.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.writelines(self.pieces())
        except OSError as error:
            raise ContextError(
                f"{self.name} can't be kept in {path}: {error.strerror}", hint="is there room for it?"
            ) from None
        memo = {"info": self.info(), "sha256": self.sha256}
        return replace(self, file=path, _value=None, _memo=memo)

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


def collect(
    context: Any = None, contexts: Mapping[str, Any] | None = None, *, live: bool = False
) -> tuple[Context, ...]:
    """Return the contexts that a user passed: one, named ``context``, and any number by name.

    A `pathlib.Path`, or a list of them, stands for what it holds, and so does a `rlm_kernel.files.Loaded`;
    None for no context. Images of documents become a context of their own, NAME_images. With ``live`` any
    other object is one as well, see `Context.live`.

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
    return _all(named, Context.live if live else Context.of)


def reads_files(context: Any = None, contexts: Mapping[str, Any] | None = None) -> bool:
    """Tell whether `collect` would read files for these, which may take its time."""
    values = [context, *(contexts.values() if isinstance(contexts, Mapping) else ())]
    return any(
        isinstance(each, Path) or (isinstance(each, (list, tuple)) and each and isinstance(each[0], Path))
        for each in values
    )


def _all(named: Sequence[tuple[str, Any]], make: Callable[..., Context]) -> tuple[Context, ...]:
    collected = [_collected(name, value, make) for name, value in named]
    taken = {name for name, _ in named}
    return (*collected, *(images for each in collected for images in _images(each, taken, make)))


def _collected(name: str, value: Any, make: Callable[..., Context]) -> Context:
    check_name(name)
    path = None
    if isinstance(value, Path):
        value, path = read_path(value), str(value)
    elif isinstance(value, (list, tuple)) and value and all(isinstance(each, Path) for each in value):
        value, path = read_paths(value), listed([str(each) for each in value])
    if isinstance(value, Loaded):
        return make(name, value.value, path=path or value.path, notes=value.notes, reading=value.reading)
    return make(name, value)


def _images(context: Context, taken: set[str], make: Callable[..., Context]) -> Iterator[Context]:
    """Yield the images that stood in a context's documents, as a context under a name of its own."""
    if context.reading.images:
        name = f"{context.name}_images"
        while name in taken:
            name += "_"
        taken.add(name)
        yield make(name, dict(context.reading.images), path=context.path)


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
        yield "", decode.decode_file("text", file)
        return
    lines = decode.Lines()
    count = 0
    for piece in file_pieces(file, PIECE_BYTES):
        for line in lines.feed(piece):
            if len(line) > _SPOOLED_LINE:
                return
            found = decode.decode_line(format_, line, frames=False)
            if isinstance(found, int):
                return
            for step, each in found if format_ == "dict" else enumerate(found, count):
                yield from _texts(each, f"[{_step(step)}]", _TEXT_DEPTH - 1)
            count += len(found)


def _check_not_empty(name: str, value: Any, path: str | None) -> None:
    if _is_empty(value):
        origin = f" ({path})" if path else ""
        raise ContextError(
            f"{name}{origin} is empty: {_short_repr(value)}",
            hint="give a context with something in it, or ask without one",
        )


def _is_empty(value: Any) -> bool:
    if value is None:
        return True
    sized = isinstance(value, (str, bytes, bytearray, memoryview, list, dict, tuple, set, frozenset))
    return (sized or type(value).__name__ == "DataFrame") and len(value) == 0


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
