"""The files that a sandbox runs on: Pyodide's core, in the version pinned here, and a snapshot of its memory.

Pyodide comes from the npm registry that the user has configured, through Deno's own client, at first use or
by ``jupyter rlm warmup``, in a process that never runs guest code. Deno checks the pinned integrity of the
package, this module the pinned hash of each file. The snapshot is made here, once for each version of what
goes into it, and kept with its own hash: whatever was damaged since is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import ConfigError, KernelStartError
from ..bootstrap import packed

__all__ = ["FILES", "IMPORTS", "VERSION", "Runtime", "deno_command", "ensure", "find"]

VERSION = "314.0.7"
FILES: Mapping[str, str] = {
    "pyodide.mjs": "6f1d60f7bf529beb300f0f47983c921d3982363640ba20af0e38efdddbc66109",
    "pyodide.asm.mjs": "f7cdc8ece80678ceb712f8e65ebe6d3a83203a180c399865f49612a051693635",
    "pyodide.asm.wasm": "cc36e3cab04fdfc9a63ff13eb52eae2b911bf46c025cc7b281f394bd3de1d5e6",
    "python_stdlib.zip": "fa1957e5777068fc4f7437f96d860ae2fbe9c19732ba06c84e004ec16dd7dd7a",
}
"""Pyodide's core, each file with its SHA-256."""

DENO_VERSION = (2, 9, 0)
"""The oldest Deno that will do, as the extra has it: older ones let code read files (CVE-2026-49406)."""
DOWNLOAD_SECONDS = 300
MAKE_SECONDS = 120
IMPORTS = "imports.json"
"""Deno's own modules, none of which can be imported: depth, as `worker.mjs` has it."""
_BUILT_IN = (
    "_http_agent _http_common _http_outgoing _http_server _stream_duplex _stream_passthrough "
    "_stream_readable _stream_transform _stream_writable _tls_common _tls_wrap assert assert/strict "
    "async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns "
    "dns/promises domain events fs fs/promises http http2 https inspector inspector/promises module net "
    "os path path/posix path/win32 perf_hooks process punycode querystring readline readline/promises "
    "repl sea sqlite stream stream/consumers stream/promises stream/web string_decoder sys test "
    "test/reporters timers timers/promises tls trace_events tty url util util/types v8 vm wasi "
    "worker_threads zlib "
)
# In the order in which they need each other.
_AGENT = ("failing", "asking", "showing", "threads", "shell", "agent")
_SNAPSHOT, _MANIFEST = "snapshot.bin", "manifest.json"
_HERE = Path(__file__).parent
LOCK = _HERE / "pyodide.lock.json"
"""What Deno holds the registry to: the package and what it depends on, with their integrity."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A folder with all that a sandbox reads, and the supervisor that Deno starts with."""

    folder: Path
    snapshot: bool

    def copy_to(self, folder: Path) -> None:
        """Put the files into a folder of one sandbox: hard links where the file system has them."""
        for source in self.folder.iterdir():
            if source.name != _MANIFEST:
                try:
                    os.link(source, folder / source.name)
                except OSError:
                    shutil.copyfile(source, folder / source.name)


def deno_command() -> str:
    """Return the path of Deno.

    Raises:
        ConfigError: the extra is not installed, and there is no other Deno that is new enough.
    """
    try:
        import deno  # type: ignore[import-untyped]  # noqa: PLC0415  an extra
    except ImportError:
        found = shutil.which("deno")
        if found is None:
            raise ConfigError(
                "the kernel rlm-pyodide needs Deno, which is not installed",
                hint='pip install "rlm-kernel[pyodide]"',
            ) from None
        version = _deno_version(found)
        if version < DENO_VERSION:
            has, needed = (".".join(map(str, each)) for each in (version or (0,), DENO_VERSION))
            raise ConfigError(
                f"the kernel rlm-pyodide needs Deno {needed}, and {found} has version {has}",
                hint='pip install "rlm-kernel[pyodide]"',
            ) from None
        return found
    return str(deno.find_deno_bin())


@cache
def _deno_version(command: str) -> tuple[int, ...]:
    """Return the version of a Deno that isn't the extra's, () where it doesn't tell."""
    try:
        done = subprocess.run(  # noqa: S603  what the user has installed as Deno
            [command, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"deno (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


def ensure(*, snapshot: bool = True) -> Runtime:
    """Return the runtime, made ready if it isn't: downloaded, checked, its snapshot taken.

    Raises:
        ConfigError: Deno is missing, or the local copy that was named is no Pyodide of this version.
        KernelStartError: the files could not be had, or no snapshot be made.
    """
    deno = deno_command()
    folder = _cache()
    ready = find() if snapshot else None
    if ready is not None:
        with suppress(OSError):
            os.utime(ready.folder)
        return ready
    with _only_one(folder):
        core = _core(folder, deno)
        place = folder / f"runtime-{_key()}"
        if not _holds(place, snapshot=False):
            _build(place, core)
        if snapshot and not _holds(place, snapshot=True):
            _make_snapshot(place, deno)
        _forget_others(place)
    return Runtime(place, snapshot)


def find() -> Runtime | None:
    """Return the runtime if it is ready, its snapshot checked, without making anything."""
    place = _cache() / f"runtime-{_key()}"
    return Runtime(place, snapshot=True) if _holds(place, snapshot=True) else None


def _cache() -> Path:
    given = os.environ.get("RLM_CACHE_DIR")
    if given:
        return Path(given) / "pyodide"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rlm-kernel" / "pyodide"


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from making the same files at the same time."""
    import fcntl  # noqa: PLC0415  not on Windows, where doctor imports this module too

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _core(folder: Path, deno: str) -> Path:
    """Return the folder of Pyodide's core."""
    given = os.environ.get("RLM_PYODIDE_PATH")
    if given:
        wrong = _wrong(Path(given))
        if wrong:
            raise ConfigError(
                f"RLM_PYODIDE_PATH={given}: {wrong} is missing there, or not that of Pyodide {VERSION}",
                hint=f"unpack the npm package pyodide {VERSION} and name the folder that holds pyodide.mjs",
            )
        return Path(given)
    core = folder / f"core-{VERSION}"
    if _wrong(core):
        _download(core, deno)
    return core


def _download(core: Path, deno: str) -> None:
    offline = (
        f"with a network, run `jupyter rlm warmup`; without one, unpack the npm package pyodide {VERSION} "
        "and set RLM_PYODIDE_PATH to the folder that holds pyodide.mjs; a registry of your own is read from "
        "NPM_CONFIG_REGISTRY or .npmrc"
    )
    with tempfile.TemporaryDirectory(prefix="rlm-") as scratch:
        lock = Path(scratch, "deno.lock")
        lock.write_bytes(LOCK.read_bytes())
        Path(scratch, "deno.json").write_text("{}", encoding="utf-8")
        # The user's own environment: their registry, proxy and certificates. No guest code runs in it.
        env = {
            "DENO_TLS_CA_STORE": "system,mozilla",
            **os.environ,
            "DENO_DIR": os.path.join(scratch, "deno"),
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }
        try:
            done = subprocess.run(  # noqa: S603  Deno, with arguments of ours
                [deno, "cache", "--frozen", f"--lock={lock}", "--no-remote", f"npm:pyodide@{VERSION}"],
                env=env,
                cwd=scratch,
                capture_output=True,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KernelStartError(
                f"Pyodide {VERSION} did not arrive within {DOWNLOAD_SECONDS} s", hint=offline
            ) from None
        found = next(Path(scratch, "deno", "npm").glob(f"*/**/pyodide/{VERSION}/pyodide.mjs"), None)
        if done.returncode or found is None:
            said = done.stderr.decode("utf-8", "replace").strip()[-1000:]
            raise KernelStartError(f"Pyodide {VERSION} could not be downloaded: {said}", hint=offline)
        wrong = _wrong(found.parent)
        if wrong:
            raise KernelStartError(f"{wrong} of the downloaded Pyodide {VERSION} is not the pinned one")
        _put_in_place(core, {name: (found.parent / name).read_bytes() for name in FILES})


def _put_in_place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files, whole or not at all."""
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    for name, content in files.items():
        (new / name).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _build(place: Path, core: Path) -> None:
    files = {name: (core / name).read_bytes() for name in FILES}
    # It names a file that isn't there, and that nobody may read.
    files["pyodide.mjs"] = b"\n".join(
        line for line in files["pyodide.mjs"].split(b"\n") if not line.startswith(b"//# sourceMappingURL")
    )
    files.update(_own())
    _put_in_place(place, {**files, _MANIFEST: _manifest(files)})


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()}).encode()


def _own() -> dict[str, bytes]:
    own = {name: (_HERE / name).read_bytes() for name in ("worker.mjs", "supervisor.mjs")}
    own["agent.json"] = json.dumps(
        [(name, (_HERE / "inside" / f"{name}.py").read_text("utf-8")) for name in _AGENT]
    ).encode()
    blocked = {f"node:{name}": None for name in _BUILT_IN.split()}
    return {**own, "guest.json": packed().encode(), IMPORTS: json.dumps({"imports": blocked}).encode()}


@cache
def _key() -> str:
    """What tells this version's runtime, and the memory in its snapshot, from others."""
    digest = hashlib.sha256(json.dumps([VERSION, FILES]).encode())
    for name, content in sorted(_own().items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _wrong(folder: Path) -> str:
    """Return the name of the first file in ``folder`` that is not the pinned one."""
    for name, digest in FILES.items():
        try:
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return name
        except OSError:
            return name
    return ""


def _holds(place: Path, *, snapshot: bool) -> bool:
    """Whether all files of a runtime are there, as they were made."""
    try:
        digests = json.loads((place / _MANIFEST).read_bytes())
        for name in (*FILES, *_own(), *([_SNAPSHOT] if snapshot else [])):
            with open(place / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests[name]:
                    return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _make_snapshot(place: Path, deno: str) -> None:
    from .child import take_snapshot  # noqa: PLC0415  it needs this module

    content = take_snapshot(Runtime(place, snapshot=False), deno, MAKE_SECONDS)
    digests = json.loads((place / _MANIFEST).read_bytes())
    digests[_SNAPSHOT] = hashlib.sha256(content).hexdigest()
    for name, each in ((_SNAPSHOT, content), (_MANIFEST, json.dumps(digests).encode())):
        new = place / f".{name}"
        new.write_bytes(each)
        new.replace(place / name)


def _forget_others(place: Path) -> None:
    """Remove the runtimes of other versions that nobody has used for a month."""
    os.utime(place)
    month = 30 * 24 * 3600
    for other in place.parent.glob("runtime-*"):
        if other != place and other.stat().st_mtime < place.stat().st_mtime - month:
            shutil.rmtree(other, ignore_errors=True)
