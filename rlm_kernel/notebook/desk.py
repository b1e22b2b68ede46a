"""Where the questions of one notebook are asked: what stays open between them, and what they left.

Every question is asked in a session of its own, on the background's event loop, so that ``--continue`` finds
the kernel of the last one with its variables. That session is closed when another question begins one;
those of runs still under way, when these end. The trajectories of all runs are kept in a folder that goes
with the process.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import background
from ..config import Setting
from ..context import reads_files
from ..errors import ConfigError, InputError, RLMError
from ..ledger import Budget, TreeUsage
from .display import View
from .settings import NAMES

if TYPE_CHECKING:
    from ..answer import Answer
    from ..live import LiveRun
    from ..models.prices import Price
    from ..rlm import RLM
    from ..session import Session

__all__ = ["Asking", "Desk", "Entry"]

CLEAN_UP_SECONDS = 10.0
_BEAT_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class Entry:
    """One question that was asked, as far as it is kept: where its trajectory is, and how it ended.

    Of contexts only the ``names`` are kept, and the ``paths`` of those that were read from files. ``run`` is
    there while it goes on; without an ``answer`` after that it has failed.
    """

    number: int
    question: str
    trace: Path
    names: tuple[str, ...]
    paths: Mapping[str, Any]
    run: LiveRun | None
    answer: Answer | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a run to show: a question may be refused before one begins."""
        return self.run is not None or self.answer is not None or _size(self.trace) > 0

    @property
    def status(self) -> str:
        """The run's status."""
        if self.run is not None:
            return self.run.status
        return "failed" if self.answer is None else str(self.answer.status)

    @property
    def usage(self) -> TreeUsage:
        """What the run has spent so far."""
        if self.run is not None:
            return self.run.usage
        return TreeUsage() if self.answer is None else self.answer.usage

    @property
    def calls(self) -> int:
        """How many model requests the run has made so far."""
        if self.run is not None:
            return self.run.calls
        return 0 if self.answer is None else self.answer.total_calls


@dataclass(slots=True, eq=False)
class Asking:
    """A question under way: its run, what shows it, and the name that its answer is to get as well."""

    entry: Entry
    run: LiveRun
    view: View
    output: str | None = None
    answer: Answer | None = None
    conclusion: Future[None] | None = None

    def conclude(self) -> None:
        """Keep how the run has ended, and nothing of its texts."""
        self.entry.run = None
        if self.answer is not None:
            self.entry.answer = replace(self.answer, messages=(), repl_history=())


@dataclass(slots=True, eq=False)
class _Open:
    """An `RLM`, what it was made of, and its sessions."""

    rlm: RLM
    made_of: tuple[Any, ...]
    sessions: set[Session] = field(default_factory=set)


class Desk:
    """Asks questions, and keeps the runs of this process in `entries`, by number from 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._opened: list[_Open] = []
        self._session: Session | None = None
        self._loaded: dict[str, int] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def ask(
        self,
        question: str,
        contexts: Mapping[str, Any],
        settings: Mapping[str, Setting],
        *,
        view: View,
        prices: Mapping[str, Price],
        again: bool = False,
        share: bool = False,
        cite: bool = False,
        output: str | None = None,
    ) -> Asking:
        """Start a run and return it. With ``again`` it is another question to the last one's session.

        Raises:
            InputError: settings that can't be used, or no session to continue.
        """
        if again:
            session = self._session
            if session is None:
                raise InputError(
                    "there is no run to continue", hint="ask a question without --continue first"
                )
            # What it has already is not sent again, as long as the name stands for the same object.
            loaded = self._loaded
            contexts = {name: value for name, value in contexts.items() if loaded.get(name) != id(value)}
        else:
            session = self._open(settings, prices, share=share)
            self._loaded = {}
        self._loaded |= {name: id(value) for name, value in contexts.items()}
        number = len(self.entries) + 1
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="rlm-")
        trace = Path(self._folder.name, f"{number}.jsonl")
        run = session.start(
            question,
            contexts=contexts,
            in_background=True,
            readers=view.readers,
            save=trace,
            cite=cite,
        )
        paths = {name: value for name, value in contexts.items() if reads_files(value)}
        entry = Entry(number, question, trace, tuple(contexts), paths, run)
        self.entries.append(entry)
        return Asking(entry, run, view, output)

    def wait(self, asking: Asking) -> Answer:
        """Wait for the answer. An interrupt cancels the run, waits for its end, and goes on as such."""
        try:
            asking.answer = asking.run.wait()
        except KeyboardInterrupt:
            self.abandon(asking)
            raise
        return asking.answer

    @staticmethod
    def abandon(asking: Asking) -> None:
        """Cancel a run and wait for its end."""
        asking.run.cancel()
        with suppress(TimeoutError, RLMError):
            asking.answer = asking.run.wait(CLEAN_UP_SECONDS)

    async def until(self, asking: Asking) -> Answer:
        """Wait for the answer on any event loop; an interrupt, there a cancellation, is as in `wait`."""
        answer = asyncio.ensure_future(_answer(asking))
        try:
            # ipykernel's handler of the interrupt leaves word in the loop without waking it (seen in 7.4).
            while not answer.done():
                await asyncio.wait([answer], timeout=_BEAT_SECONDS)
        except asyncio.CancelledError:
            asking.run.cancel()
            await asyncio.wait([answer], timeout=CLEAN_UP_SECONDS)
            if answer.done():
                answer.exception()  # it is over: what else went wrong is not asked for
            raise KeyboardInterrupt from None
        return answer.result()

    def find(self, number: str = "") -> Entry:
        """Return the run of that number, the last one that has begun without.

        Raises:
            InputError: there is none.
        """
        if not self.entries:
            raise InputError("no question was asked in this notebook yet", hint="ask one: %rlm QUESTION")
        if not number:
            last = next((entry for entry in reversed(self.entries) if entry.begun), None)
            if last is None:
                raise InputError("no question asked here has begun a run", hint="ask one: %rlm QUESTION")
            return last
        if not number.isdecimal() or not 0 < int(number) <= len(self.entries):
            raise InputError(
                f"there is no run {number}", hint=f"runs have the numbers 1 to {len(self.entries)}"
            )
        found = self.entries[int(number) - 1]
        if not found.begun:
            raise InputError(
                f"run {number} never began: its question was refused", hint="%rlm cost lists all runs"
            )
        return found

    def running(self) -> tuple[Entry, LiveRun] | None:
        """Return the last run that is under way."""
        found = ((entry, entry.run) for entry in reversed(self.entries))
        return next(((entry, run) for entry, run in found if run is not None and not run.done), None)

    def close(self) -> None:
        """End all runs and kernels."""
        for entry in self.entries:
            if entry.run is not None:
                entry.run.cancel()
        opened, self._opened, self._session = self._opened, [], None
        for each in opened:
            with suppress(Exception):  # at the end of a process the loop may be gone
                background.run(_closed(each))
        if self._folder is not None:
            self._folder.cleanup()

    # Sessions ---------------------------------------------------------------------------------------

    def _open(self, settings: Mapping[str, Setting], prices: Mapping[str, Price], *, share: bool) -> Session:
        made_of = (
            share,
            *(settings[name].value for name in (*NAMES, "api_key")),
            tuple(sorted((name, repr(price)) for name, price in prices.items())),
        )
        opened = next((each for each in self._opened if each.made_of == made_of), None)
        if opened is None:
            opened = _Open(_rlm(settings, prices, share=share), made_of)
            self._opened.append(opened)
        session = opened.rlm.session()
        opened.sessions.add(session)
        former, self._session = self._session, session
        if former is not None:
            asyncio.run_coroutine_threadsafe(self._retire(former), background.loop())
        return session

    async def _retire(self, session: Session) -> None:
        """Close a session once its questions are answered, and what only it has used."""
        await session.aclose()
        for opened in self._opened:
            opened.sessions.discard(session)
        for opened in [each for each in self._opened if not each.sessions]:
            self._opened.remove(opened)
            await opened.rlm.aclose()


def _rlm(settings: Mapping[str, Setting], prices: Mapping[str, Price], *, share: bool) -> RLM:
    from ..rlm import RLM  # noqa: PLC0415  heavy

    value = {name: setting.value for name, setting in settings.items()}
    caps = ("usd", "tokens", "calls", "seconds", "errors")
    names = (
        *("model", "sub_model", "base_url", "api_key", "api", "direct_below", "repl"),
        *("gateway_url", "gateway_token", "kernel_name", "gateway_insecure"),
        *("max_depth", "max_iterations", "cell_timeout"),
    )
    if value["model"] is None:
        raise ConfigError("no model is set for this endpoint", hint="name one: %rlm config model NAME")
    return RLM(
        **{name: value[name] for name in names},
        budget=Budget(**{cap: value[f"budget_{cap}"] for cap in caps}),
        prices=prices,
        share=share,
        spare_kernels=1,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _answer(asking: Asking) -> Answer:
    asking.answer = await asking.run
    return asking.answer


async def _closed(opened: _Open) -> None:
    for session in opened.sessions:
        await session.aclose()
    await opened.rlm.aclose()
