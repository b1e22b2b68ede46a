"""Which isolation each backend gives, in one table: doctor prints it, docs/sandboxes.md repeats it."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["BACKENDS", "Isolation", "table"]


@dataclass(frozen=True, slots=True)
class Isolation:
    """What code that a model wrote can reach on one backend, in words; ``left`` is what remains."""

    repl: str
    files: str
    environment: str
    network: str
    sessions: str
    left: str


BACKENDS = (
    Isolation(
        "shell",
        "all of the user's",
        "all of it, the key too",
        "all",
        "all of the user's",
        "everything, as it is the user's own process",
    ),
    Isolation(
        "attach",
        "all of the kernel's user's",
        "all of it",
        "all",
        "all of the kernel's user's",
        "everything, as it is somebody's own process; your key is not in it",
    ),
    Isolation(
        "lite",
        "none",
        "none",
        "what the browser may fetch",
        "what the site has stored in the browser",
        "the page's origin; the key is in another worker",
    ),
    Isolation(
        "local",
        "all of the user's",
        "an allow-list, without the key",
        "all",
        "their files; on Linux not their processes",
        "whatever the user's files and network lead to",
    ),
    Isolation(
        "gateway",
        "its kernelspec's, over there",
        "its kernelspec's, over there",
        "its kernelspec's, over there",
        "its kernelspec's, over there",
        "what the gateway's machine holds; your key, files and network are not there",
    ),
    Isolation(
        "sandbox",
        "Python and /usr, read-only",
        "language settings",
        "none",
        "none",
        "bugs of the Linux kernel; its version, the CPU, memory and load of the machine",
    ),
    Isolation(
        "pyodide",
        "none",
        "none",
        "none",
        "none",
        "bugs of Deno and V8; the time that code takes, the number of processors",
    ),
)
"""The backends, from the least isolated on."""


def table() -> list[tuple[str, ...]]:
    """Return the table's lines, the headline first."""
    names = [field.name for field in fields(Isolation)]
    return [tuple(names), *(tuple(getattr(each, name) for name in names) for each in BACKENDS)]
