"""What a person's steering means to one run: waiting, notes for the model, cells refused, edited or added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .. import feedback
from ..events import Notice
from . import asides, reports
from .steering import Approval, Refusal

if TYPE_CHECKING:
    from .run import Run

__all__ = ["Reins"]


class Reins:
    """The steering of the whole tree, as ``run`` feels it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steering = run.engine.steering

    async def between_turns(self) -> list[str]:
        """Wait where a person wants it, and return what they have to say to the next turn."""
        run, steering = self._run, self._steering
        await steering.approve_cost(self._approval("cost"))
        if run.depth:
            return []
        notes = []
        await steering.unpaused(tell=self._tell)
        for item in steering.take():
            if isinstance(item, str):
                notes.append(asides.said(item))
            else:
                result = await run.execute(item.code, 0)
                shown = feedback.cells_message([reports.of_cell(1, result)])
                notes.append(asides.user_cell(item.code, str(shown)))
        return notes

    async def approved(self, code: str, number: int, notes: list[str]) -> str | None:
        """Return the code that may run as block ``number``, None if none may; ``notes`` tell the model."""
        verdict = await self._steering.approved_cell(self._approval("cell", code, number))
        if isinstance(verdict, Refusal):
            notes.append(asides.refused(number, verdict.reason))
            self._tell(f"block {number} of turn {self._run.turn} was refused")
            return None
        if verdict != code:
            notes.append(asides.edited(number, verdict))
            self._tell(f"block {number} of turn {self._run.turn} was edited")
        return verdict

    def let_go(self) -> None:
        """Tell of what was said too late to be taken up."""
        if not self._run.depth and self._steering.take():
            self._tell("the run ended before your last message was taken up")

    def _approval(self, kind: Literal["cell", "cost"], code: str = "", block: int = 0) -> Approval:
        run = self._run
        return Approval(kind, run.id, run.depth, run.turn, run.ledger.total.cost_usd, code, block)

    def _tell(self, text: str, state: Literal["", "paused", "running"] = "") -> None:
        self._run.emit(Notice(run=self._run.id, text=text, state=state))
