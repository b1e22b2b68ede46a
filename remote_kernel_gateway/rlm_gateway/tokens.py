"""Who may ask: names and the hashes of their tokens, in a file.

Tokens are 256 random bits, so that a plain hash of one gives nothing away. A file that can't be read lets
nobody in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Tenant", "Tenants", "add", "digest", "remove"]

TOKEN_BYTES = 32
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Tenant:
    """Somebody with a token. ``kernels`` is how many kernels at once, or None for the server's default."""

    name: str
    kernels: int | None = None


def digest(token: str) -> str:
    """Return what the file has in place of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Tenants:
    """The tenants of a file, as it stands at each question.

    Raises:
        ValueError: the file, or what is in it, can't be used; from `find` too, when it has changed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._read: tuple[int, int, int] | None = None
        self._by_digest: dict[str, Tenant] = {}
        self._refresh()

    def find(self, token: str) -> Tenant | None:
        """Return whose token this is."""
        self._refresh()
        return self._by_digest.get(digest(token)) if token else None

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if state == self._read:
                return
            self._by_digest, self._read = {}, None
            tenants = _tenants(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._by_digest, self._read = {}, None
            raise ValueError(f"the tenants in {self._path} can't be read: {error}") from None
        self._by_digest, self._read = tenants, state


def _tenants(entries: Any) -> dict[str, Tenant]:
    found: dict[str, Tenant] = {}
    for name, entry in entries.items():
        hash_, kernels = entry["sha256"], entry.get("kernels")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a tenant")
        if not isinstance(hash_, str) or not _HASH.fullmatch(hash_) or hash_ in found:
            raise ValueError(f"{name} needs the SHA-256 of a token of its own")
        if kernels is not None and (type(kernels) is not int or kernels < 0):
            raise ValueError(f"{name} has {kernels!r} as its number of kernels")
        found[hash_] = Tenant(name, kernels)
    return found


def add(path: str | os.PathLike[str], name: str, kernels: int | None = None) -> str:
    """Add a tenant, or give one another token; return the token.

    Raises:
        ValueError: a name it can't have, or a file that can't be used.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a tenant: lower case letters, digits and -")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    entry: dict[str, Any] = {"sha256": digest(token)}
    if kernels is not None:
        entry["kernels"] = kernels
    _write(Path(path), {**_entries(Path(path)), name: entry})
    return token


def remove(path: str | os.PathLike[str], name: str) -> None:
    """Remove a tenant, whose token opens nothing from then on; kernels it has are left to be culled.

    Raises:
        ValueError: there is none of this name.
    """
    entries = _entries(Path(path))
    if entries.pop(name, None) is None:
        raise ValueError(f"there is no tenant {name!r} in {path}")
    _write(Path(path), entries)


def _entries(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _tenants(entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of tenants: {error}") from None
    return entries


def _write(path: Path, entries: dict[str, Any]) -> None:
    _tenants(entries)
    # Never half of it: a server may read it at any time.
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(entries, indent=1) + "\n")
    new.replace(path)
