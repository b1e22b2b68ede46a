"""Named sessions: what outlives the process that asks, and how the next one finds it again.

The variables and the loaded contexts live in a kernel of a gateway, which ends itself when nobody came for as
long as its idle expiry says. A record on this machine, which only its user can read, holds what is needed to
come back, and to begin anew where the kernel is gone: its id, the contexts, the questions and answers. No
token is in it.

Invariant: while a `Named` is open, it holds the lock of its record, so that two processes never drive one
kernel.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from ...context import Context
from ...errors import ConfigError, InputError, KernelError
from ...events import ContextInfo
from .address import Gateway

__all__ = ["IDLE_SECONDS", "Named", "Record", "records", "state_folder"]

IDLE_SECONDS = 3600.0
"""How long the kernel of a named session waits for the next question, unless it is told otherwise."""

LEAST_IDLE_SECONDS = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"context-[0-9a-f]{16}")
VERSION = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A context of a session: ``file`` has its encoded bytes, whose digest is ``sha256``."""

    name: str
    format: str
    file: str
    sha256: str
    info: Mapping[str, Any]
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down of a session. ``used`` is when it was last asked, in seconds since 1970."""

    name: str
    id: str
    url: str
    kernel_name: str
    idle: float
    created: float
    used: float
    kernel: str = ""
    contexts: tuple[Kept, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    variables: tuple[str, ...] = ()
    version: int = field(default=VERSION)


def state_folder(given: str | None) -> Path:
    """Return the folder of the records: ``given``, or where programs keep such things."""
    if given:
        return Path(given).expanduser() / "sessions"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    else:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "rlm-kernel" / "sessions"


def check_name(name: str) -> str:
    """Return the name of a session.

    Raises:
        InputError: it can't be one, since it is a folder's as well.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
        raise InputError(
            f"{str(name)[:80]!r} can't be the name of a session",
            hint="use up to 64 letters, digits, dots, dashes and underscores",
        )
    return name


def records(folder: Path) -> Iterator[Record]:
    """Yield the records in ``folder``, by name; what is none is passed over."""
    for path in sorted(folder.glob("*/record.json")):
        with suppress(InputError, OSError):
            yield _read(path)


class Named:
    """The session ``name``, opened: its record, its lock, and the way to its kernel.

    Raises:
        InputError: it is in use, belongs to another gateway, or its record can't be read.
    """

    def __init__(self, folder: Path, name: str, gateway: Gateway, idle: float | None = None) -> None:
        if idle is not None and not idle >= LEAST_IDLE_SECONDS:
            raise InputError(
                f"idle={idle!r} is too short for a session", hint=f"give {LEAST_IDLE_SECONDS:g} s or more"
            )
        self.gateway = gateway
        self._folder = folder / check_name(name)
        try:
            self._lock: IO[str] | None = _locked(self._folder, name)
        except OSError as error:
            raise InputError(
                f"the session {name!r} can't be recorded in {self._folder}: {error.strerror}",
                hint="RLM_STATE_DIR names another folder",
            ) from None
        try:
            self.record = self._found(name, idle)
        except BaseException:
            self.release()
            raise
        self._waiting: Any = None

    def _found(self, name: str, idle: float | None) -> Record:
        path = self._folder / "record.json"
        if path.exists():
            record = _read(path)
            if record.url != self.gateway.url:
                raise InputError(
                    f"the session {name!r} is on {record.url}, not on {self.gateway.url}",
                    hint=f"choose another name, or end it: jupyter rlm sessions stop {name}",
                )
            return record
        now = time.time()
        return Record(
            name=name,
            id=f"s{secrets.token_hex(6)}",
            url=self.gateway.url,
            kernel_name=self.gateway.kernel_name,
            idle=float(idle or IDLE_SECONDS),
            created=now,
            used=now,
        )

    # What is written down ---------------------------------------------------------------------------

    def contexts(self) -> dict[str, Context]:
        """Return the contexts by name, as they were kept."""
        found = {}
        for kept in self.record.contexts:
            path = self._folder / kept.file
            if path.is_file():
                info = ContextInfo(**{**kept.info, "name": kept.name})
                context = Context.spooled(kept.name, kept.format, path, info)
                found[kept.name] = replace(context, lazy=kept.lazy)
        return found

    def digest(self, name: str) -> str | None:
        """Return the digest of the context of this name."""
        return next((kept.sha256 for kept in self.record.contexts if kept.name == name), None)

    def keep(self, context: Context) -> Context:
        """Return ``context`` with its encoded bytes in a file of the session's."""
        if context.file is not None and context.file.parent == self._folder:
            return context
        return context.spool(self._folder / f"context-{secrets.token_hex(8)}")

    def note(self, **changes: Any) -> None:
        """Write ``changes`` to the record down."""
        self.record = replace(self.record, used=time.time(), **changes)
        path = self._folder / "record.json"
        new = path.with_name(f"record-{secrets.token_hex(4)}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self.record), file)
        new.replace(path)

    def note_contexts(self, contexts: Mapping[str, Context]) -> None:
        """Write down which contexts there are, each kept by `keep`; forget the files of others."""
        digests = {kept.file: kept.sha256 for kept in self.record.contexts}
        kept = []
        for name, context in contexts.items():
            assert context.file is not None
            file = context.file.name
            info = asdict(context.info())
            kept.append(
                Kept(name, context.format, file, digests.get(file) or context.digest(), info, context.lazy)
            )
        self.note(contexts=tuple(kept))
        used = {each.file for each in kept}
        for path in self._folder.glob("context-*"):
            if path.name not in used:
                path.unlink(missing_ok=True)

    # The kernel -------------------------------------------------------------------------------------

    async def resume(self) -> str:
        """Connect to the kernel that was left, if it is there still; return what was lost, or nothing.

        Raises:
            ConfigError: its gateway can't be asked, so that nobody knows.
        """
        from .named_session import NamedSession, NamedTransport  # noqa: PLC0415  on use
        from .rest import GatewayRefusedError, GatewayUnreachableError  # noqa: PLC0415  on use

        if not self.record.kernel:
            return ""
        session = NamedSession(NamedTransport(self.gateway, self.record.kernel), self)
        try:
            await session.prepare()
        except (GatewayRefusedError, GatewayUnreachableError) as error:
            await session.close()
            raise ConfigError(str(error), hint=error.hint) from None
        except KernelError as error:
            session.ends = True
            await session.close()
            self.note(kernel="", variables=())
            return f"the kernel of the session {self.record.name!r} is gone: {error}"
        except BaseException:
            await session.close()
            raise
        self._waiting = session
        return ""

    def __call__(self) -> Any:
        """Return the session in the kernel that was left, or else one with a new kernel."""
        from .named_session import NamedSession, NamedTransport  # noqa: PLC0415  on use

        session, self._waiting = self._waiting, None
        return session or NamedSession(NamedTransport(self.gateway), self)

    async def aclose(self) -> None:
        """Leave the kernel to who comes next, and let go of the record."""
        session, self._waiting = self._waiting, None
        if session is not None:
            await session.close()
        self.release()

    async def stop(self) -> None:
        """End the kernel, and delete all that is recorded."""
        from .rest import Rest  # noqa: PLC0415  on use

        if self.record.kernel:
            async with Rest(self.gateway) as rest:
                await rest.delete(self.record.kernel)
        self.forget()

    def forget(self) -> None:
        """Delete all that is recorded."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the record. Safe to call twice."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()


def _read(path: Path) -> Record:
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != VERSION:
            raise ValueError(f"it is of version {data['version']!r}")
        kept = tuple(Kept(**each) for each in data["contexts"])
        if not all(_FILE.fullmatch(each.file) for each in kept):
            raise ValueError("a context is elsewhere")
        names = tuple(map(str, data["variables"]))
        return Record(**{**data, "contexts": kept, "history": tuple(data["history"]), "variables": names})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"the record {path} can't be read: {error}", hint="delete its folder, and the session begins anew"
        ) from None


def _locked(folder: Path, name: str) -> IO[str]:
    """Return the lock file in ``folder``, held until it is closed, or the process ends."""
    path = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            file = _lock(path, name)
        except FileNotFoundError:
            continue  # deleted with its session, just now
        # So this one may be: then it is nobody's, and who comes next makes another.
        with suppress(FileNotFoundError):
            if sys.platform == "win32" or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _lock(path: Path, name: str) -> IO[str]:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415  Windows has it

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415  Windows has none

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = "" if sys.platform == "win32" else file.read(20).strip()
        file.close()
        raise ConfigError(
            f"the session {name!r} is in use" + (f" by process {holder}" if holder.isdigit() else ""),
            hint="one process at a time can have it; close it there, or choose another name",
        ) from None
    if sys.platform != "win32":
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    return file
