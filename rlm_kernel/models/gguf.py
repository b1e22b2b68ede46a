"""Models from a GGUF file, on this machine: no key, no endpoint to set up (extra ``local``).

llama.cpp runs in a process of its own, so that its crash, or the system taking back its memory, is an error
and not the end of this one. It starts with the first request and ends with the model, or with this process.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ..config import FIELDS
from ..errors import ConfigError, EndpointError, MalformedReplyError, ModelError, UnreachableError
from ..usage import Usage
from .base import ModelOptions, Reply, Request
from .gguf_header import read_header
from .openai import OpenAIModel
from .prices import Price, own_price
from .retry import Backoff

__all__ = ["PREFIX", "GGUFModel"]

PREFIX = "gguf:"
LOAD_SECONDS = 600.0
LOG_BYTES = 4000
_SERVER = Path(__file__).with_name("gguf_server.py")


class GGUFModel:
    """A model in a file, answered for by llama.cpp.

    Args:
        path: The file.
        window: Tokens it is to take, prompt and reply together; fewer where it was trained on fewer. Memory
            grows with it.
        threads: Processors it may use; None: those that are idle when it starts, but never all, since
            llama.cpp slows down a hundredfold where others need the same ones.
        gpu_layers: Layers to compute on a graphics card, where there is one.
        options: How it is to write, where a request does not say.
        prices: USD per million tokens by model name or pattern; else it costs nothing.
        timeout: Seconds one request may take.

    Its name is ``gguf:`` and the file's name. It answers one request at a time; more wait.

    Raises:
        ConfigError: the file can't be used, or the extra is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        window: int = 16_384,
        threads: int | None = None,
        gpu_layers: int = 0,
        options: ModelOptions = ModelOptions(),
        prices: Mapping[str, Price] | None = None,
        timeout: float = 3600.0,
    ) -> None:
        file = Path(path).expanduser()
        if find_spec("xllamacpp") is None:
            raise ConfigError(
                f"{file.name} needs llama.cpp, which is not installed",
                hint="pip install 'rlm-kernel[local]'",
            )
        if window < 1 or timeout <= 0 or (threads is not None and threads < 1):
            raise ConfigError(
                f"window {window!r}, threads {threads!r}, timeout {timeout!r}", hint="they must be above 0"
            )
        header = read_header(file)
        trained = header.get(f"{header.get('general.architecture')}.context_length")
        self._name = PREFIX + file.name
        self._price = own_price(self._name, prices or {}) or Price(Decimal(0), Decimal(0))
        self.window = min(window, trained) if isinstance(trained, int) and trained > 0 else window
        self._options = options
        self._timeout = timeout
        settings = {"path": str(file.resolve()), "name": self._name, "n_ctx": self.window}
        self._process = _Process({**settings, "threads": threads, "gpu_layers": gpu_layers})
        self._model: OpenAIModel | None = None

    def __repr__(self) -> str:
        return f"GGUFModel({self._name!r})"

    @property
    def name(self) -> str:
        """The name under which usage is kept: ``gguf:`` and the file's name."""
        return self._name

    @property
    def price_known(self) -> bool:
        """Whether requests have a price: they have, if only that of nothing."""
        return True

    def cost(self, usage: Usage) -> Decimal:
        """Return what ``usage`` costs in USD."""
        return self._price.cost(usage)

    async def reply(self, request: Request) -> Reply:
        """Answer ``request``; see `rlm_kernel.models.base.Model.reply`."""
        model = await self._ready()
        try:
            return await model.reply(request)
        except (UnreachableError, MalformedReplyError) as error:
            failure = self._failure(error)
        raise failure

    async def stream(self, request: Request) -> AsyncGenerator[str | Reply, None]:
        """Answer ``request`` as it is written; see `rlm_kernel.models.base.Model.stream`."""
        model = await self._ready()
        try:
            async with aclosing(model.stream(request)) as pieces:
                async for piece in pieces:
                    yield piece
                return
        except (UnreachableError, MalformedReplyError) as error:
            failure = self._failure(error)
        raise failure

    async def open(self) -> None:
        """Load the model, if that has not happened yet."""
        await (await self._ready()).open()

    async def aclose(self) -> None:
        """End llama.cpp; another request would start it again."""
        model, self._model = self._model, None
        if model is not None:
            await model.aclose()
        await asyncio.to_thread(self._process.close)

    async def _ready(self) -> OpenAIModel:
        """Return the model behind llama.cpp's endpoint, which is started where it does not run.

        Raises:
            EndpointError: it can't be loaded.
        """
        if self._model is None or not self._process.runs:
            address, key = await asyncio.to_thread(self._process.start, self._name)
            url = f"{address}/v1"
            if self._model is None or self._model.base_url != url:
                self._model = OpenAIModel(
                    self._name,
                    base_url=url,
                    api_key=key,
                    options=self._options,
                    prices={self._name: self._price},
                    timeout=self._timeout,
                    # For a connection that was kept open and that the server has closed meanwhile.
                    max_retries=2,
                    backoff=Backoff(base=0.05),
                    max_concurrency=1,
                )
        return self._model

    def _failure(self, error: ModelError) -> ModelError:
        """Return what a request failed of: the error, or the end of the process behind it."""
        if self._process.ended() is None:
            return error
        return EndpointError(
            f"{self._name}: llama.cpp ended in the middle of a request: {self._process.cause()}",
            hint="the next request starts it again; a smaller window= or file needs less memory",
            model=self._name,
        )


class _Process:
    """The process of llama.cpp, and its start and end. Used from any thread."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._where = ("", "")

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self, name: str) -> tuple[str, str]:
        """Start it unless it runs; return its address and its key once it answers.

        Raises:
            EndpointError: it did not come to that.
        """
        with self._lock:
            if self.runs:
                return self._where
            threads = self._settings["threads"] or _idle_threads()
            settings = {**self._settings, "threads": threads, "key": f"local-{secrets.token_urlsafe(24)}"}
            said = self._launch(settings)
            if "address" not in said:
                cause = self.cause()
                self._stop()
                raise EndpointError(
                    f"{name} can't be loaded: {said.get('error') or 'llama.cpp ended'}: {cause}",
                    hint="check the file with llama.cpp itself; a smaller window= or file needs less memory",
                    model=name,
                )
            self._where = (said["address"], settings["key"])
            return self._where

    def _launch(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        self._stop()
        keys = {variable for field in FIELDS if field.secret for variable in field.variables}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by _stop
        child = self._child = subprocess.Popen(  # noqa: S603  this interpreter, a file of this package
            # -P: the modules beside that file must not stand in for others of the same name.
            [sys.executable, "-P", str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in keys},
            start_new_session=True,  # Ctrl-C is for this process to act upon
        )
        weakref.finalize(self, _end, child)
        limit = threading.Timer(LOAD_SECONDS, child.kill)
        limit.daemon = True
        limit.start()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(settings) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:
            line = ""
        finally:
            limit.cancel()
        if not line:
            child.wait()
        said: dict[str, Any] = json.loads(line) if line else {}
        return said

    def ended(self) -> int | None:
        """Return its exit code, None while it runs; a process whose sockets are gone ends in a moment."""
        if self._child is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._child.wait(1)
        return None

    def cause(self) -> str:
        """Return why it ended, as far as exit code and log tell."""
        code = self._child.poll() if self._child is not None else None
        log = ""
        if self._log is not None:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - LOG_BYTES))
            log = self._log.read().decode("utf-8", "replace")
        lines = [line.partition(" E ")[2] or line for line in log.splitlines() if line.strip()]
        said = " / ".join(dict.fromkeys(" ".join(line.split()) for line in lines[-3:]))
        said = said.replace(self._settings["path"], "the file")[:300]
        if code == -9:
            return f"it was killed, as the system does when memory runs out. {said}".strip()
        if any(word in log for word in ("alloc", "out of memory")):
            return f"not enough memory: {said}"
        return f"{said or 'no word of it'} (exit code {code})" if code else said or "no word of it"

    def close(self) -> None:
        """End it. Safe to call twice."""
        # A start under way holds the lock; its child's end is what ends it.
        if self._child is not None:
            _end(self._child)
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _end(child)
        log, self._log = self._log, None
        if log is not None:
            log.close()


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _idle_threads() -> int:
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(cores - 1, cores - math.ceil(load)))
