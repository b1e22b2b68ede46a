"""A finished run in the form that a file's suffix asks for: notebook, page, Markdown, trace, JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..events import CallDelta, CellOutput, Event
from ..trace.jsonl import JsonlWriter, Trajectory
from ..trace.progress import clean
from ..trace.redact import Redactor
from .bundle import MIME_TYPE, mimebundle
from .recording import write_private

__all__ = ["SUFFIXES", "Saver", "export"]

SUFFIXES = (".ipynb", ".html", ".md", ".jsonl", ".rlm.json")


def export(
    trajectory: str | os.PathLike[str] | Trajectory | Sequence[Event],
    target: str | os.PathLike[str],
    *,
    contexts: Any = (),
    secrets: Iterable[str] = (),
) -> tuple[Path, ...]:
    """Write a run to ``target``, by its suffix; return the files that were written.

    ``contexts`` are values that may be the run's, by name or in a row: with them, slices of the context are
    filled in, and a notebook can keep them. ``secrets`` are taken out, as is what looks like a key.

    Raises:
        InputError: another suffix, no run in the trajectory, or a file that can't be read or written.
    """
    target, secrets = Path(target), tuple(secrets)
    check_suffix(target)
    source = Path(trajectory) if isinstance(trajectory, str | os.PathLike) else None
    if isinstance(trajectory, str | os.PathLike):
        if target.exists() and os.path.samefile(trajectory, target):
            raise InputError(f"{target} is the trajectory itself", hint="export it to another file")
        trajectory = Trajectory.load(trajectory, contexts)
    events = trajectory.events if isinstance(trajectory, Trajectory) else tuple(trajectory)
    prompts = trajectory.prompts if isinstance(trajectory, Trajectory) else {}
    try:
        if source is not None and target.suffix == ".jsonl":
            return _copy(source, target, Redactor(secrets))
        return _write(events, prompts, target, contexts, secrets)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror}", hint="check the path") from error


def check_suffix(target: Path) -> None:
    """Refuse a file whose suffix names no form.

    Raises:
        InputError: it does not.
    """
    if not target.name.endswith(SUFFIXES):
        raise InputError(
            f"a run can't be exported to {target.name!r}: {target.suffix or 'no suffix'} names no form",
            hint=f"there are {', '.join(SUFFIXES)}",
        )


def _write(
    events: Sequence[Event], prompts: Any, target: Path, contexts: Any, secrets: tuple[str, ...]
) -> tuple[Path, ...]:
    if target.suffix == ".jsonl":
        with JsonlWriter(target, secrets=secrets) as writer:
            for event in events:
                writer(event)
        return (target,)
    from .transcript import transcribe  # noqa: PLC0415  on use

    try:
        run = transcribe(events)
    except ValueError as error:
        raise InputError(f"nothing to export: {error}", hint="was the run cut off as it began?") from None
    if target.suffix == ".ipynb":
        from .writer import write_notebook  # noqa: PLC0415  on use

        return write_notebook(run, target, prompts=prompts, contexts=contexts, secrets=secrets)
    redact = Redactor(secrets)
    if target.suffix == ".json":
        # What an output holds of a run, whole: the JupyterLab extension opens it as it draws the output.
        bundle = mimebundle(events, secrets=secrets, inline_bytes=sys.maxsize)
        text = json.dumps(bundle[MIME_TYPE])
    elif target.suffix == ".md":
        from .markdown import render  # noqa: PLC0415  on use

        text = redact(clean(render(run)))
    else:
        text = _page(events, redact)
    write_private(target, text.encode("utf-8", "backslashreplace"))
    return (target,)


def _copy(source: Path, target: Path, redact: Redactor) -> tuple[Path, ...]:
    """Copy a trajectory: what it holds of the context as slices stays so."""
    with source.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        text = "".join(map(redact, lines))
    write_private(target, text.encode("utf-8", "surrogateescape"))
    return (target,)


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }}
pre {{ overflow-x: auto; white-space: pre-wrap; }}
body {{ color-scheme: light dark; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _page(events: Iterable[Event], redact: Redactor) -> str:
    from .outline import Outline  # noqa: PLC0415  on use
    from .static_html import render  # noqa: PLC0415  on use

    outline = Outline(redact)
    for event in events:
        outline.take(event)
    return _PAGE.format(title=escape(outline.question[:200]), body=render(outline))


class Saver:
    """Writes a run to a file in any form once it is over; a reader for `rlm_kernel.events.Emitter`.

    JSON lines are written as the run goes on, see `rlm_kernel.trace.jsonl.JsonlWriter`.

    Raises:
        InputError: a suffix that names no form.
        OSError: the file can't be written.
    """

    def __init__(self, target: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        self._target = Path(target)
        self._secrets = tuple(secrets)
        self._events: list[Event] = []
        check_suffix(self._target)
        # What can't be written is to be known before the run.
        with open(self._target, "ab"):
            pass

    def __call__(self, event: Event) -> None:
        """Keep ``event``."""
        if not isinstance(event, CallDelta | CellOutput):
            self._events.append(event)

    def close(self) -> None:
        """Write the file."""
        if self._events:
            events, self._events = self._events, []
            export(events, self._target, secrets=self._secrets)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
