"""What is told of a run: its first and its last event to those who watch, its cells to its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import __version__
from ..answer import Answer
from ..events import Notice, RunFinished, RunStarted
from ..feedback import CellFeedback
from ..repl.base import CellResult

if TYPE_CHECKING:
    from .run import Run

__all__ = ["finished", "of_cell", "refusals", "started"]


def started(run: Run) -> RunStarted:
    """Return the event that ``run`` begins."""
    settings, budget = run.settings, run.ledger.budget
    return RunStarted(
        run=run.id,
        parent_run=run.parent[0] if run.parent else None,
        parent_call=run.parent[1] if run.parent else None,
        session=run.standing.session if run.standing else None,
        depth=run.depth,
        query=run.query,
        contexts=tuple(context.info() for context in run.contexts),
        model=run.model.name,
        sub_model=run.engine.plan.at(run.depth + 1).name,
        repl=settings.backend,
        limits={
            "max_depth": settings.max_depth,
            "max_iterations": settings.max_iterations,
            "cell_timeout": settings.cell_timeout,
            "usd": budget.usd,
            "tokens": budget.tokens,
            "calls": budget.calls,
            "seconds": budget.seconds,
            "errors": budget.errors,
            "tool_calls": budget.tool_calls,
        },
        package=__version__,
        estimate=run.estimate,
        direct=run.direct,
        sources=tuple(run.contexts),
    )


def refusals(run: Run) -> Iterator[Notice]:
    """Yield what a person should know of files that could not be read into the contexts of ``run``."""
    for context in run.contexts:
        if context.reading.refused:
            yield Notice(run=run.id, text=f"{context.name}: {context.reading.refusals()}")


def finished(run: Run, answer: Answer) -> RunFinished:
    """Return the event that ``run`` ended with ``answer``."""
    return RunFinished(
        run=run.id,
        status=answer.status,
        text=answer.text,
        value=answer.value,
        reason=answer.reason,
        iterations=answer.iterations,
        calls=answer.total_calls,
        usage=run.ledger.total,
        seconds=answer.seconds,
        evidence=answer.evidence,
    )


def of_cell(number: int, result: CellResult) -> CellFeedback:
    """Return what the model is told of a cell: block ``number`` of a reply."""
    return CellFeedback(number, result.status, result.outputs, result.seconds, result.lost, result.variables)
