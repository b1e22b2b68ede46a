"""The texts of a context, one by one, for quotes to be looked for in them.

Texts in memory are handed on as they are; encoded ones in a file are decoded piece by piece. Unlike
`rlm_kernel.context.Context.texts` this goes to any depth, and into the text cells of a DataFrame.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .context import Context
from .documents.base import Places
from .evidence import Passage
from .files import file_pieces
from .guest import decode
from .guest.formats import PIECE_BYTES

__all__ = ["passages"]

_MAX_LINE = 64 * 1024 * 1024


def passages(contexts: Sequence[Context]) -> Iterator[Passage]:
    """Yield every text in ``contexts``, in order."""
    for context in contexts:
        if context.file is None:
            yield from _in_memory(context)
        else:
            yield from _in_file(context, context.file)


def _in_memory(context: Context) -> Iterator[Passage]:
    for steps, text in _texts(context.value, ()):
        yield _passage(context, steps, partial(tuple, (text,)))


def _in_file(context: Context, file: Path) -> Iterator[Passage]:
    if context.format == "text":
        yield _passage(context, (), partial(_decoded, file))
    elif context.format in ("list", "dict"):
        for step, value in _elements(context.format, file):
            for steps, text in _texts(value, (step,)):
                yield _passage(context, steps, partial(tuple, (text,)))
    elif context.format == "json":
        for steps, text in _texts(context.value, ()):
            yield _passage(context, steps, partial(tuple, (text,)))


def _passage(context: Context, steps: tuple[Any, ...], pieces: Callable[[], Iterable[str]]) -> Passage:
    key = steps[0] if len(steps) == 1 and isinstance(steps[0], str) else None
    places: Places | None = context.reading.places.get(key or "") if not steps or key is not None else None
    return Passage(
        context.name,
        pieces,
        where="".join(map(_step, steps)),
        # A folder's keys are the paths of its files.
        path=(key or context.path) if context.reading.from_files else None,
        part_at=None if places is None else places.at,
    )


class _Row(int):
    """A row of a DataFrame, by position."""


def _step(key: Any) -> str:
    if isinstance(key, _Row):
        return f".iloc[{int(key)}]"
    return f"[{json.dumps(key, ensure_ascii=False) if isinstance(key, str) else repr(key)[:80]}]"


def _texts(value: Any, steps: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, (*steps, key))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, each in enumerate(value):
            yield from _texts(each, (*steps, index))
    elif type(value).__name__ == "DataFrame":
        for column in value.columns:
            if not hasattr(value[column], "items"):
                continue  # two columns of one name
            for row, each in enumerate(value[column]):
                if isinstance(each, str):
                    yield (*steps, column, _Row(row)), each


def _decoded(file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    try:
        for piece in file_pieces(file, PIECE_BYTES):
            yield decoder.decode(piece)
    except (OSError, UnicodeDecodeError):
        return  # what can't be read verifies nothing


def _elements(format_: str, file: Path) -> Iterator[tuple[Any, Any]]:
    """Yield (key or index, element) of an encoded list or dict, up to the first line that is malformed."""
    lines = decode.Lines()
    count = 0
    try:
        for piece in file_pieces(file, PIECE_BYTES):
            for line in lines.feed(piece):
                found = decode.decode_line(format_, line, frames=False) if len(line) <= _MAX_LINE else 0
                if isinstance(found, int):
                    return
                yield from found if format_ == "dict" else enumerate(found, count)
                count += len(found)
    except (OSError, decode.DecodeError):
        return
