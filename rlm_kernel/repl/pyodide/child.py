"""One sandbox: a Deno process without permissions, its pipe, and what keeps it within bounds.

Invariant: what comes out of it is checked frame by frame (`frames`); a sandbox that sends anything else, or
passes a limit (`watch`), is killed, and `cause` says why. It is used for one session and never again. No
variable of this process's environment and no descriptor but its three pipes reach it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import KernelStartError
from .frames import TOKEN_BYTES, Frame, Reader, Tampered, pack
from .runtime import IMPORTS, Runtime
from .watch import EVERY_SECONDS, Limits, Watch, confine

__all__ = ["Child", "take_snapshot"]

READ_BYTES = 1024 * 1024
START_SECONDS = 60.0
END_SECONDS = 5.0
ANSWER_SECONDS = 30.0
# What has come and is not taken yet; then the pipe fills up, and the sandbox waits.
HELD_BYTES = 16 * 1024 * 1024
# All of what it writes on stderr is drained; this much is kept to explain a failed start.
STDERR_BYTES = 4000
HEAP_OF_SCRIPTS_MIB = 512
_EXITS: Mapping[int, str] = {
    3: "it was sent something malformed",
    4: "it sent faster than it may, and took no notice",
    5: "it sent what none of its programs sends",
    6: "it held a permission that it must not have",
    -getattr(signal, "SIGXFSZ", 0): "it tried to write a file",
}
_PERMISSIONS = (
    "--no-prompt",
    "--no-config",
    "--no-lock",
    "--no-npm",
    "--no-remote",
    "--cached-only",
    "--no-code-cache",
    "--node-modules-dir=none",
    "--deny-import",
    "--deny-write",
    "--deny-net",
    "--deny-env",
    "--deny-run",
    "--deny-sys",
    "--deny-ffi",
)


class Child:
    """A sandbox, started at once; `ready` waits for it.

    `take` gives what it sends. While it is not ``busy`` with a cell, nothing but answers is kept of that.
    ``on_end`` is called in another thread when it has ended. ``make`` has it take a snapshot instead of
    serving.
    """

    def __init__(
        self,
        runtime: Runtime,
        deno: str,
        limits: Limits | None = None,
        *,
        wheels: Sequence[Path] = (),
        make: bool = False,
    ) -> None:
        limits = limits or Limits()
        self.cause = ""
        self.busy = True
        self.on_end: Callable[[], None] = lambda: None
        self._frames: deque[Frame] = deque()
        self._held = 0
        self._room = threading.Condition()
        self._answers: dict[int, queue.SimpleQueue[Frame | None]] = {}
        self._asked = 0
        # Readable while there is something to take, so that one can wait for it beside other things.
        self._bell, self._ring = socket.socketpair()
        self._bell.settimeout(0)
        self._ring.settimeout(0)
        self._ended = threading.Event()
        self._sending = threading.Lock()
        self._stderr = b""
        self._token = secrets.token_bytes(TOKEN_BYTES)
        # A short name that tells nothing: it can be seen from inside.
        self._folder = Path(tempfile.mkdtemp(prefix="rlm-"))
        try:
            self._process = self._start(runtime, deno, limits)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._bell.close()
            self._ring.close()
            raise
        self._watch = Watch(self._process.pid, limits)
        for work in (self._read, self._read_stderr, self._look):
            threading.Thread(target=work, name=f"sandbox-{work.__name__}", daemon=True).start()
        start: dict[str, Any] = {
            "token": self._token.hex(),
            "folder": str(self._folder / "files"),
            "snapshot": runtime.snapshot,
            "make": make,
            "settings": {"wheels": [f"/wheels/{wheel.name}" for wheel in wheels]},
        }
        self.send(start)
        for number, wheel in enumerate(wheels):
            self._put_wheel(number, wheel)

    def _start(self, runtime: Runtime, deno: str, limits: Limits) -> subprocess.Popen[bytes]:
        files = self._folder / "files"
        for each in (files, self._folder / "work", self._folder / "cache"):
            each.mkdir()
        runtime.copy_to(files)
        flags = [
            f"--wasm-max-mem-pages={limits.heap_mib * 16}",
            f"--max-old-space-size={HEAP_OF_SCRIPTS_MIB}",
            "--expose-gc",
        ]
        command = [
            *(deno, "run", *_PERMISSIONS, f"--allow-read={files}", f"--v8-flags={','.join(flags)}"),
            f"--import-map={files / IMPORTS}",
        ]
        environment = {
            "DENO_DIR": str(self._folder / "cache"),
            "DENO_NO_UPDATE_CHECK": "1",
            "DENO_NO_PACKAGE_JSON": "1",
            "NO_COLOR": "1",
            "HOME": "/nonexistent",
        }
        return subprocess.Popen(  # noqa: S603  Deno, with arguments of ours
            [*command, str(files / "supervisor.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self._folder / "work",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return not self._ended.is_set()

    def ready(self) -> str:
        """Wait until it serves; return its Python's version. Called once, before anything is asked of it.

        Raises:
            KernelStartError: it did not become ready.
        """
        end = time.monotonic() + START_SECONDS
        while True:
            frame = self.take(max(0.0, end - time.monotonic()))
            if frame is None and self.alive:
                self.kill(f"it was not ready within {START_SECONDS:g} s")
                self.wait()
            if frame is None or frame.op == "broken":
                cause = self.cause if frame is None else frame.header["reason"][:1000]
                raise KernelStartError(f"the sandbox ended while it started: {cause}", hint=self.last_words())
            if frame.op == "ready":
                # Nothing of the guest's has run yet, and from here on nothing may be written.
                with contextlib.suppress(OSError):
                    confine(self._process.pid)
                # It has read what it needs; and whoever is killed can't tidy up later.
                shutil.rmtree(self._folder, ignore_errors=True)
                self.busy = False
                return str(frame.header["python"])[:40]

    def fileno(self) -> int:
        """A descriptor that is readable when `take` may have something."""
        return self._bell.fileno()

    def take(self, seconds: float = 0.0) -> Frame | None:
        """Return the next frame, or None if none came in time or it has ended."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                self._bell.recv(65_536)
            with self._room:
                if self._frames:
                    frame = self._frames.popleft()
                    self._held -= len(frame.body)
                    self._room.notify()
                    if self._frames:
                        self.wake()
                    return frame
            left = end - time.monotonic()
            if not self.alive:
                self.wake()
                return None
            if left <= 0:
                return None
            select.select([self._bell], [], [], left)

    def ask(self, header: Mapping[str, Any], body: bytes | memoryview = b"") -> Frame | None:
        """Send something that is answered, and return the answer; None if there won't be one."""
        with self._room:
            self._asked += 1
            id_ = self._asked
            answers = self._answers[id_] = queue.SimpleQueue()
        try:
            if not self.alive:
                return None
            self.send({**header, "id": id_}, body)
            return answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            return None
        finally:
            with self._room:
                self._answers.pop(id_, None)

    def wake(self) -> None:
        """Have `fileno` be readable, for whoever waits for it; from any thread."""
        with contextlib.suppress(BlockingIOError, InterruptedError, OSError):
            self._ring.send(b"\0")

    def _keep(self, frame: Frame) -> None:
        """Hand a frame to whom it is for, waiting while too much is not taken."""
        with self._room:
            if frame.op in ("stored", "answer"):
                answers = self._answers.get(frame.header["id"])
                if answers is not None:
                    answers.put(frame)
                return
            while self._held > HELD_BYTES and self.busy and self.cause == "":
                self._room.wait(EVERY_SECONDS)
            if not self.busy:
                return
            self._frames.append(frame)
            self._held += len(frame.body)
        self.wake()

    def send(self, header: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
        """Send a frame, from any thread; one that has ended gets nothing."""
        pipe = self._process.stdin
        assert pipe is not None
        with self._sending, contextlib.suppress(OSError, ValueError):
            pipe.write(pack(header, body))
            pipe.flush()

    def kill(self, cause: str) -> None:
        """End it at once, whatever it does; the first cause counts."""
        self.cause = self.cause or cause
        self._process.kill()

    def wait(self) -> None:
        """Wait until a sandbox that is being ended is gone, but not for ever."""
        self._ended.wait(END_SECONDS)

    def close(self) -> None:
        """End it, wait until it is gone, and remove its folder. Safe to call twice."""
        self.kill("it was closed")
        self.wait()
        with self._sending, contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._bell.close()
        self._ring.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _put_wheel(self, number: int, wheel: Path) -> None:
        content = wheel.read_bytes()
        header = {"op": "put", "id": -1 - number, "path": f"/wheels/{wheel.name}", "offset": 0}
        self.send({**header, "total": len(content)}, content)

    def _read(self) -> None:
        reader = Reader(self._token)
        pipe = self._process.stdout
        assert pipe is not None
        try:
            while data := os.read(pipe.fileno(), READ_BYTES):
                for frame in reader.feed(data):
                    self._keep(frame)
        except Tampered as error:
            self.kill(f"the sandbox was tampered with: {error}")
        except Exception as error:  # noqa: BLE001  an edge: whatever comes out of there, the end is the same
            self.kill(f"its output could not be read: {type(error).__name__}")
        code = self._process.wait()
        pipe.close()
        self.cause = self.cause or _EXITS.get(code) or _exit(code)
        self._ended.set()
        with self._room:
            for answers in self._answers.values():
                answers.put(None)
        self.wake()
        self.on_end()

    def _read_stderr(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(pipe.fileno(), 65_536):
                self._stderr = (self._stderr + data)[-STDERR_BYTES:]
        pipe.close()

    def _look(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            passed = self._watch.passed(busy=self.busy)
            if passed:
                self.kill(passed)

    def last_words(self) -> str:
        """Return the end of what Deno said of itself."""
        return self._stderr.decode("utf-8", "replace").strip()[-1000:]


def _exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process exited with code {code}"


def take_snapshot(runtime: Runtime, deno: str, seconds: float) -> bytes:
    """Return the memory of a sandbox that has only just loaded its own programs.

    Raises:
        KernelStartError: it did not come to that.
    """
    child = Child(runtime, deno, make=True)
    end = time.monotonic() + seconds
    pieces: list[bytes] = []
    total = -1
    try:
        while total < 0 or sum(map(len, pieces)) < total:
            frame = child.take(max(0.0, end - time.monotonic()))
            if frame is None and child.alive:
                raise KernelStartError(f"Pyodide did not start within {seconds:g} s")
            if frame is None:
                raise KernelStartError(f"Pyodide did not start: {child.cause}", hint=child.last_words())
            if frame.op == "broken":
                raise KernelStartError(f"Pyodide did not start: {frame.header['reason'][:1000]}")
            if frame.op == "snapshot" and not pieces and total < 0:
                total = int(frame.header["size"])
            elif frame.op == "snapshot":
                pieces.append(bytes(frame.body))
    finally:
        child.close()
    return b"".join(pieces)
