"""`%rlm insert`: a run's code as cells of the notebook, by a widget that is gone once they are there.

A kernel can ask for one cell below, by its reply; for more, the page has to do it. The widget is replaced by
a line of text when the page says that it has. Until then, and where no page can, its output holds the code.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..trace.progress import clean

__all__ = ["Insertion", "insert"]

_STATIC = Path(__file__).parent / "static"
_ELSEWHERE = "This page takes no cells from a widget. `%rlm insert --one` puts all of it into one cell."


class Insertion(anywidget.AnyWidget):
    """Has the page put ``sources`` below the output that shows it, as a code cell each."""

    _esm = (_STATIC / "insert.js").read_text(encoding="utf-8")
    _name = traitlets.Unicode().tag(sync=True)
    _id = traitlets.Unicode().tag(sync=True)
    _sources = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _elsewhere = traitlets.Unicode(_ELSEWHERE).tag(sync=True)

    def __init__(self, sources: Sequence[str]) -> None:
        super().__init__(_name=random.token_hex(8), _sources=list(sources))
        # By which the page finds the output among those of the notebook.
        self._id = self.model_id


def insert(sources: Sequence[str], title: str) -> None:
    """Put ``sources`` below the cell that is executed; ``title`` says whose they are."""
    from IPython.display import display  # noqa: PLC0415  on use

    widget = Insertion(sources)
    code = "\n\n".join(sources)
    view, _ = widget._repr_mimebundle_() or ({}, {})
    handle = display(  # type: ignore[no-untyped-call]
        {
            **view,
            # `jupyter console` prints it.
            "text/plain": clean(f"{title}:\n\n{code}"),
            "text/html": f"<p>{escape(title)}:</p><pre>{escape(code)}</pre>",
        },
        raw=True,
        display_id=True,
    )

    def received(_: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("op") == "inserted":
            said = f"{title}, below"
            handle.update({"text/plain": said, "text/html": f"<p>{escape(said)}</p>"}, raw=True)
            widget.close()

    widget.on_msg(received)
