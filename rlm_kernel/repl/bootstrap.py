"""The first cells of a kernel: one installs the guest, a second loads the contexts.

Only sources and settings travel as code; a context never does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import types
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["PRECOMPILED", "GuestSettings", "first_cell", "load_cell", "packed", "precompiled"]

PRECOMPILED = "_rlm_precompiled"
"""The name under which `precompiled` is kept in ``sys.modules``."""

# In the order in which they need each other.
_MODULES = (
    "formats",
    "image",
    "lazy",
    "encode",
    "decode",
    "describe",
    "channels",
    "calls",
    "output",
    "plain",
    "quotes",
    "schemas",
    "fetched",
    "remote",
    "names",
    "tools",
    "cells",
    "lent",
)

_INSTALL = """\
def _make(sources):
    import sys, types
    for name in [n for n in sys.modules if n.split(".")[0] == "rlm_guest"]:
        del sys.modules[name]
    package = types.ModuleType("rlm_guest")
    package.__path__ = []
    sys.modules["rlm_guest"] = package
    for name, code in sources:
        if isinstance(code, str):
            code = compile(code, "<rlm guest " + name + ">", "exec", dont_inherit=True)
        module = types.ModuleType("rlm_guest." + name)
        module.__package__ = "rlm_guest"
        sys.modules[module.__name__] = module
        exec(code, module.__dict__)
        setattr(package, name, module)
    return package

def _install(sources, settings):
    cells = _make(sources).cells
    cells.install(settings)
    cells.ready()
"""
# Packed, because IPython reads each character of a cell more than once, some of them in Python.
_CELL = """\
import base64 as _base64, json as _json, zlib as _zlib
try:
    _install(*_json.loads(_zlib.decompress(_base64.b64decode({payload!r}))))
finally:
    del _install, _make, _base64, _json, _zlib
"""
# In a kernel of the user's: an expression, for which no name is taken, not even for a moment.
_LENT_CELL = "exec(__import__('zlib').decompress(__import__('base64').b64decode({payload!r})).decode(), {{}})"
_LENT = """\
import json, sys
if "rlm_guest" in sys.modules:
    raise RuntimeError("a run has it already")
try:
    _install(*json.loads({sources!r}))
except BaseException:
    for name in [n for n in sys.modules if n.split(".")[0] == "rlm_guest"]:
        del sys.modules[name]
    raise
"""
_KNOWN_CELL = "__import__({module!r}).install({version!r}, {settings!r})"


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """What the guest is told. Of each stream, ``head`` + ``tail`` characters of a cell are kept.

    Without ``names`` cells find none of the REPL's own names, only contexts and the host's functions.
    ``lease`` is for kernels elsewhere: after so many seconds without a word from the host they end; 0 for
    never. ``lent`` is for a kernel of the user's, which the guest leaves instead: `rlm_kernel.guest.lent`.
    """

    head: int = 12_000
    tail: int = 8_000
    displays: int = 50
    image_bytes: int = 4_000_000
    control: bool = True
    names: bool = True
    lease: float = 0.0
    lent: bool = False


def first_cell(settings: GuestSettings, *, known: bool = False) -> str:
    """Return the code that installs the guest: all of it, or as `precompiled` has left it in the kernel.

    The latter fails, and does nothing, where there is no guest of this version.
    """
    if known:
        return _KNOWN_CELL.format(module=PRECOMPILED, version=_version(), settings=asdict(settings))
    sources = json.dumps([_sources(), asdict(settings)])
    if settings.lent:
        code = _INSTALL + _LENT.format(sources=sources)
        return _LENT_CELL.format(payload=base64.b64encode(zlib.compress(code.encode())).decode())
    payload = zlib.compress(sources.encode())
    return _INSTALL + _CELL.format(payload=base64.b64encode(payload).decode())


def precompiled() -> types.ModuleType:
    """Return a module that installs this version of the guest, for a process that forks into kernels.

    The guest's own modules are made at once, so that its kernels have them from the start.
    """
    module = types.ModuleType(PRECOMPILED)
    exec(_INSTALL, module.__dict__)  # noqa: S102  the code above
    cells = module.__dict__["_make"](_sources()).cells
    mine = _version()

    def install(version: str, settings: dict[str, Any]) -> None:
        if version != mine:
            raise ImportError(f"this is version {mine} of the guest")
        cells.install(settings)
        cells.ready()

    module.__dict__["install"] = install
    return module


def packed() -> str:
    """Return, as JSON, what a kernel of another Python needs to make `precompiled` for itself."""
    return json.dumps({"install": _INSTALL, "sources": _sources(), "version": _version()})


def load_cell(
    loads: Sequence[tuple[str, str, str]],
    tools: Sequence[tuple[str, str]] = (),
    renamed: Mapping[str, str] | None = None,
    *,
    fresh: bool = False,
) -> str:
    """Return the code that loads contexts, each (name, format, path over there), for an installed guest.

    ``tools`` are (name, documentation). Contexts that are there are ``renamed`` first. ``fresh`` forgets the
    answer so far.
    """
    rename = f"__import__('rlm_guest').cells.rename({dict(renamed)!r})\n" if renamed else ""
    offer = f"__import__('rlm_guest').cells.offer({list(tools)!r})\n" if tools else ""
    forget = "__import__('rlm_guest').cells.fresh()\n" if fresh else ""
    first = forget + rename + offer
    # No name is taken, which might be the user's.
    return f"{first}any(__import__('rlm_guest').cells.load(*each) for each in {list(loads)!r})"


@cache
def _sources() -> list[tuple[str, str]]:
    folder = resources.files("rlm_kernel.guest")
    return [(name, (folder / f"{name}.py").read_text("utf-8")) for name in _MODULES]


@cache
def _version() -> str:
    return hashlib.sha256(json.dumps(_sources()).encode()).hexdigest()[:16]
