"""What a wheel says of itself, read from the file: what Pyodide loads packages by is made of nothing else.

Requirements are judged for the browser here, and not by pip, which judges them for the machine it runs on.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

__all__ = ["Wheel", "canonical", "read_wheel"]

_NOT_MODULES = re.compile(r"\.(dist-info|data|libs)$")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel: ``name`` is canonical, ``requires`` and ``extras`` are as its metadata has them."""

    path: Path
    name: str
    version: str
    requires: tuple[str, ...]
    imports: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of the file, in hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def canonical(name: str) -> str:
    """Return ``name`` as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_wheel(path: Path) -> Wheel:
    """Read name, version, requirements and top-level modules of the wheel at ``path``."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = next(each for each in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
        told = HeaderParser().parsestr(archive.read(metadata).decode())
    return Wheel(
        path,
        canonical(told["Name"]),
        told["Version"],
        tuple(told.get_all("Requires-Dist", ())),
        tuple(sorted(_modules(names))),
    )


def _modules(names: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        first, _, rest = name.partition("/")
        if rest and name.endswith((".py", ".so")) and not _NOT_MODULES.search(first):
            found.add(first)
        elif not rest and first.endswith((".py", ".so")):
            found.add(first.partition(".")[0])
    return found
