"""What a person has to say to a run while it goes on: messages, cells, pauses, approvals.

One `Steering` serves a whole tree and is used on its event loop only. What is said to a run is taken up
before its next root turn. While a person is waited for, the clock of the time budget stands still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from ..answer import Answer
from ..errors import BudgetExceededError, InputError
from ..ledger import Ledger

__all__ = ["Approval", "Approver", "Refusal", "Steering", "UserCell"]

State = Literal["running", "paused", "waiting"]


@dataclass(frozen=True, slots=True)
class Approval:
    """What is asked of a person before a run goes on.

    ``kind`` is ``cell``, before the ``code`` of block ``block`` is executed, or ``cost``, before a turn after
    more than the set price was spent. ``cost_usd`` is what the tree has spent so far, None where unknown.
    """

    kind: Literal["cell", "cost"]
    run: str
    depth: int
    turn: int
    cost_usd: Decimal | None
    code: str = ""
    block: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """No, with a reason: a refused cell's is told to the model, a refused price's ends the run."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class UserCell:
    """Code that the user wants executed in the run's REPL before the next root turn."""

    code: str


Approver = Callable[[Approval], Awaitable[bool | str | Refusal]]
"""Answers an `Approval`: True to go on, False or a `Refusal` not to, or a text: the code to run instead."""


class Steering:
    """The reins of one tree; its `Engine` fills in the ledger, its root the clock and the outcome.

    ``approve`` is asked before every cell if ``cells`` is set, and each time that another ``above_usd`` was
    spent. What it raises ends the run and reaches its caller.
    """

    def __init__(
        self, approve: Approver | None = None, *, cells: bool = False, above_usd: float | None = None
    ) -> None:
        self.state: State = "running"
        self.clock: asyncio.Timeout | None = None
        self.ledger: Ledger | None = None
        self.outcome: Answer | None = None
        self._approve = approve
        self._cells = cells
        self._step = None if above_usd is None else Decimal(str(above_usd))
        self._threshold = self._step
        self._said: deque[str | UserCell] = deque()
        self._go = asyncio.Event()
        self._go.set()
        self._asking = asyncio.Lock()
        self._held = 0

    def add(self, item: str | UserCell) -> None:
        """Say something to the root, or have a cell run, before its next turn."""
        self._said.append(item)

    def take(self) -> list[str | UserCell]:
        """Return what was said since the last time, in order."""
        taken = list(self._said)
        self._said.clear()
        return taken

    def pause(self) -> None:
        """Let the root stop before its next turn."""
        self._go.clear()

    def resume(self) -> None:
        """Let a paused root go on."""
        self._go.set()

    async def unpaused(self, *, tell: Callable[[str, Literal["paused", "running"]], None]) -> None:
        """Wait while the run is paused."""
        if self._go.is_set():
            return
        tell("the run is paused", "paused")
        with self._off_the_clock("paused"):
            await self._go.wait()
        tell("the run goes on", "running")

    async def approved_cell(self, approval: Approval) -> str | Refusal:
        """Return the code to run, or why none is to be."""
        if self._approve is None or not self._cells:
            return approval.code
        verdict = await self._ask(self._approve, approval)
        return approval.code if verdict is True else verdict

    async def approve_cost(self, approval: Approval) -> None:
        """Ask whether to go on, if more than the threshold was spent.

        Raises:
            BudgetExceededError: the person said no.
        """
        if self._approve is None or self._step is None or self._threshold is None:
            return
        if approval.cost_usd is None or approval.cost_usd <= self._threshold:
            return
        verdict = await self._ask(self._approve, approval)
        if isinstance(verdict, str):
            raise InputError("an approval of a price was answered with a text", hint="answer True or False")
        if verdict is not True:
            raise BudgetExceededError(
                "usd",
                float(self._threshold),
                float(approval.cost_usd),
                message=f"{approval.cost_usd:.4f} USD were spent, and going on was not approved"
                + (f": {verdict.reason}" if verdict.reason else ""),
            )
        while self._threshold < approval.cost_usd:
            self._threshold += self._step

    async def _ask(self, approve: Approver, approval: Approval) -> Literal[True] | str | Refusal:
        # One at a time, since it is one person who is asked.
        with self._off_the_clock("waiting"):
            async with self._asking:
                verdict = await approve(approval)
        if verdict is True or isinstance(verdict, str | Refusal):
            return verdict
        if verdict is False:
            return Refusal()
        raise InputError(
            f"approve= returned {verdict!r}", hint="return True, False, Refusal(reason), or the code to run"
        )

    @contextmanager
    def _off_the_clock(self, state: State) -> Iterator[None]:
        """Stop the clock of the tree, also where several of its runs wait at once."""
        self._held += 1
        self.state = state
        if self.clock is not None:
            self.clock.reschedule(None)
        try:
            with nullcontext() if self.ledger is None else self.ledger.stopped():
                yield
        finally:
            self._held -= 1
            if not self._held:
                self.state = "running"
                left = None if self.ledger is None else self.ledger.seconds_left
                if self.clock is not None and left is not None:
                    self.clock.reschedule(asyncio.get_running_loop().time() + left)
