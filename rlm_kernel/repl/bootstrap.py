"""The first cells of a kernel: one installs the guest, a second loads the contexts.

Only sources and settings travel as code; a context never does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

__all__ = ["GuestSettings", "first_cell", "load_cell"]

# In the order in which they need each other.
_MODULES = (
    "formats",
    "image",
    "encode",
    "decode",
    "describe",
    "channels",
    "calls",
    "output",
    "names",
    "cells",
)

_TEMPLATE = """\
def _install(sources, settings):
    import json, sys, types
    for name in [n for n in sys.modules if n.split(".")[0] == "rlm_guest"]:
        del sys.modules[name]
    package = types.ModuleType("rlm_guest")
    package.__path__ = []
    sys.modules["rlm_guest"] = package
    # A fork server may have compiled them before it forked.
    compiled = getattr(sys.modules.get("_rlm_compiled"), "sources", {})
    for name, source in sources:
        code = compiled.get(source) or compile(source, "<rlm guest " + name + ">", "exec", dont_inherit=True)
        module = types.ModuleType("rlm_guest." + name)
        module.__package__ = "rlm_guest"
        sys.modules[module.__name__] = module
        exec(code, module.__dict__)
        setattr(package, name, module)
    package.cells.install(settings)
    package.cells.ready()
import json as _json
try:
    _install(*_json.loads({payload}))
finally:
    del _install, _json
"""


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """What the guest is told. Of each stream, ``head`` + ``tail`` characters of a cell are kept."""

    head: int = 12_000
    tail: int = 8_000
    displays: int = 50
    image_bytes: int = 4_000_000
    control: bool = True


def first_cell(settings: GuestSettings) -> str:
    """Return the code that installs the guest."""
    payload = json.dumps([_sources(), asdict(settings)])
    return _TEMPLATE.replace("{payload}", repr(payload))


def load_cell(loads: Sequence[tuple[str, str, str]]) -> str:
    """Return the code that loads contexts, each (name, format, path over there), for an installed guest."""
    return f"for _ in {list(loads)!r}: __import__('rlm_guest').cells.load(*_)\ndel _"


@cache
def _sources() -> list[tuple[str, str]]:
    folder = resources.files("rlm_kernel.guest")
    return [(name, (folder / f"{name}.py").read_text("utf-8")) for name in _MODULES]
