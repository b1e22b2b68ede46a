"""What a GGUF file says of itself before anything loads it: enough to refuse a wrong file, and its window.

The format (ggml's ``docs/gguf.md``): magic ``GGUF``, version (u32), number of tensors and of key-value pairs
(u64 each), then the pairs: key (u64 length, bytes), type (u32), value; all little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ConfigError

__all__ = ["read_header"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 20


def read_header(path: Path) -> dict[str, Any]:
    """Return the values that stand before the tokenizer's, by key, arrays left out.

    Raises:
        ConfigError: no file, or one that can't be read or is no GGUF file.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", hint="give the path of a GGUF file after gguf:"
        ) from error
    except (ValueError, struct.error) as error:
        reason = "it ends in its header" if isinstance(error, struct.error) else error
        raise ConfigError(
            f"{path} is no GGUF file that can be used: {reason}",
            hint="download it again, or convert the model with llama.cpp's convert_hf_to_gguf.py",
        ) from None


def _read(file: BinaryIO) -> dict[str, Any]:
    magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"it begins with {magic!r}, not with b'GGUF'")
    version, tensors, pairs = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise ValueError(f"its version is {version}; 2 and 3 are known")
    if not tensors:
        raise ValueError("it holds no tensors")
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = _string(file)
        if key.startswith("tokenizer."):
            break
        kind = _number(file, "I")
        if kind != _ARRAY:
            found[key] = _value(file, kind)
            continue
        kind, count = _number(file, "I"), _number(file, "Q")
        for _ in range(count):
            _value(file, kind)
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind not in _SCALARS:
        raise ValueError(f"a value of unknown type {kind} in its header")
    return _number(file, _SCALARS[kind])


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    length = _number(file, "Q")
    if length > _LONGEST:
        raise ValueError(f"a text of {length:,} bytes in its header")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("it ends in its header")
    return text.decode("utf-8", "replace")
