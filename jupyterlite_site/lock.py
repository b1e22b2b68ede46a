"""Choose what the site is built of, anew: writes ``wheels.json`` and ``tools.txt`` beside this file.

    python jupyterlite_site/lock.py

``wheels.json`` has every package that runs in the page with version, hash, modules and dependencies;
``tools.txt`` what builds the site. Neither holds an address: what a build downloads comes from the registries
that its user has configured, and is refused unless it is this, byte by byte. Needs pip, npm and `packaging`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from wheels import Wheel, canonical, read_wheel

from build import TOOLS, WHEELS, BuildError, pip, tags, unpack_pyodide

ROOTS = (
    *("micropip", "jedi", "ipython", "comm"),  # what the kernel starts with
    *("anywidget", "ipywidgets"),  # the panel
    # On demand: only cells that import them load them. jsonschema 4.17 is the last without compiled parts.
    *("openai", "nbformat", "jsonschema==4.17.3"),
)
# What has no way to run in a page, or nothing to do there.
LEFT_OUT = frozenset(
    (
        *("pexpect", "prompt-toolkit", "psutil", "ptyprocess"),  # terminals and processes
        *("jupyter-client", "jupyter-core", "pyzmq", "tornado"),  # connections to kernels
        *("httpcore2", "truststore"),  # sockets: httpx2-jsfetch takes their place
        "jupyterlab-widgets",  # the site has the extension
    )
)
GLUE = ("piplite", "pyodide-kernel", "ipykernel", "widgetsnbextension")
"""Wheels that the labextension of the kernel brings; they win over what is on PyPI under the same name."""
_KERNEL = "jupyterlite-pyodide-kernel"
TOOL_REQUIREMENTS = ("jupyterlite-core==0.8.*", f"{_KERNEL}==0.8.*")
LABEXTENSIONS = ("anywidget", "jupyterlab_widgets==3.*")
"""Installed without what they need: only their files for the page are used."""


def main() -> None:
    """Resolve both sets and write them."""
    tools = [*_report(TOOL_REQUIREMENTS), *_report(LABEXTENSIONS, "--no-deps")]
    lines = [f"{name}=={version} --hash=sha256:{sha256}" for name, version, sha256 in sorted(tools)]
    TOOLS.write_text("\n".join(lines) + "\n", "utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        info = unpack_pyodide(folder / "pyodide")
        version = next(version for name, version, _ in tools if name == _KERNEL)
        glue = _glue(folder, version)
        found = {wheel.name: wheel for wheel in glue}
        graph = _close(found, info, folder)
        locked = {
            "pyodide": info,
            "packages": {
                f"{wheel.name}=={wheel.version}": {
                    "file_name": wheel.path.name,
                    "sha256": wheel.sha256,
                    "glue": wheel in glue,
                    "imports": list(wheel.imports),
                    "depends": sorted(graph[wheel.name]),
                }
                for wheel in sorted(found.values(), key=lambda each: each.name)
            },
        }
    WHEELS.write_text(json.dumps(locked, indent=1) + "\n", "utf-8")
    print(f"{len(tools)} tools, {len(found)} packages")


def _report(requirements: Iterable[str], *options: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, version and hash of what pip would install."""
    told = pip(
        *("install", "--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:", "--report=-"),
        *(*options, *requirements),
    )
    for each in json.loads(told)["install"]:
        hashes = each["download_info"]["archive_info"]["hashes"]
        yield canonical(each["metadata"]["name"]), each["metadata"]["version"], hashes["sha256"]


def _glue(folder: Path, version: str) -> list[Wheel]:
    """Return the wheels inside the kernel's labextension, of each name the newest."""
    pip("install", "--quiet", "--no-deps", f"--target={folder / 'kernel'}", f"{_KERNEL}=={version}")
    wheels = [read_wheel(path) for path in (folder / "kernel").rglob("pypi/*.whl")]
    newest = {wheel.name: wheel for wheel in sorted(wheels, key=lambda each: each.version)}
    return [newest[name] for name in GLUE]


def _close(found: dict[str, Wheel], info: Mapping[str, str], folder: Path) -> dict[str, set[str]]:
    """Download into ``found`` until nothing is unmet; return what each package needs.

    The first specifier of a name wins: there is no way back. What two packages contradict each other in is
    caught, and is to be settled by a root with a version.
    """
    graph: dict[str, set[str]] = {}
    asked = {requirement.name: requirement for requirement in map(Requirement, ROOTS)}
    wanted: dict[str, set[str]] = {canonical(name): set() for name in (*asked, *found)}
    unmet = {canonical(each.name): each for each in asked.values()}
    while unmet:
        (folder / "wheels").mkdir(exist_ok=True)
        lines = [f"{each.name}{each.specifier}" for each in unmet.values()]
        pip("download", "--quiet", "--no-deps", f"--dest={folder / 'wheels'}", *tags(info), *lines)
        for path in (folder / "wheels").glob("*.whl"):
            wheel = read_wheel(path)
            found.setdefault(wheel.name, wheel)
        unmet = {}
        for wheel in [*found.values()]:
            for needed in _needs(wheel, wanted[wheel.name], info):
                name = canonical(needed.name)
                graph.setdefault(wheel.name, set())
                if name in LEFT_OUT:
                    continue
                graph[wheel.name].add(name)
                more = needed.extras - wanted.setdefault(name, set())
                wanted[name] |= more
                if name not in found:
                    unmet.setdefault(name, needed)
                elif not needed.specifier.contains(found[name].version, prereleases=True):
                    raise SystemExit(f"{wheel.name} needs {needed}, and {found[name].version} was taken")
    return {name: graph.get(name, set()) for name in found}


def _needs(wheel: Wheel, extras: Iterable[str], info: Mapping[str, str]) -> Iterator[Requirement]:
    for text in wheel.requires:
        requirement = Requirement(text)
        environment: dict[str, str] = {
            **{name: str(value) for name, value in default_environment().items()},
            "sys_platform": "emscripten",
            "platform_system": "Emscripten",
            "os_name": "posix",
            "platform_machine": "wasm32",
            "python_version": ".".join(info["python"].split(".")[:2]),
            "python_full_version": info["python"],
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        if requirement.marker is None or any(
            requirement.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
        ):
            yield requirement


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"lock.py: {error}")
