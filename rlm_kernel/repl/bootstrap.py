"""The first cell of a kernel: the guest's source, its settings, and the contexts to load.

Only sources and settings travel as code; a context never does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

__all__ = ["GuestSettings", "first_cell"]

# In the order in which they need each other.
_MODULES = ("codec", "describe", "channels", "calls", "output", "names", "cells")

_TEMPLATE = """\
def _install(sources, settings, loads):
    import json, sys, types
    for name in [n for n in sys.modules if n.split(".")[0] == "rlm_guest"]:
        del sys.modules[name]
    package = types.ModuleType("rlm_guest")
    package.__path__ = []
    sys.modules["rlm_guest"] = package
    for name, source in sources:
        module = types.ModuleType("rlm_guest." + name)
        module.__package__ = "rlm_guest"
        sys.modules[module.__name__] = module
        exec(compile(source, "<rlm guest " + name + ">", "exec", dont_inherit=True), module.__dict__)
        setattr(package, name, module)
    package.cells.install(settings)
    for load in loads:
        package.cells.load(*load)
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


def first_cell(settings: GuestSettings, loads: Sequence[tuple[str, str, str]] = ()) -> str:
    """Return the code that installs the guest and loads contexts, each (name, format, path in the kernel)."""
    payload = json.dumps([_sources(), asdict(settings), list(loads)])
    return _TEMPLATE.replace("{payload}", repr(payload))


@cache
def _sources() -> list[tuple[str, str]]:
    folder = resources.files("rlm_kernel.guest")
    return [(name, (folder / f"{name}.py").read_text("utf-8")) for name in _MODULES]
