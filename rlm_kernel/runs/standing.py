"""What a run finds when it is one of several questions of a session: a REPL in use, and earlier answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ..repl.supervisor import Supervisor

__all__ = ["Standing"]


@dataclass(slots=True)
class Standing:
    """The session ``session`` as one of its runs finds it, and leaves it.

    ``history`` holds the earlier questions and answers, as they stand in the REPL. ``variables`` are the
    names that cells have made; the run keeps them up to date. The first run makes the REPL, which stays open
    behind it. Ids in all its runs come from ``ids``. ``lost`` is whether the kernel of earlier questions is
    gone, ``notes`` what the user is to be told, both for the next run only.
    """

    session: str
    repl: Supervisor | None = None
    history: Sequence[Mapping[str, Any]] = ()
    variables: tuple[str, ...] = ()
    lost: bool = False
    notes: tuple[str, ...] = ()
    ids: count[int] = field(default_factory=lambda: count(1))
