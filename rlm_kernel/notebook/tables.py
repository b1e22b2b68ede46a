"""Small tables for commands: text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Table"]

_WIDEST = 60


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under ``titles``; those columns in ``right`` are numbers. ``notes`` stand below."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        cells = [self.titles, *self.rows]
        widths = [min(_WIDEST, max(len(row[n]) for row in cells)) for n in range(len(self.titles))]
        lines = [
            "  ".join(
                each.rjust(width) if title in self.right else each.ljust(width)
                for title, each, width in zip(self.titles, row, widths, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th{self._align(title)}>{escape(title)}</th>" for title in self.titles)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{self._align(title)}>{escape(each)}</td>"
                for title, each in zip(self.titles, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _align(self, title: str) -> str:
        return f' style="text-align: {"right" if title in self.right else "left"}"'
