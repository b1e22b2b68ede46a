"""JupyterLab on a folder, for as long as something is measured in it.

It listens on 127.0.0.1 only, with a token of its own, reads no setting of the user's, and has this package's
kernel `rlm` beside `python3`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from ..kernels.rlm.install import install

__all__ = ["Lab", "serve"]

LABEXTENSION = "@rlm-kernel/labextension"
START_SECONDS = 120.0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Lab:
    """A server: its folder of notebooks, its address without a slash at the end, and its token."""

    folder: Path
    address: str
    token: str

    def page(self, path: str) -> str:
        """Return the address of a page that is let in."""
        return f"{self.address}/{path}?token={self.token}&reset"

    def end_kernels(self) -> None:
        """Shut all kernels down, and forget their sessions."""
        for session in json.loads(self._ask("sessions")):
            self._ask(f"sessions/{session['id']}", "DELETE")

    def _ask(self, path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{self.address}/api/{path}", method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  our own server
            content: bytes = answer.read()
        return content


@contextmanager
def serve(extension: Path | None = None) -> Iterator[Lab]:
    """Serve an empty folder, with the JupyterLab extension built in the folder ``extension``, or without it.

    Raises:
        InputError: JupyterLab is not installed, or did not start.
    """
    if find_spec("jupyterlab") is None:
        raise InputError("JupyterLab is not installed", hint="pip install jupyterlab")
    with tempfile.TemporaryDirectory(prefix="rlm-lab-", ignore_cleanup_errors=True) as place:
        own = Path(place)
        folder = own / "notebooks"
        folder.mkdir()
        install(prefix=str(own / "prefix"))
        _extend(own, extension)
        token = secrets.token_hex(16)
        environment = {
            **os.environ,
            "JUPYTER_PATH": str(own / "prefix" / "share" / "jupyter"),
            "JUPYTER_TOKEN": token,  # a command line is read by everybody
            "PYTHONPATH": str(_ROOT),
            "IPYTHONDIR": str(own / "ipython"),
            **{f"JUPYTER_{name}_DIR": str(own / name) for name in ("CONFIG", "RUNTIME", "DATA")},
            **{f"JUPYTERLAB_{name}_DIR": str(own / name) for name in ("WORKSPACES", "SETTINGS")},
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        command += ["--port=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
        with (own / "log.txt").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  this Python
                command, env=environment, stdout=log, stderr=log, cwd=folder
            )
        try:
            yield Lab(folder, _address(process, own / "RUNTIME", own / "log.txt"), token)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _extend(own: Path, extension: Path | None) -> None:
    """Let the server have this extension, or none, whatever is installed here."""
    if extension is None:
        config = own / "CONFIG" / "labconfig"
        config.mkdir(parents=True)
        (config / "page_config.json").write_text(
            json.dumps({"disabledExtensions": {LABEXTENSION: True}}), encoding="utf-8"
        )
        return
    shutil.copytree(extension, own / "prefix" / "share" / "jupyter" / "labextensions" / LABEXTENSION)


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait for the server; return the address that it has noted."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob(f"jpserver-{process.pid}.json"):
            try:
                port = json.loads(file.read_text(encoding="utf-8"))["port"]
                urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=5).close()
            except (OSError, ValueError):
                continue
            return f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise InputError(
        f"JupyterLab did not start: {''.join(last)}", hint="jupyter lab --version tells whether it can"
    )
