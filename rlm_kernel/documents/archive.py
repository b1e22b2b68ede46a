"""Zip archives: what is looked at before anything is unpacked, and members read within bounds.

Nothing is written to disk, so names like ``../x`` are names and no more.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

from .base import Allowance, RefusedError

__all__ = ["check_directory", "check_members", "members", "opened", "read_member"]

_END = b"PK\x05\x06"
_END_BYTES = 22 + 65_535
_MIN_RATIO_BYTES = 1024**2
_DIRECTORY_BYTES_PER_MEMBER = 400
_SKIPPED = frozenset(("__MACOSX", "__pycache__", "node_modules"))


def opened(data: bytes) -> zipfile.ZipFile:
    """Return the archive in ``data``.

    Raises:
        RefusedError: it is none, or is broken.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise RefusedError(f"corrupt: {' '.join(str(error).split())[:100]}") from error


def check_directory(data: bytes, allowance: Allowance) -> None:
    """Refuse an archive whose directory is too large even to be listed.

    Raises:
        RefusedError: more members than allowed, by what the archive says of itself.
    """
    end = data.rfind(_END, max(0, len(data) - _END_BYTES))
    if end < 0 or end + 16 > len(data):
        return  # `opened` says what is wrong
    (size,) = struct.unpack_from("<I", data, end + 12)
    if size > allowance.limits.members * _DIRECTORY_BYTES_PER_MEMBER:
        raise RefusedError(f"a directory of {size:,} bytes, for far too many members")


def check_members(archive: zipfile.ZipFile, allowance: Allowance) -> None:
    """Refuse an archive as a whole for its directory: encrypted, or too many members.

    Raises:
        RefusedError: for one of these.
    """
    found = archive.infolist()
    limits = allowance.limits
    if len(found) > limits.members:
        raise RefusedError(f"{len(found):,} members, more than the {limits.members:,} that are read")
    files = [member for member in found if not member.is_dir()]
    if files and all(member.flag_bits & 1 for member in files):
        raise RefusedError("encrypted")


def _check_ratio(member: zipfile.ZipInfo, allowance: Allowance) -> None:
    """Refuse what is compressed as no real file is.

    Raises:
        RefusedError: it is.
    """
    ratio = member.file_size // max(1, member.compress_size)
    if member.file_size > _MIN_RATIO_BYTES and ratio > allowance.limits.ratio:
        raise RefusedError(f"a bomb: compressed {ratio:,} to 1")


def members(archive: zipfile.ZipFile, hidden: set[str]) -> Iterator[zipfile.ZipInfo]:
    """Yield the files in an archive by name; folders that are skipped elsewhere are added to ``hidden``."""
    for member in sorted(archive.infolist(), key=lambda each: each.filename):
        *folders, name = member.filename.split("/")
        skipped = [each for each in folders if each in _SKIPPED or (each.startswith(".") and each.strip("."))]
        if skipped:
            hidden.add(skipped[0])
        elif name and not member.is_dir():
            yield member


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, allowance: Allowance) -> bytes:
    """Return a member's bytes, not relying on the size it claims.

    Raises:
        RefusedError: encrypted, over a limit, or broken.
    """
    if member.flag_bits & 1:
        raise RefusedError("encrypted")
    allowance.check_file(member.file_size)
    _check_ratio(member, allowance)
    allowance.unpack(member.file_size)
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)
    except Exception as error:  # an edge: broken archives raise zlib.error, struct.error, EOFError, ...
        raise RefusedError(f"corrupt: {' '.join(str(error).split())[:100]}") from error
    if len(data) > member.file_size:
        raise RefusedError("corrupt: larger than it says")
    return data
