"""A run as HTML that needs nothing: no script, no style, no picture, no kernel.

GitHub, nbviewer and an untrusted notebook in JupyterLab each take out much of HTML; nested ``details``,
lists of terms, ``pre`` and ``table`` stay everywhere, and the text alone says everything. Every text of the
run is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..usage import Usage
from .outline import Node, Outline, Text

__all__ = ["render", "summary"]

_STATES = {
    "answered": "Answered",
    "exhausted": "Out of turns",
    "over_budget": "Over budget",
    "timed_out": "Timed out",
    "cancelled": "Cancelled",
    "failed": "Failed",
}
MAX_CHARS = 200_000


def summary(outline: Outline, *, times: bool = True) -> str:
    """Return the run's figures as one line of text."""
    root, finished = outline.root, outline.finished
    seconds = root.seconds if finished is not None else max(0.0, outline.now - root.began)
    parts = [f"{seconds:.1f} s"] if times else []
    parts.append(f"{root.calls:,} {'call' if root.calls == 1 else 'calls'}")
    if outline.depth > 1:
        parts.append(f"depth {outline.depth}")
    return ", ".join([*parts, *_figures(root.usage)])


def render(outline: Outline, *, trace: str = "", times: bool = True) -> str:
    """Return the run as HTML; ``trace`` names the file that holds all of it.

    Without ``times`` the same run gives the same HTML each time that it is made.
    """
    finished = outline.finished
    head = _STATES.get(finished.status, finished.status) if finished is not None else "Run in progress"
    parts = [f"<div><p><b>{escape(head)}</b>: {escape(outline.question or 'no question yet')}</p>"]
    if outline.answer.strip():
        parts.append(f"<blockquote>{_paragraphs(outline.answer)}</blockquote>")
    if finished is not None and finished.reason:
        parts.append(f"<p><i>{escape(finished.reason)}</i></p>")
    started = outline.started
    if started is not None:
        models = (
            started.model if started.model == started.sub_model else f"{started.model}, {started.sub_model}"
        )
        about = f"{summary(outline, times=times)}; {models}, {started.repl} kernel"
        parts.append(f"<p><small>{escape(about)}</small></p>")
    size = sum(map(len, parts))
    for node in outline.root.children:
        row = "".join(_row(node, times))
        size += len(row)
        if size > MAX_CHARS:
            parts.append("<p><small>What follows is in the trace only.</small></p>")
            break
        parts.append(row)
    parts.append(_left_out(outline.root))
    if trace:
        parts.append(f"<p><small>All of it: <code>{escape(trace)}</code></small></p>")
    return "".join(parts) + "</div>"


def _row(node: Node, times: bool) -> Iterator[str]:  # noqa: FBT001  handed down
    if node.kind == "note":
        yield f"<p><small>&#8505; {escape(node.line)}</small></p>"
        return
    # What a person looks for is open: the turns' cells and what failed.
    opened = " open" if node.kind == "cell" and node.state == "failed" else ""
    yield f"<details{opened}><summary>{_title(node, times)}</summary><blockquote>"
    if node.kind == "batch":
        yield _table(node, times)
    else:
        for text in node.texts:
            yield _text(text)
        for child in node.children:
            yield from _row(child, times)
    yield _left_out(node)
    yield "</blockquote></details>"


def _title(node: Node, times: bool) -> str:  # noqa: FBT001  handed down
    label = escape(node.label)
    code = node.kind in ("cell", "call", "batch")
    parts = [f"<code>{label}</code>" if code else f"<b>{label}</b>"]
    if node.kind == "batch":
        failed = f", {node.failed:,} failed" if node.failed else ""
        parts.append(f"&times; {node.size:,}{failed}")
    elif node.state not in ("done", "note"):
        parts.append(f"<b>{escape(node.state)}</b>")
    if node.line:
        line = escape(node.line)
        parts.append(f"<code>{line}</code>" if node.kind == "cell" else line)
    figures = [*([f"{node.seconds:.2f} s"] if times else []), *(_figures(node.usage) if node.calls else [])]
    return f"{' '.join(parts)} <small>({escape(', '.join(figures))})</small>" if figures else " ".join(parts)


def _table(batch: Node, times: bool) -> str:  # noqa: FBT001  handed down
    titles = ("prompt", "reply", *(("s",) if times else ()))
    rows = [f"<table><thead><tr>{''.join(f'<th>{each}</th>' for each in titles)}</tr></thead><tbody>"]
    for call in batch.children:
        reply = next((text.text for text in call.texts if text.title in ("reply", "error")), call.state)
        cells = [call.line[:160], " ".join(reply.split())[:160], *([f"{call.seconds:.2f}"] if times else [])]
        rows.append("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in cells) + "</tr>")
    return (
        "".join(rows)
        + "</tbody></table>"
        + "".join("".join(_row(grandchild, times)) for call in batch.children for grandchild in call.children)
    )


def _text(text: Text) -> str:
    more = f" <small>({text.left_out:,} more characters)</small>" if text.left_out else ""
    return f"<p><small>{escape(text.title)}</small>{more}</p><pre>{escape(text.text)}</pre>"


def _left_out(node: Node) -> str:
    if not node.left_out:
        return ""
    rows = "row" if node.left_out == 1 else "rows"
    return f"<p><small>and {node.left_out:,} more {rows}, in the trace</small></p>"


def _paragraphs(text: str) -> str:
    paragraphs = [part.strip("\n") for part in text.split("\n\n")]
    return "".join(f"<p>{escape(part).replace(chr(10), '<br>')}</p>" for part in paragraphs if part.strip())


def _figures(usage: Usage) -> list[str]:
    cached = ""
    if usage.cached_tokens and usage.input_tokens:
        cached = f" ({100 * usage.cached_tokens / usage.input_tokens:.0f}% cached)"
    cost = "price unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    return [f"{usage.input_tokens:,} in{cached}", f"{usage.output_tokens:,} out", cost]
