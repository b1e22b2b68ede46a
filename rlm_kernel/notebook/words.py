"""What follows the name of a command: words and flags; and how a command shows what it has to say."""

from __future__ import annotations

from ..errors import InputError
from .options import COMMANDS

__all__ = ["misused", "show", "words"]


def words(name: str, rest: str, most: int, **flags: bool) -> tuple[list[str], dict[str, str | bool]]:
    """Split ``rest`` into words and flags; ``flags`` are those there are, each with whether it has a value.

    Raises:
        InputError: more words than ``most``, or an unknown flag.
    """
    found: list[str] = []
    given: dict[str, str | bool] = {}
    todo = iter(rest.split())
    for word in todo:
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            found.append(word)
        elif flag[2:] not in flags:
            raise misused(name, f"it has no option {flag}")
        elif not flags[flag[2:]]:
            given[flag[2:]] = True
        else:
            value = value if equals else next(todo, "")
            if not value:
                raise misused(name, f"{flag} has no value")
            given[flag[2:]] = value
    if len(found) > most:
        raise misused(name, f"{' '.join(found)!r} is more than it takes")
    return found, given


def misused(name: str, what: str) -> InputError:
    """Return the error for a command that was given something else than it takes."""
    return InputError(
        f"%rlm {name}: {what}",
        hint=f"write %rlm {name} {COMMANDS[name][0]}, or %rlm -- {name} ... for a question that begins so",
    )


def show(shown: object) -> None:
    """Display ``shown``."""
    from IPython.display import display  # noqa: PLC0415  on use

    display(shown)  # type: ignore[no-untyped-call]
