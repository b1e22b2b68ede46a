"""Which answers of a root model are taken, and what it is told of those that are not.

The rules are those of docs/repl.md, "How a reply is read".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import dialect, feedback, prompts
from ..repl.base import FinalAnswer

if TYPE_CHECKING:
    from .run import Run

__all__ = ["Judge"]


class Judge:
    """Judges the answers of ``run``. It refuses once at most what was given before anything was seen."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._refused = False

    def of_code(self, final: FinalAnswer | None, number: int, notes: list[str]) -> FinalAnswer | None:
        """Judge an answer that block ``number`` gave: in a first reply, nothing may have been seen yet."""
        if final is not None and self._run.turn == 1 and number > 1 and not self._refused:
            self._refuse(notes)
            return None
        return final

    async def of_text(
        self, final: dialect.TextFinal, cells: Sequence[feedback.CellFeedback], notes: list[str]
    ) -> FinalAnswer | None:
        """Judge ``FINAL(...)`` and ``FINAL_VAR(...)`` written beside, or instead of, code."""
        run = self._run
        if final.kind == "FINAL" and cells:
            notes.append(prompts.REFUSED_FINAL)
            return None
        if any(cell.status != "ok" for cell in cells):
            return None
        if run.turn == 1 and not self._refused and (cells or run.contexts):
            self._refuse(notes)
            return None
        # Small models write FINAL(total) for the variable of that name.
        if final.kind == "FINAL" and final.argument not in run.variables:
            return FinalAnswer(final.argument, final.argument, "FINAL")
        result = await run.execute(f"FINAL_VAR({final.argument!r})", len(cells) + 1)
        if result.final is None:
            notes.append(prompts.undefined_final_var(final.argument, result.variables))
        return result.final

    def _refuse(self, notes: list[str]) -> None:
        self._refused = True
        notes.append(prompts.REFUSED_UNSEEN)
