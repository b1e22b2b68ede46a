"""See that a run's answer has the shape that the caller asked for, and send it back once if it hasn't.

One `AnswerCheck` serves one run. The answer that is sent back buys the run one more turn, and what is given
next must be right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from .. import prompts
from ..answer import Answer
from ..errors import OutputError
from ..repl.base import FinalAnswer
from ..shapes import Faulty, Shape, read

__all__ = ["AnswerCheck"]


class AnswerCheck:
    """Judges the answers of one run. Without a ``shape`` every answer will do."""

    def __init__(self, shape: Shape | None) -> None:
        self._shape = shape
        self.extra_turns = 0

    def take(self, final: FinalAnswer, notes: list[str]) -> FinalAnswer | None:
        """Return ``final`` with the value that the caller asked for, or note what is wrong with it.

        Raises:
            OutputError: it is wrong for the second time.
        """
        final, faults = self._judged(final)
        if not faults:
            return final
        if self.extra_turns:
            raise OutputError(f"the answer is not of the shape asked for: {'; '.join(faults)}")
        self.extra_turns = 1
        notes.append(prompts.faulty_answer(faults))
        return None

    def _judged(self, final: FinalAnswer) -> tuple[FinalAnswer, Sequence[str]]:
        """Return ``final`` with the value that was asked for, and what is wrong with it, if anything is."""
        if self._shape is None:
            return final, ()
        faults: Sequence[str] = self._shape.faults(final.value)
        if not faults:
            return final, ()
        # Written as text, or handed over as JSON text.
        if isinstance(final.value, str):
            try:
                return replace(final, value=read(final.value, self._shape)), ()
            except Faulty as error:
                return final, error.faults
        if final.value is None and final.text != "None":
            return final, ["it has no JSON value", *faults]
        return final, faults

    @property
    def schema(self) -> str:
        """The JSON schema asked for, as text; empty without one."""
        return "" if self._shape is None else json.dumps(self._shape.schema, ensure_ascii=False)

    def revived(self, answer: Answer) -> Answer:
        """Return ``answer`` with the Python value that was asked for in place of its JSON value."""
        if self._shape is None or not answer:
            return answer
        return replace(answer, value=self._shape.revive(answer.value))
