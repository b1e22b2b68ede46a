"""What a cell put out, in the form every reader shares: engine, events, notebook, panel.

The five kinds are Jupyter's: two streams, the value of the last expression (``execute_result``),
displayed data, and an error with its traceback. Text is already cut by the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Output", "OutputKind", "joined"]

OutputKind = Literal["stdout", "stderr", "result", "display", "error"]


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a cell.

    ``text`` is its plain-text form (for an error, the traceback without colour codes). ``data`` holds
    the other forms by MIME type, binary ones in base64 as Jupyter has them. ``name`` and ``value`` are an
    error's class and message. ``dropped`` counts the characters that the cut left out of ``text``.
    """

    kind: OutputKind
    text: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    value: str = ""
    dropped: int = 0


def joined(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """Return ``outputs`` with neighbouring pieces of one stream joined, as a notebook shows them."""
    runs: list[list[Output]] = []
    for output in outputs:
        if runs and output.kind in ("stdout", "stderr") and runs[-1][0].kind == output.kind:
            runs[-1].append(output)
        else:
            runs.append([output])
    return tuple(
        run[0]
        if len(run) == 1
        else Output(
            run[0].kind, "".join(each.text for each in run), dropped=sum(each.dropped for each in run)
        )
        for run in runs
    )
