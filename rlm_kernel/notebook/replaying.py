"""Run the cells of an exported notebook again, without a model.

`replay` stands in the notebook's first code cell. It restores the contexts, binds the names of the REPL, and
answers what the cells ask by the very code that answers cells of a run; in the place of models stand the
recorded replies. A reply is known by its cell and its prompt, whatever the order, since threads and tasks ask
in any. What is not as recorded is a divergence: it is said when its cell ends, and by `Replay.check`.
"""

from __future__ import annotations

import builtins
import getpass
import gzip
import json
import os
import sys
import tempfile
import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from .. import background, errors
from ..context import Context, collect
from ..errors import CallError, ContextError, InputError, ModelError, RequestRefusedError
from ..events import Emitter
from ..guest import calls, cells, decode
from ..guest.channels import CallFailed, Cell
from ..guest.lazy import LazyText
from ..ledger import Budget, Ledger
from ..messages import Message, sendable
from ..models.base import Model, Reply, Request
from ..models.plan import ModelPlan
from ..repl import wire
from ..repl.base import ToolCall
from ..repl.bootstrap import GuestSettings
from ..repl.uploads import Uploads
from ..runs.subcalls import Place, SubCalls
from ..runs.typedcalls import tool_text
from ..trace.jsonl import prompt_sha256
from ..usage import Usage
from .recording import RecordedCall, RecordedContext, Recording, code_sha256, inflated

__all__ = ["Replay", "replay", "restored"]

_current: Replay | None = None


def replay(
    data: str | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    contexts: Mapping[str, Any] | None = None,
) -> Replay:
    """Prepare this IPython shell for the cells of a recorded run.

    The recording is ``data``, or stands in the file at ``path``. ``contexts`` are values, or paths, to be
    taken for contexts that can't be found.

    Raises:
        InputError: the recording can't be read, a context is missing or is not the one of the run, or this
            process has no IPython shell.
    """
    global _current  # noqa: PLW0603  a shell runs one notebook
    found = sys.modules.get("IPython")
    shell = found.get_ipython() if found is not None else None
    if shell is None:
        raise InputError(
            "a recorded run is replayed in an IPython shell", hint="open the notebook in Jupyter"
        )
    recording = _read(data, path)
    values = restored(recording.contexts, contexts or {})
    if _current is not None:
        _current.detach()
    _current = Replay(shell, recording, values)
    return _current


class Replay:
    """A recorded run that is run again in ``shell``."""

    def __init__(self, shell: Any, recording: Recording, contexts: Mapping[str, Any]) -> None:
        self._recorded = _Recorded(recording)
        self._hooks = _Hooks(shell.events)
        self._hooks.register("pre_run_cell", lambda info: self._recorded.announce(info.raw_cell))
        host = _Host(recording, self._recorded)
        face = SimpleNamespace(user_ns=shell.user_ns, events=self._hooks)
        self._repl = cells.Repl(face, host, asdict(GuestSettings()), streams={})
        self._repl.contexts.update(contexts)
        self._repl.offer([[name, ""] for name in self._recorded.tools])
        self._repl.ready()

    @property
    def divergences(self) -> tuple[str, ...]:
        """What was not as recorded, a sentence each."""
        return tuple(self._recorded.divergences)

    def check(self) -> None:
        """Tell whether all went as recorded."""
        summary = self._recorded.summary()
        for number, text in enumerate(self.divergences, 1):
            print(f"{number}. {text}")  # noqa: T201  what the cell shows
        print(summary)  # noqa: T201  see above

    def detach(self) -> None:
        """Follow the cells no longer."""
        self._hooks.detach()


class _Hooks:
    """The shell's events, with what was registered here."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._registered: list[tuple[str, Callable[..., None]]] = []

    def register(self, event: str, function: Callable[..., None]) -> None:
        self._events.register(event, function)
        self._registered.append((event, function))

    def detach(self) -> None:
        for event, function in self._registered:
            with suppress(ValueError):
                self._events.unregister(event, function)
        self._registered.clear()


class _Recorded:
    """The recorded cells, which of them runs, and which of its calls were used."""

    def __init__(self, recording: Recording) -> None:
        self._cells = recording.cells
        self._answer = recording.answer
        self._unused: list[list[RecordedCall]] = [list(cell.calls) for cell in self._cells]
        self._by_hash: dict[tuple[str, str], list[RecordedCall]] = {}
        for cell in self._cells:
            for call in cell.calls:
                self._by_hash.setdefault((call.kind, call.sha256), []).append(call)
        self.tools = tuple(
            dict.fromkeys(call.tool for cell in self._cells for call in cell.calls if call.tool)
        )
        self.divergences: list[str] = []
        self._said = 0
        self._next = 0
        self._running: int | None = None
        self._announced: str | None = None
        self._count = 0
        self._ran: set[int] = set()

    def announce(self, code: str) -> None:
        """Note what the shell is about to run."""
        self._announced = code

    def begin(self) -> None:
        """Find the cell that begins now."""
        code, self._announced = self._announced, None
        self._running = None if code is None else self._index(code_sha256(code))
        if self._running is None:
            return
        for skipped in range(self._next, self._running):
            self._diverge(f"{self._name(skipped)} did not run as recorded: it was changed, or left out")
        self._next = self._running + 1
        self._ran.add(self._running)
        self._unused[self._running] = list(self._cells[self._running].calls)

    def _index(self, code: str) -> int | None:
        found = [number for number, cell in enumerate(self._cells) if cell.code == code]
        return next((each for each in found if each >= self._next), found[0] if found else None)

    def end(self, final: Mapping[str, Any] | None) -> None:
        """Note what the cell gave as the answer, and say what was not as recorded."""
        last = self._running == len(self._cells) - 1
        text = None if final is None else str(final.get("text"))
        if last and text != self._answer and not (text is None and self._answer is None):
            self._diverge(f"the answer is {_short(text)}, recorded is {_short(self._answer)}")
        self._running = None
        for each in self.divergences[self._said :]:
            sys.stderr.write(f"replay: {each}\n")
        self._said = len(self.divergences)

    def summary(self) -> str:
        """Return how it went, in a line."""
        for left in range(self._next, len(self._cells)):
            self._diverge(f"{self._name(left)} did not run as recorded: it was changed, or left out")
        self._next, self._said = len(self._cells), len(self.divergences)
        ran = f"{len(self._ran)} of {len(self._cells)} cells ran, {self._count} calls were answered"
        if not self.divergences:
            return f"As recorded: {ran}."
        return f"Not as recorded, in {len(self.divergences)} places: {ran}."

    def take(self, kind: str, sha256: str, what: str) -> RecordedCall:
        """Return the reply to a call.

        Raises:
            ModelError: nothing that could be it was recorded.
        """
        self._count += 1
        unused = self._unused[self._running] if self._running is not None else []
        for call in unused:
            if call.kind == kind and call.sha256 == sha256:
                unused.remove(call)
                return call
        where = "a changed or added cell" if self._running is None else self._name(self._running)
        elsewhere = self._by_hash.get((kind, sha256))
        if elsewhere:
            self._diverge(f"{where} makes a call that was recorded in another place: {_short(what)}")
            return elsewhere[0]
        for call in unused:
            if call.kind == kind:
                unused.remove(call)
                self._diverge(f"{where} asks something else than recorded, and gets what was: {_short(what)}")
                return call
        self._count -= 1
        self._diverge(f"{where} makes a call that is not recorded: {_short(what)}")
        raise ModelError(f"no reply to this is recorded: {_short(what)}")

    def _name(self, number: int) -> str:
        cell = self._cells[number]
        return f"the cell of turn {cell.turn}" + (f", block {cell.block}" if cell.block > 1 else "")

    def _diverge(self, text: str) -> None:
        self.divergences.append(text)


class _RecordedModel:
    """A model that answers from the recording."""

    def __init__(self, name: str, recorded: _Recorded) -> None:
        self.name = name
        self._recorded = recorded

    async def reply(self, request: Request) -> Reply:
        said = str(request.messages[-1]["content"])
        call = self._recorded.take("llm_query", prompt_sha256(request.messages), said)
        if call.error is not None:
            _fail(call.error)
        return Reply(call.text, Usage(), call.model or self.name)

    def stream(self, request: Request) -> Any:
        raise RequestRefusedError("a replay has no root turns")


class _RecordedTools:
    """The user's functions, answered from the recording."""

    def __init__(self, recorded: _Recorded) -> None:
        self._recorded = recorded

    def described(self, depth: int) -> tuple[tuple[str, str], ...]:
        return ()

    def stubs(self, depth: int) -> tuple[tuple[str, str], ...]:
        return ()

    def prepare(self, call: ToolCall, depth: int) -> Callable[[], Awaitable[Any]]:
        text = tool_text(call)
        asked: Message = {"role": "user", "content": sendable(text)}

        async def make() -> Any:
            found = self._recorded.take("tool", prompt_sha256([asked]), text)
            if found.error is not None:
                raise CallError(found.error.partition(": ")[2] or found.error, kind="tool")
            try:
                return json.loads(found.text)
            except ValueError:
                return found.text  # texts were written as they are

        return make


class _Host(calls.Host):
    """The host as the guest knows it: it answers from the recording, in this process."""

    def __init__(self, recording: Recording, recorded: _Recorded) -> None:
        self.cell: Cell | None = None
        self._recorded = recorded
        self._inputs = builtins.input, getpass.getpass
        self._folder = tempfile.TemporaryDirectory(prefix="rlm-replay-")
        self._uploads = Uploads(self._folder.name)
        models: list[Model] = [_RecordedModel(name, recorded) for name in recording.models]
        # The root's own comes first, and its sub-model second, also where they are one.
        plan = ModelPlan([models[0], *(models[1:] or models)])
        self._subcalls = SubCalls(
            plan,
            Ledger(Budget()),
            Emitter(),
            count(1),
            self._child if recording.max_depth > 1 else None,
            tools=_RecordedTools(recorded),
        )
        self._place = Place("replay", 0, 1, "replay")

    @property
    def forked(self) -> bool:
        return False

    def probe(self) -> dict[str, bool]:
        return {"control": True, "buffers": True}

    def introduce(self, op: str, args: dict[str, Any]) -> None:
        """Nobody has to know."""

    def request(self) -> None:
        return None

    def current(self) -> Cell:
        return self.cell or Cell(None, None)

    def begin(self) -> None:
        self.cell = Cell(None, None)
        self._inputs = builtins.input, getpass.getpass
        self._recorded.begin()

    def end(self, report: dict[str, Any]) -> None:
        self.cell = None
        builtins.input, getpass.getpass = self._inputs
        self._uploads.discard()
        self._recorded.end(report.get("final"))

    def ask(self, op: str, args: dict[str, Any] | None = None, buffers: Sequence[bytes] = ()) -> Any:
        return _value_of(background.run(self._answer(op, args or {}, buffers)))

    async def ask_async(
        self, op: str, args: dict[str, Any] | None = None, buffers: Sequence[bytes] = ()
    ) -> Any:
        return _value_of(await background.there(self._answer(op, args or {}, buffers)))

    def upload(self, format_: str, pieces: Iterable[bytes]) -> str:
        blob = os.urandom(9).hex()
        for number, piece in enumerate(pieces):
            self._uploads.add(wire.Put(blob, number, piece))
        return blob

    async def _answer(self, op: str, args: Mapping[str, Any], buffers: Sequence[bytes]) -> Any:
        """Return the outcome of a call; also a failure, which would be lost as an exception that is false."""
        envelope = {"rlm": wire.VERSION, "id": "replay", "op": op, **args}
        body = wire.parse(json.dumps(envelope), buffers).body
        held: list[Context] = []
        try:
            call: Any = self._uploads.attach(body, held) if isinstance(body, wire.RLMItems) else body
            outcomes = await self._subcalls.answer(call, self._place)
        except CallError as error:
            return error
        finally:
            for context in held:
                context.release()
        return wire.slots(outcomes) if getattr(call, "batched", False) else outcomes[0]

    async def _child(self, query: str, context: Context | None, call: str, model: str | None) -> str:
        asked: Message = {"role": "user", "content": sendable(query)}
        found = self._recorded.take("rlm_query", prompt_sha256([asked]), query)
        if found.error is not None:
            raise CallError(found.error.partition(": ")[2] or found.error, kind="model")
        return found.text


def _value_of(outcome: Any) -> Any:
    if isinstance(outcome, CallError):
        raise CallFailed(str(outcome), outcome.kind)
    return outcome


def _fail(error: str) -> NoReturn:
    """Raise a recorded failure again."""
    name, _, message = error.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ModelError):
        raise kind(message or name)
    raise CallError(message or error, kind="model")


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    text = " ".join(text.split())
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


# --- reading what the notebook needs --------------------------------------------------------------------


def _read(data: str | None, path: str | os.PathLike[str] | None) -> Recording:
    if data is not None:
        return Recording.read(data)
    if path is None:
        raise InputError("no recording", hint="this is called by the first code cell of an exported run")
    try:
        return Recording.unpack(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"the recording can't be read from {os.fspath(path)}: {error.strerror}",
            hint="it was written beside the notebook, and has to be taken along",
        ) from None


def restored(recorded: Sequence[RecordedContext], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of contexts by name; those ``given`` by name stand for what is recorded.

    Raises:
        InputError: some are missing, or are not those of the run.
    """
    values, missing = {}, []
    for each in recorded:
        if each.name in given:
            values[each.name] = collect(contexts={each.name: given[each.name]}, live=True)[0].value
            continue
        try:
            values[each.name] = _value(each)
        except (ContextError, decode.DecodeError, OSError, EOFError, zlib.error) as error:
            missing.append(f"{each.name}: {error}")
    if missing:
        raise InputError(
            "; ".join(missing), hint="hand it over: replay(..., contexts={'NAME': value}), a Path for a file"
        )
    return values


def _value(recorded: RecordedContext) -> Any:
    """Return a context, from the notebook, from where it was read, or from beside the notebook."""
    if recorded.data:
        return _decoded(recorded, inflated(b64decode(recorded.data)))
    if recorded.path and Path(recorded.path).exists():
        context = collect(contexts={recorded.name: Path(recorded.path)})[0]
        if context.digest() != recorded.sha256:
            raise ContextError(f"{recorded.path} is not what it was in the run")
        return _decoded(recorded, b"".join(context.pieces())) if recorded.lazy else context.value
    if recorded.file:
        with gzip.open(recorded.file) as file:
            return _decoded(recorded, file.read())
    raise ContextError(recorded.missing or f"there is no {recorded.path or 'file with it'}")


def _decoded(recorded: RecordedContext, data: bytes) -> Any:
    if sha256(data).hexdigest() != recorded.sha256:
        raise ContextError("what is kept of it is not what it was in the run")
    descriptor, path = tempfile.mkstemp(prefix="rlm-context-")
    with open(descriptor, "wb") as file:
        file.write(data)
    if recorded.lazy:
        return LazyText(path)
    try:
        return decode.decode_file(recorded.format, path)
    finally:
        os.unlink(path)
