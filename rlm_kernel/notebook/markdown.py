"""A finished run as Markdown, and the pieces of it that a notebook shows as Markdown too.

No text of the run can end the block that it stands in: fences are longer than any in it, and what stands in
a heading is one line. None acts either: Markdown that could is shown as a block of text, see
`rlm_kernel.notebook.inert`.
"""

from __future__ import annotations

import re

from ..dialect import parse
from ..events import RunFinished
from ..outputs import Output
from .inert import acts, line
from .transcript import CallPart, CellPart, NotePart, RunPart

__all__ = [
    "calls_of",
    "child_run",
    "fenced",
    "heading",
    "headline",
    "outcome",
    "render",
    "shown_cell",
    "words",
]

CALL_CHARS = 500
CALLS = 20
_STATES = {
    "answered": "Answer",
    "exhausted": "Out of turns: a best effort, no answer",
    "over_budget": "Over budget: the best so far, no answer",
    "timed_out": "Out of time: the best so far, no answer",
    "cancelled": "Cancelled: the best so far, no answer",
    "failed": "Failed",
}


def render(run: RunPart) -> str:
    """Return a run as a Markdown document."""
    parts = [headline(run)]
    if run.started.contexts:
        described = "\n\n".join(fenced(info.description) for info in run.started.contexts)
        parts.append(f"{heading(2, 'Context')}\n\n{described}")
    parts += [f"*{line(note.text)}*" for note in run.notes]
    parts += _turns(run, 2)
    parts.append(outcome(run))
    return "\n\n".join(parts) + "\n"


def headline(run: RunPart) -> str:
    """Return the question, and what answered it."""
    started = run.started
    models = started.model if started.model == started.sub_model else f"{started.model}, {started.sub_model}"
    about = line(f"{models}; {started.repl} kernel; rlm-kernel {started.package}")
    question = started.query.strip()
    title = heading(1, question.split("\n", 1)[0][:200])
    whole = f"\n\n{words(question)}" if "\n" in question or len(question) > 200 else ""
    return f"{title}{whole}\n\n{about}"


def heading(level: int, text: str) -> str:
    """Return a heading of one line."""
    return f"{'#' * min(level, 6)} {line(text)}"


def words(text: str) -> str:
    """Return what a model wrote as the Markdown that it is, or as a block if it is more than to be read."""
    text = text.strip()
    return fenced(text) if acts(text) else text


def fenced(text: str, language: str = "text") -> str:
    """Return ``text`` as a block of code."""
    longest = max((len(each) for each in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def outcome(run: RunPart, level: int = 2) -> str:
    """Return how a run ended."""
    finished = run.finished
    if finished is None:
        return f"{heading(level, 'The record ends here')}"
    parts = [heading(level, _STATES.get(finished.status, finished.status)), words(finished.text)]
    if finished.reason:
        parts.append(f"*{line(finished.reason)}*")
    parts.append(_figures(finished))
    return "\n\n".join(part for part in parts if part)


def child_run(run: RunPart, level: int) -> str:
    """Return a child run, headings from ``level`` on."""
    question = run.started.query.strip()
    parts = [heading(level, f"Child run: {question[:200]}")]
    if len(question) > 200 or "\n" in question:
        parts.append(fenced(question))
    parts += [fenced(info.description) for info in run.started.contexts]
    parts += _turns(run, level + 1)
    parts.append(outcome(run, level + 1))
    return "\n\n".join(parts)


def shown_cell(cell: CellPart) -> str:
    """Return a cell, its outputs and its calls."""
    parts = [fenced(cell.started.code, "python")]
    finished = cell.finished
    if finished is None or finished.status not in ("ok", "error"):
        ended = "cancelled" if finished is None else finished.status.replace("_", " ")
        parts.append(f"*This cell was not run to its end: {ended}.*")
    if finished is not None:
        parts += [_output(each) for each in finished.outputs]
        if finished.lost:
            parts.append(f"*{line(finished.lost)}*")
    return "\n\n".join([*parts, calls_of(cell)]).rstrip()


def _turns(run: RunPart, level: int) -> list[str]:
    parts = []
    for turn in run.turns:
        parts.append(heading(level, f"Turn {turn.number}"))
        parts.append(words(parse(turn.text).prose))
        if turn.error:
            parts.append(f"*The request failed: {line(turn.error)}*")
        for part in turn.parts:
            if isinstance(part, NotePart):
                parts.append(f"*{line(part.text)}*")
                continue
            parts.append(shown_cell(part))
            parts += [child_run(call.child, level + 1) for call in part.calls if call.child is not None]
    return [part for part in parts if part]


def calls_of(cell: CellPart) -> str:
    """Return the calls of a cell but child runs, the first ones, in short; empty without any."""
    calls = [call for call in cell.calls if call.child is None]
    if not calls:
        return ""
    more = f", the first {CALLS} of them" if len(calls) > CALLS else ""
    title = f"{len(calls):,} {'call' if len(calls) == 1 else 'calls'}{more}"
    listed = "\n\n".join(_call(call) for call in calls[:CALLS])
    return f"<details><summary>{title}</summary>\n\n{fenced(listed)}\n\n</details>"


def _call(call: CallPart) -> str:
    asked = str(call.started.messages[0]["content"]) if call.started.messages else ""
    finished = call.finished
    replied = "no reply" if finished is None else finished.error or finished.text
    return f"{call.started.tool or call.started.kind}: {_short(asked)}\n-> {_short(replied)}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= CALL_CHARS else f"{text[:CALL_CHARS]}... ({len(text):,} characters)"


def _output(output: Output) -> str:
    text = output.text or next((f"[{mime}]" for mime in output.data), "")
    return fenced(text) if text.strip() else ""


def _figures(finished: RunFinished) -> str:
    usage = finished.usage
    cost = "price unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    calls = f"{finished.calls:,} {'call' if finished.calls == 1 else 'calls'}"
    return (
        f"{finished.seconds:.1f} s, {calls}, {usage.input_tokens:,} tokens in, "
        f"{usage.output_tokens:,} out, {cost}"
    )
