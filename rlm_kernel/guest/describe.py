"""What a root model is told of a context it can't see: type, size, shape and a short preview.

This file runs on the host and, shipped as source, inside kernels: standard library only, Python 3.9 and
later. Invariant: `describe` never raises, its text has at most `MAX_CHARS` characters whatever the value,
and its time doesn't grow with the context but for counts that run at C's speed.
"""

from __future__ import annotations

from itertools import islice
from statistics import median
from typing import Any

__all__ = ["CHARS_PER_TOKEN", "MAX_CHARS", "describe"]

MAX_CHARS = 1500
CHARS_PER_TOKEN = 4

_SAMPLE = 1000
# Up to here every element, or character, is looked at; beyond, a sample or the first part.
_COUNT_ELEMENTS = 1_000_000
_COUNT_CHARS = 64_000_000
_SHOWN_KEYS = 8
_SHOWN_COLUMNS = 25
_TEXTS = (str, bytes, bytearray)
_SEQUENCES = (list, tuple, set, frozenset)
_BRACKETS = {"list": "[]", "tuple": "()", "set": "{}", "frozenset": "{}"}


def describe(value: Any, name: str = "context", preview_chars: int = 200) -> dict[str, Any]:
    """Return ``type``, ``size``, ``unit`` (chars, bytes, items or rows) and ``description`` of a value.

    The description is safe to stand in a prompt: texts of the context are quoted as Python would write
    them, and no triple backtick is in it.
    """
    try:
        kind, size, unit, lines = _describe(value, preview_chars)
    except Exception as error:  # noqa: BLE001  an edge: objects of model-written classes raise anything
        kind, size, unit = _type_name(value), 1, "items"
        lines = [f"{kind}, which could not be looked into ({type(error).__name__})"]
    lines[0] = f"{name}: {lines[0]}"
    text = "\n".join(_safe(line) for line in lines)
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS - 4] + " ..."
    return {"type": kind, "size": size, "unit": unit, "description": text}


def _describe(value: Any, preview_chars: int) -> tuple[str, int, str, list[str]]:
    if isinstance(value, str) or _has(value, "LazyText", ("lines", "chunks")):
        return _describe_text(value, preview_chars)
    if isinstance(value, (bytes, bytearray, memoryview)):
        view = memoryview(value)
        head = bytes(view[: preview_chars // 4])
        return "bytes", view.nbytes, "bytes", [f"bytes, {view.nbytes:,} bytes", f"starts: {head!r}"]
    if isinstance(value, dict):
        return _describe_dict(value, preview_chars)
    if isinstance(value, _SEQUENCES):
        return _describe_sequence(value, preview_chars)
    return _describe_object(value, preview_chars)


def _describe_object(value: Any, preview_chars: int) -> tuple[str, int, str, list[str]]:
    if _has(value, "DataFrame", ("columns", "dtypes", "head")):
        return _describe_frame(value)
    if _has(value, "Image", ("data", "mime", "width", "height")):
        size = len(value.data)
        pixels = "" if value.width is None else f", {value.width:,} x {value.height:,} pixels"
        return "Image", size, "bytes", [f"Image, {value.mime}{pixels}, {size:,} bytes"]
    kind = _type_name(value)
    return kind, 1, "items", [f"{kind}: {_short(value, preview_chars)}"]


def _describe_text(text: str, preview_chars: int) -> tuple[str, int, str, list[str]]:
    size = len(text)
    newlines = text.count("\n", 0, _COUNT_CHARS)
    about = ""
    if size > _COUNT_CHARS:
        newlines = newlines * size // _COUNT_CHARS
        about = "about "
    lines = newlines + (size > 0 and not text.endswith("\n"))
    result = [f"str, {_chars(size)}, {about}{lines:,} {'line' if lines == 1 else 'lines'}"]
    if size <= preview_chars * 3 // 2:
        return "str", size, "chars", [*result, f"text: {text[:]!r}"]
    result.append(f"starts: {text[:preview_chars]!r}")
    result.append(f"ends: {text[-(preview_chars // 2) :]!r}")
    return "str", size, "chars", result


def _describe_sequence(value: Any, preview_chars: int) -> tuple[str, int, str, list[str]]:
    base = next(each.__name__ for each in _SEQUENCES if isinstance(value, each))
    size = len(value)
    sample = _sample(value, size)
    kind = f"{base}[{_types(sample)}]" if size else base
    lines = [f"{kind}, {size:,} {'item' if size == 1 else 'items'}{_total(value, size, sample)}"]
    lines += _lengths("items", sample, size)
    if isinstance(sample[0] if sample else None, (dict, list, tuple)):
        lines.append(f"first item: {_outline(sample[0], 2)}")
    if size:
        lines.append(f"starts: {_short(value, preview_chars)}")
    return kind, size, "items", lines


def _describe_dict(value: dict[Any, Any], preview_chars: int) -> tuple[str, int, str, list[str]]:
    size = len(value)
    keys = _sample(value, size)
    values = _sample(value.values(), size)
    kind = f"dict[{_types(keys)}, {_types(values)}]" if size else "dict"
    lines = [
        f"{kind}, {size:,} {'key' if size == 1 else 'keys'}{_total(value.values(), size, values)}",
        *_lengths("values", values, size),
    ]
    for key, each in islice(value.items(), _SHOWN_KEYS):
        lines.append(f"  {_short(key, 80)}: {_cut(_outline(each, 2), 120)}")
    if size > _SHOWN_KEYS:
        lines.append(f"  and {size - _SHOWN_KEYS:,} more keys")
    if values:
        lines.append(f"first value: {_short(next(iter(value.values())), preview_chars)}")
    return kind, size, "items", lines


def _describe_frame(frame: Any) -> tuple[str, int, str, list[str]]:
    rows, width = len(frame), len(frame.columns)
    shown = [
        f"{_short(column, 40)} {dtype}" for column, dtype in islice(frame.dtypes.items(), _SHOWN_COLUMNS)
    ]
    more = f", and {width - len(shown):,} more" if width > len(shown) else ""
    head = frame.iloc[:3, :_SHOWN_COLUMNS].to_string(max_colwidth=30, line_width=160)
    return (
        "DataFrame",
        rows,
        "rows",
        [
            f"DataFrame, {rows:,} rows x {width:,} columns",
            _cut(f"columns: {', '.join(shown)}{more}", 700),
            "first rows:",
            *head.split("\n"),
        ],
    )


# --- parts of a description -----------------------------------------------------------------------------


def _chars(count: int) -> str:
    tokens = count / CHARS_PER_TOKEN
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= factor:
            return f"{count:,} characters (about {tokens / factor:.1f}{letter} tokens)"
    return f"{count:,} {'character' if count == 1 else 'characters'} (about {tokens:.0f} tokens)"


def _sample(value: Any, size: int) -> list[Any]:
    """Return up to `_SAMPLE` elements, evenly spread, or the first ones where walking takes too long."""
    step = max(1, -(-size // _SAMPLE))
    if isinstance(value, (list, tuple)):
        return list(value[::step])
    return list(islice(value, 0, None, step) if size <= _COUNT_ELEMENTS else islice(value, _SAMPLE))


def _total(values: Any, size: int, sample: list[Any]) -> str:
    """Return the total length of texts among ``values``, where they are texts."""
    if not sample or not all(isinstance(each, str) for each in sample):
        return ""
    if size <= _COUNT_ELEMENTS:
        return f", {_chars(sum(len(each) for each in values if isinstance(each, str)))} in all"
    return f", about {_chars(sum(map(len, sample)) * size // len(sample))} in all"


def _lengths(what: str, sample: list[Any], size: int) -> list[str]:
    lengths = [len(each) for each in sample if isinstance(each, (*_TEXTS, *_SEQUENCES, dict))]
    if not lengths:
        return []
    sampled = "" if len(sample) == size else f" (of {len(sample):,} sampled)"
    middle = int(median(lengths))
    return [
        f"length of {what}: shortest {min(lengths):,}, median {middle:,}, longest {max(lengths):,}{sampled}"
    ]


def _types(sample: list[Any]) -> str:
    counts: dict[str, int] = {}
    for each in sample:
        name = _type_name(each)
        counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=counts.__getitem__, reverse=True)
    return " | ".join(names[:3]) + (" | ..." if len(names) > 3 else "")


def _outline(value: Any, levels: int) -> str:
    """Return the structure of a nested value, ``levels`` deep: types, sizes and keys, no contents."""
    if isinstance(value, _TEXTS):
        return f"{_type_name(value)} of {len(value):,} {'characters' if isinstance(value, str) else 'bytes'}"
    if isinstance(value, dict):
        if not levels:
            return f"dict of {len(value):,}"
        inner = [
            f"{_short(key, 40)}: {_outline(each, levels - 1)}"
            for key, each in islice(value.items(), _SHOWN_KEYS)
        ]
        return "{" + ", ".join(inner) + (", ...}" if len(value) > _SHOWN_KEYS else "}")
    if isinstance(value, _SEQUENCES):
        first = f", first: {_outline(next(iter(value)), levels - 1)}" if levels and value else ""
        return f"{_type_name(value)} of {len(value):,}{first}"
    return _type_name(value)


def _short(value: Any, limit: int, levels: int = 3) -> str:
    """Return ``value`` as Python would write it, cut to about ``limit`` characters without writing it all."""
    if isinstance(value, _TEXTS):
        text = repr(value[:limit])
        return text + "..." if len(value) > limit else text
    if isinstance(value, dict):
        parts = (
            f"{_short(key, limit // 4, 1)}: {_short(each, limit // 2, levels - 1)}"
            for key, each in islice(value.items(), _SHOWN_KEYS)
        )
        return _bracketed(parts, "{}", len(value), limit, levels)
    if isinstance(value, _SEQUENCES):
        brackets = _BRACKETS.get(type(value).__name__, "[]")
        shown = (_short(each, limit // 2, levels - 1) for each in islice(value, 20))
        return _bracketed(shown, brackets, len(value), limit, levels)
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"int of {value.bit_length():,} bits"
    try:
        return _cut(repr(value), limit)
    except Exception as error:  # noqa: BLE001  an edge: a __repr__ of model-written code
        return f"<{_type_name(value)} whose repr failed: {type(error).__name__}>"


def _bracketed(parts: Any, brackets: str, size: int, limit: int, levels: int) -> str:
    """Join ``parts`` until ``limit`` is reached."""
    if levels <= 0:
        return f"{brackets[0]}...{brackets[1]}" if size else brackets
    shown: list[str] = []
    room = limit
    for part in parts:
        shown.append(part)
        room -= len(part) + 2
        if room <= 0:
            break
    return brackets[0] + ", ".join(shown) + (", ..." if size > len(shown) else "") + brackets[1]


def _type_name(value: Any) -> str:
    return str(type(value).__name__)[:60]


def _has(value: Any, name: str, attributes: tuple[str, ...]) -> bool:
    """Tell a type by its name and attributes: its package may not be importable here."""
    kinds = type(value).__mro__
    return any(each.__name__ == name for each in kinds) and all(hasattr(value, each) for each in attributes)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 3)] + "..."


def _safe(line: str) -> str:
    """Return ``line`` without control characters, lone surrogates and runs of backticks."""
    line = line[: 2 * MAX_CHARS]
    if not line.isprintable():
        line = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in line
        )
    return line.replace("```", "\\x60\\x60\\x60")
