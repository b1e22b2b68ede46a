"""What went wrong, in one or two lines of a cell's output: what happened, and what to do next.

The exception stays the one it was: the cell fails, Run All stops, and ``try`` finds it. Only how IPython
shows it changes, by the hook that IPython has for that.
"""

from __future__ import annotations

from ..answer import Answer
from ..errors import NoAnswerError, RLMError

__all__ = ["brief_traceback", "no_answer", "shortened"]

# Hints of the package speak to who writes Python; these are the words of the magics.
_WORDS = {
    "prices=": "%config RLMMagics.prices",
    "sub_model=": "--sub-model",
    "model=": "-m",
    "base_url=": "%rlm config base_url",
    "api_key=": "%rlm login",
    "--model": "-m",
}
_NEXT = {
    "exhausted": "a best effort is in _rlm; --iterations allows more turns",
    "over_budget": "what was found so far is in _rlm; %rlm config shows the caps, and raises them",
    "timed_out": "what was found so far is in _rlm; --budget-seconds allows more time",
    "cancelled": "what was found so far is in _rlm",
    "failed": "%rlm doctor --endpoint checks kernel and endpoint; %rlm trace shows what happened",
}


def shortened(error: BaseException) -> BaseException:
    """Return ``error``, which IPython will show in two lines."""
    error._render_traceback_ = lambda: brief_traceback(error)  # type: ignore[attr-defined]
    return error


def brief_traceback(error: BaseException) -> list[str]:
    """Return the lines that stand for an error's traceback."""
    lines = [f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")]
    hint = " ".join((error.hint if isinstance(error, RLMError) else "").split())
    for argument, word in _WORDS.items():
        hint = hint.replace(argument, word)
    return [*lines, f"  {hint}"] if hint else lines


def no_answer(answer: Answer) -> NoAnswerError:
    """Return the error that stands for a run without an answer."""
    state = answer.status.replace("_", " ")
    calls = f"{answer.total_calls} call{'' if answer.total_calls == 1 else 's'}"
    reason = answer.reason or state
    return NoAnswerError(
        f"{reason if reason.startswith(state) else f'{state}: {reason}'} ({calls} made)",
        hint=_NEXT.get(answer.status, ""),
        answer=answer,
    )
