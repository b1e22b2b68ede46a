"""What the root model is told of sessions, compaction and steering, besides its turns (`prompts`)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

__all__ = [
    "KERNEL_LOST",
    "NO_SUMMARY",
    "SUMMARY_REQUEST",
    "USERS_KERNEL",
    "compacted",
    "edited",
    "free_name",
    "refused",
    "said",
    "session",
    "user_cell",
]

SHOWN_QUESTIONS = 5
SHOWN_CHARS = 300
SHOWN_NAMES = 30

SUMMARY_REQUEST = (
    "This conversation is near the limit of what you can read at once. Write no code now: write a summary "
    "for yourself, in plain text, that takes the place of all turns but the last. Say what you know of the "
    "context, what you tried and what came out (figures, names, quotes that matter), what failed and why, "
    "which variables hold what, and what remains to be done. The REPL and its variables stay."
)
USERS_KERNEL = (
    "The REPL is a kernel that its user has open: the user's own variables, functions and imports are in it, "
    "and can be read as they are. Names are put back for the user after each of your cells, and are yours "
    "again in the next; what you change in place stays changed for the user, so copy before you change."
)
NO_SUMMARY = "(No summary was written.)"
KERNEL_LOST = (
    "Note: the kernel was lost since the last question. Your variables, functions and imports are gone; the "
    "contexts are loaded again."
)


def compacted(name: str) -> str:
    """Return what is said behind a summary: where the whole conversation is. ``name`` is the variable's."""
    return (
        "The above is your summary of the earlier turns, which were taken out to make room. They are all in "
        f"the REPL as `{name}`, a list of dicts with `role` and `content`; your variables are kept. Your "
        "last turn follows as it was."
    )


def session(history: Sequence[Mapping[str, Any]], variables: Sequence[str], *, lost: bool) -> str:
    """Return what a later question of a session is told of the earlier ones, or an empty text."""
    if not history:
        return KERNEL_LOST if lost else ""
    first = max(0, len(history) - SHOWN_QUESTIONS)
    lines = ["Earlier in this session, with all questions and answers in full in the REPL as `history`:"]
    if first:
        lines.append(f"- {first} earlier {'question' if first == 1 else 'questions'}")
    lines += [
        f"- asked: {_short(each['question'])!r}, {each['status']}: {_short(each['answer'])!r}"
        for each in history[first:]
    ]
    if lost:
        lines.append(KERNEL_LOST)
    elif variables:
        more = len(variables) - SHOWN_NAMES
        names = ", ".join(variables[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"Variables that you made are still there: {names}.")
    return "\n".join(lines)


def _short(text: str) -> str:
    text = " ".join(text[: 4 * SHOWN_CHARS].split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def said(text: str) -> str:
    """Return a message that the user sent to a run under way."""
    return f"A message from the user: {text}"


def user_cell(code: str, shown: str) -> str:
    """Return the note on a cell that the user ran in the REPL, with what it put out."""
    return f"Note: the user ran this cell in your REPL:\n{code}\n\n{shown}"


def edited(number: int, code: str) -> str:
    """Return the note that the user changed a block before it ran."""
    return f"Note: the user edited block {number} before it ran. It ran as:\n{code}"


def refused(number: int, reason: str) -> str:
    """Return the note that the user let a block, and those behind it, not run."""
    why = f": {reason}" if reason else ""
    return f"Note: the user did not let block {number} run{why}. Nothing behind it ran. Find another way."


def free_name(wanted: str, taken: Container[str]) -> str:
    """Return ``wanted``, or with a number where that name is taken."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
