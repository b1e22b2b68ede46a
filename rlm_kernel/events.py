"""A run as a stream of events: the only thing that panel, notebook, traces, metrics and service read.

One run of the engine is a sequence of turns; a turn asks the root model (a *call*), then executes the
code blocks of its reply (*cells*); a cell may make further calls, and a call of kind ``rlm_query`` may
hold a child run, whose events stand in the same stream with a ``run`` of their own::

    RunStarted KernelStarted? MessageAdded*
      ( CallStarted CallDelta* CallFinished MessageAdded
        ( CellStarted ( CallStarted ... CallFinished | CellOutput )* CellFinished )* MessageAdded )*
    RunFinished

``seq`` numbers the events of one tree from 0 without gaps and ``time`` is seconds since the epoch;
both are set by `Emitter`. Ids are unique within a tree. Readers can't change a run.

`to_json` and `from_json` are the one JSON form, `VERSION` its number.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

from . import evidence
from .estimate import Estimate
from .evidence import Quote
from .messages import Message
from .outputs import Output
from .usage import Usage

__all__ = [
    "TYPES",
    "VERSION",
    "CallDelta",
    "CallFinished",
    "CallKind",
    "CallStarted",
    "CellFinished",
    "CellOutput",
    "CellStarted",
    "CellStatus",
    "Compacted",
    "ContextInfo",
    "Emitter",
    "Event",
    "KernelLost",
    "KernelStarted",
    "MessageAdded",
    "Notice",
    "RunFinished",
    "RunStarted",
    "RunStatus",
    "Source",
    "from_json",
    "to_json",
]

VERSION = 1

CallKind = Literal["root", "llm_query", "rlm_query", "tool"]
CellStatus = Literal["ok", "error", "interrupted", "timed_out", "died", "cancelled"]
RunStatus = Literal["answered", "exhausted", "over_budget", "timed_out", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """A context as the root model is told of it. ``size`` is in ``unit`` (chars, bytes, items, rows)."""

    name: str
    type: str
    size: int
    unit: str
    description: str
    sha256: str | None = None
    path: str | None = None


class Source(Protocol):
    """A context as far as readers of events need it: its name and the texts in it."""

    @property
    def name(self) -> str:
        """The variable's name in the REPL."""
        ...

    def texts(self) -> Iterable[tuple[str, str]]:
        """Yield (where, text) for every text in the context; ``where`` is a path into it, or empty."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    run: str
    seq: int = -1
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(_Event):
    """A run, or a child run, begins.

    ``sources`` are the contexts themselves, for readers in this process; JSON leaves them out. A root run
    has an ``estimate`` of what one plain call would take; ``direct`` tells that this is tried. Runs that
    are questions of one session share ``session``.
    """

    type: Literal["run_started"] = "run_started"
    parent_run: str | None = None
    parent_call: str | None = None
    session: str | None = None
    depth: int = 0
    query: str
    contexts: tuple[ContextInfo, ...] = ()
    model: str
    sub_model: str
    repl: str
    limits: Mapping[str, float | None] = field(default_factory=dict)
    package: str = ""
    estimate: Estimate | None = None
    direct: bool = False
    sources: tuple[Source, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStarted(_Event):
    """A kernel is ready with its contexts loaded. ``again`` is true when it replaces a lost one.

    ``digests`` holds, by name, the SHA-256 of the contexts as they were encoded for it.
    """

    type: Literal["kernel_started"] = "kernel_started"
    kernel: str
    backend: str
    implementation: str
    seconds: float
    again: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLost(_Event):
    """A kernel died or had to be killed; variables are gone. ``cause`` is one sentence."""

    type: Literal["kernel_lost"] = "kernel_lost"
    kernel: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(_Event):
    """The root conversation of ``run`` grew by one message; only `Compacted` takes any out."""

    type: Literal["message_added"] = "message_added"
    turn: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(_Event):
    """A model request, a child run, or one of the user's functions, begins.

    ``cell`` is the cell that asked, or None for the root's own turn. Calls of one batch share ``batch`` and
    are numbered by ``index``. ``messages`` are the request's own; a root turn's are the run's `MessageAdded`
    since its last `Compacted`, so there it is empty. ``tool`` is the name of the user's function, called with
    what the one message says; there ``model`` is empty.
    """

    type: Literal["call_started"] = "call_started"
    call: str
    kind: CallKind
    turn: int
    depth: int
    model: str
    cell: str | None = None
    batch: str | None = None
    index: int = 0
    messages: tuple[Message, ...] = ()
    tool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDelta(_Event):
    """A piece of text that a root model is writing. Not part of a trajectory."""

    type: Literal["call_delta"] = "call_delta"
    call: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(_Event):
    """A call ended. ``usage`` is this request's own: a child run's tokens stand in its own calls.

    ``error`` is None, or the failure's class name and message.
    """

    type: Literal["call_finished"] = "call_finished"
    call: str
    text: str = ""
    model: str = ""
    usage: Usage = Usage()
    finish_reason: str = ""
    attempts: int = 1
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted(_Event):
    """A code block of the root's reply starts to execute; ``block`` numbers those of one reply from 1.

    0 is a cell that the user has executed.
    """

    type: Literal["cell_started"] = "cell_started"
    cell: str
    turn: int
    block: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOutput(_Event):
    """A piece of output as it comes. Not part of a trajectory: `CellFinished` has them all."""

    type: Literal["cell_output"] = "cell_output"
    cell: str
    output: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFinished(_Event):
    """A cell ended. ``lost`` says what the model must know was lost, or is empty."""

    type: Literal["cell_finished"] = "cell_finished"
    cell: str
    status: CellStatus
    outputs: tuple[Output, ...] = ()
    seconds: float = 0.0
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted(_Event):
    """The root conversation of ``run`` goes on from ``messages``: a summary took the place of older turns.

    It had about ``tokens``; all of it is in the REPL as the variable ``variable``.
    """

    type: Literal["compacted"] = "compacted"
    turn: int
    messages: tuple[Message, ...]
    tokens: int
    variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(_Event):
    """Something a person watching should know: a retry, a refused answer, an unknown price.

    ``state`` is there where the run is paused, or goes on, from now on.
    """

    type: Literal["notice"] = "notice"
    text: str
    state: Literal["", "paused", "running"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(_Event):
    """A run ended. ``usage`` and ``calls`` are its whole tree's; ``value`` is the answer as JSON, or None.

    ``evidence`` are the quotes that came with the answer, checked.
    """

    type: Literal["run_finished"] = "run_finished"
    status: RunStatus
    text: str
    value: Any = None
    reason: str = ""
    iterations: int = 0
    calls: int = 0
    usage: Usage = Usage()
    seconds: float = 0.0
    evidence: tuple[Quote, ...] = ()


Event = (
    RunStarted
    | KernelStarted
    | KernelLost
    | MessageAdded
    | CallStarted
    | CallDelta
    | CallFinished
    | CellStarted
    | CellOutput
    | CellFinished
    | Compacted
    | Notice
    | RunFinished
)

_TYPES: dict[str, type[Any]] = {
    str(kind.__dataclass_fields__["type"].default): kind
    for kind in (
        RunStarted,
        KernelStarted,
        KernelLost,
        MessageAdded,
        CallStarted,
        CallDelta,
        CallFinished,
        CellStarted,
        CellOutput,
        CellFinished,
        Compacted,
        Notice,
        RunFinished,
    )
}
# What is not a plain JSON value in an event, by the name of its field.
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "contexts": lambda value: tuple(ContextInfo(**each) for each in value),
    "estimate": lambda value: value and Estimate(**{**value, "cost_usd": _decimal(value["cost_usd"])}),
    "evidence": lambda value: tuple(map(evidence.from_json, value)),
    "messages": tuple,
    "output": lambda value: Output(**value),
    "outputs": lambda value: tuple(Output(**each) for each in value),
    "usage": lambda value: Usage(**{**value, "cost_usd": _decimal(value["cost_usd"])}),
}


def to_json(event: Event) -> dict[str, Any]:
    """Return ``event`` as plain JSON values, with the version of this form under ``v``."""
    fields = {
        each.name: _plain(getattr(event, each.name))
        for each in dataclasses.fields(event)
        if each.name != "sources"
    }
    return {"v": VERSION, **fields}


def from_json(data: Mapping[str, Any]) -> Event:
    """Return the event that `to_json` made ``data`` of.

    Raises:
        ValueError: another version, or an unknown type.
    """
    if data.get("v") != VERSION:
        raise ValueError(f"event of version {data.get('v')!r}; this package reads version {VERSION}")
    kind = _TYPES.get(str(data.get("type")))
    if kind is None:
        raise ValueError(f"event of unknown type {data.get('type')!r}")
    known = {each.name for each in dataclasses.fields(kind)}
    values = {
        name: _DECODERS.get(name, lambda same: same)(value) for name, value in data.items() if name in known
    }
    event: Event = kind(**values)
    return event


def _decimal(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value


TYPES = tuple(_TYPES)
"""The types of events."""


class Emitter:
    """Number and date events and hand them to every reader, in order.

    One emitter serves a whole tree. Readers are plain functions called on the engine's loop: they must be
    quick. One that raises is dropped and named in a `Notice` to the others: no reader can break a run.
    """

    def __init__(self, readers: Iterable[Callable[[Event], None]] = ()) -> None:
        self._readers = list(readers)
        self._seq = 0
        self._waiting: deque[Event] = deque()

    def add(self, reader: Callable[[Event], Any]) -> None:
        """Give ``reader`` all further events, after those that are there."""
        self._readers.append(reader)

    def remove(self, reader: Callable[[Event], Any]) -> None:
        """Give ``reader`` no more events, if it got any."""
        if reader in self._readers:
            self._readers.remove(reader)

    def emit(self, event: Event) -> None:
        """Stamp ``event`` and hand it on; where a reader emits it, once all have the event before."""
        self._waiting.append(event)
        if len(self._waiting) > 1:
            return
        while self._waiting:
            try:
                self._hand_on(dataclasses.replace(self._waiting[0], seq=self._seq, time=time.time()))
            finally:
                self._waiting.popleft()

    def _hand_on(self, event: Event) -> None:
        self._seq += 1
        for reader in tuple(self._readers):
            try:
                reader(event)
            except Exception as error:  # noqa: BLE001  an edge: readers are the user's code
                self.remove(reader)
                name = getattr(reader, "__qualname__", type(reader).__name__)
                self.emit(Notice(run=event.run, text=f"reader {name} failed and was dropped: {error!r}"))
