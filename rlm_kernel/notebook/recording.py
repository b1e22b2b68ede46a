"""What a notebook needs to run again without a model: its contexts, and the replies to its cells' calls.

Prompts are kept as hashes only. A recording travels as text in the notebook's first code cell or, from a size
on, as a file beside the notebook; contexts likewise.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..context import Context, collect
from ..errors import ContextError, InputError
from ..events import ContextInfo
from ..trace.jsonl import prompt_sha256
from .transcript import CallPart, CellPart, RunPart

__all__ = ["EMBED_BYTES", "Recording", "code_sha256", "make"]

VERSION = 1
EMBED_BYTES = 64 * 1024
_MAX_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class RecordedContext:
    """Where a context is to be had, and how it is known.

    ``format`` and ``sha256`` are those of `rlm_kernel.context.Context`; ``data`` holds the encoded bytes,
    compressed, as base64, ``file`` names a file beside the notebook with them, compressed, and ``path`` is
    what it was read from. ``missing`` says why there may be none of these.
    """

    name: str
    type: str
    lazy: bool = False
    format: str = ""
    sha256: str = ""
    data: str = ""
    file: str = ""
    path: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call of a cell: what was asked, as a hash, and the reply or the failure."""

    kind: str
    sha256: str
    model: str = ""
    tool: str = ""
    text: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedCell:
    """A cell: where it stood, its code as a hash, its calls in the order in which they were made."""

    turn: int
    block: int
    code: str
    calls: tuple[RecordedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """What is recorded of a run. ``answer`` is its text if code gave it, else None."""

    question: str
    models: tuple[str, ...]
    max_depth: int
    contexts: tuple[RecordedContext, ...] = ()
    cells: tuple[RecordedCell, ...] = ()
    answer: str | None = None
    version: int = field(default=VERSION)

    def pack(self) -> bytes:
        """Return it as compressed JSON."""
        return zlib.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), 9)

    @classmethod
    def unpack(cls, data: bytes) -> Recording:
        """Return what `pack` packed.

        Raises:
            InputError: it was not this, or another version's.
        """
        try:
            found = json.loads(inflated(data))
            version = found.get("version")
            if version != VERSION:
                raise InputError(
                    f"a recording of version {version!r}; this package reads version {VERSION}",
                    hint="export the run again",
                )
            contexts = tuple(RecordedContext(**each) for each in found.pop("contexts"))
            cells = tuple(
                RecordedCell(**{**each, "calls": tuple(RecordedCall(**call) for call in each["calls"])})
                for each in found.pop("cells")
            )
            found["models"] = tuple(found["models"])
            return cls(**found, contexts=contexts, cells=cells)
        except (zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"the recording can't be read: {type(error).__name__}: {error}", hint="export the run again"
            ) from None

    @classmethod
    def read(cls, text: str) -> Recording:
        """Return what was packed and is written as base64.

        Raises:
            InputError: see `unpack`.
        """
        try:
            data = base64.b64decode(text)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"the recording can't be read: {error}", hint="export the run again") from None
        return cls.unpack(data)


def inflated(data: bytes) -> bytes:
    """Return what ``data`` is compressed from, if that has at most 2 GiB.

    Raises:
        zlib.error: it is broken, or larger.
    """
    reader = zlib.decompressobj()
    found = reader.decompress(data, _MAX_BYTES)
    if not reader.eof:
        raise zlib.error("it is cut, or too large")
    return found


def code_sha256(code: str) -> str:
    """Return the hash by which a cell is known."""
    return sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def make(
    run: RunPart,
    target: Path,
    *,
    prompts: Mapping[str, str],
    contexts: Any,
    redact: Callable[[str], str],
) -> Recording:
    """Return the recording of ``run`` for a notebook at ``target``; writes contexts beside it.

    ``contexts`` are values that may be the run's, by name or in a row; ``prompts`` hashes of calls that are
    known.
    """
    given = [*_given(run), *_values(contexts)]
    started, finished = run.started, run.finished
    models = [started.model, started.sub_model]
    cells = []
    for cell in replayed(run):
        calls = [_call(call, prompts, redact) for call in cell.calls if call.finished is not None]
        models += [call.model for call in calls if call.model]
        code = code_sha256(redact(cell.started.code))
        cells.append(RecordedCell(cell.started.turn, cell.started.block, code, tuple(calls)))
    by_code = finished is not None and finished.status == "answered" and _ends_with_code(run)
    return Recording(
        question=redact(started.query),
        models=tuple(dict.fromkeys(filter(None, models))),
        max_depth=int(started.limits.get("max_depth") or 1),
        contexts=tuple(_context(info, run, given, target, redact) for info in started.contexts),
        cells=tuple(cells),
        answer=redact(finished.text) if by_code and finished is not None else None,
    )


def replayed(run: RunPart) -> Iterator[CellPart]:
    """Yield the cells that can run again: those that came to an end by themselves."""
    for cell in run.cells:
        if cell.finished is not None and cell.finished.status in ("ok", "error"):
            yield cell


def _ends_with_code(run: RunPart) -> bool:
    return bool(run.turns) and any(isinstance(part, CellPart) for part in run.turns[-1].parts)


def _call(call: CallPart, prompts: Mapping[str, str], redact: Callable[[str], str]) -> RecordedCall:
    started, finished = call.started, call.finished
    assert finished is not None
    return RecordedCall(
        kind=started.kind,
        sha256=prompts.get(started.call) or prompt_sha256(started.messages),
        model=started.model,
        tool=started.tool,
        text=redact(finished.text),
        error=None if finished.error is None else redact(finished.error),
    )


# --- contexts -------------------------------------------------------------------------------------------


def _given(run: RunPart) -> list[Context]:
    return [each for each in run.started.sources if isinstance(each, Context)]


def _values(contexts: Any) -> Iterator[Context]:
    named = contexts.items() if isinstance(contexts, Mapping) else [("context", each) for each in contexts]
    for name, value in named:
        try:
            yield from [value] if isinstance(value, Context) else collect(contexts={name: value}, live=True)
        except ContextError:
            continue


def _context(
    info: ContextInfo, run: RunPart, given: Sequence[Context], target: Path, redact: Callable[[str], str]
) -> RecordedContext:
    """Say where the context is to be had, writing it beside the notebook if it is large and not in a file."""
    kept = RecordedContext(redact(info.name), redact(info.type), lazy=info.type == "LazyText")
    expected = info.sha256 or run.digests.get(info.name, "")
    found = _find(info, expected, given)
    if found is None and info.path and _exists(info.path):
        found = _find(info, expected, list(_values({info.name: Path(info.path)})))
    if found is None:
        why = "it was not at hand when the notebook was written" if expected else f"it was a live {info.type}"
        return _with(kept, sha256=expected, path=_beside(info.path, target), missing=why)
    known = _with(kept, format=found.format, sha256=found.digest(), path=_beside(found.path, target))
    packed, secret = _packed(found, redact)
    if secret:
        return _with(known, missing="it holds what looks like a key, and is not kept")
    if len(packed) <= EMBED_BYTES:
        return _with(known, data=base64.b64encode(packed).decode("ascii"))
    if known.path:
        return known
    file = f"{target.stem}.{info.name}.gz"
    write_private(target.parent / file, gzip.compress(zlib.decompress(packed), 6, mtime=0))
    return _with(known, file=file)


def _find(info: ContextInfo, expected: str, given: Sequence[Context]) -> Context | None:
    for each in given:
        if not expected and each.name != info.name:
            continue
        try:
            made = Context.of(info.name, each.value, path=each.path) if each.format == "live" else each
            if made.digest() == expected if expected else made.renamed(info.name).info().size == info.size:
                return made
        except ContextError:
            continue
    return None


def _packed(context: Context, redact: Callable[[str], str]) -> tuple[bytes, bool]:
    """Return the encoded bytes, compressed, and whether something in them had to be taken out."""
    packer = zlib.compressobj(6)
    parts, tail, secret = [], "", False
    for piece in context.pieces():
        parts.append(packer.compress(piece))
        text = tail + piece.decode("utf-8", "replace")
        secret = secret or redact(text) != text
        tail = text[-1000:]
    return b"".join([*parts, packer.flush()]), secret


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _beside(path: str | None, target: Path) -> str:
    """Return the path as seen from the notebook's folder, if there is something."""
    if not path or not _exists(path):
        return ""
    try:
        return Path(os.path.relpath(path, target.parent)).as_posix()
    except ValueError:  # another drive
        return Path(path).absolute().as_posix()


def _with(context: RecordedContext, **values: Any) -> RecordedContext:
    return RecordedContext(**{**asdict(context), **values})


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    path.chmod(0o600)
