"""The commands about runs of this notebook: what they have cost, what they did, what can be kept of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RLMError
from ..events import CallStarted, CellFinished, CellStarted, RunStarted
from ..usage import Usage
from .display import shows_widgets
from .tables import Table
from .words import misused, show, words

if TYPE_CHECKING:
    from ..events import Event
    from .desk import Entry
    from .magics import RLMMagics

__all__ = ["cost", "export", "insert", "trace"]


def cost(magics: RLMMagics, rest: str) -> None:
    """Show what runs have cost."""
    found, flags = words("cost", rest, 1, by=True)
    which, by = (found or ["all"])[0], flags.get("by")
    if which not in ("last", "all") or by not in (None, "model", "depth"):
        raise misused("cost", f"{rest!r} is not what it takes")
    magics.desk.find()
    entries = magics.desk.entries if which == "all" else magics.desk.entries[-1:]
    right = ("calls", "in", "cached", "out", "cost")
    if by is None:
        rows = [
            (
                *(str(each.number), each.question[:50], each.status, str(each.calls)),
                *_spent(each.usage),
            )
            for each in entries
        ]
        total = sum((_plain_usage(each.usage) for each in entries), Usage())
        calls = sum(each.calls for each in entries)
        rows.append(("", "all", "", str(calls), *_spent(total, known=_known(entries))))
        show(Table(("run", "question", "state", *right), rows, right, _cost_notes(entries)))
        return
    sums: dict[Any, Usage] = {}
    for entry in entries:
        parts: Mapping[Any, Usage] = getattr(entry.usage, f"by_{by}")
        for key, usage in parts.items():
            sums[key] = sums.get(key, Usage()) + usage
    rows = [(str(key), *_spent(usage)) for key, usage in sorted(sums.items())]
    show(Table((str(by), *right[1:]), rows, right[1:], _cost_notes(entries)))


def _plain_usage(usage: Usage) -> Usage:
    return Usage(*(getattr(usage, name) for name in Usage.__dataclass_fields__))


def _known(entries: Iterable[Entry]) -> Decimal:
    """Return the sum of what is known to have been spent."""
    return sum(
        (
            usage.cost_usd
            for entry in entries
            for usage in entry.usage.by_model.values()
            if usage.cost_usd is not None
        ),
        Decimal(0),
    )


def _spent(usage: Usage, *, known: Decimal | None = None) -> tuple[str, ...]:
    share = f"{100 * usage.cached_tokens / usage.input_tokens:.0f} %" if usage.input_tokens else "-"
    unknown = "?" if not known else f"at least ${known:.4f}"
    cost = unknown if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    return f"{usage.input_tokens:,}", share, f"{usage.output_tokens:,}", cost


def _cost_notes(entries: Iterable[Entry]) -> list[str]:
    unknown = {
        name for each in entries for name, usage in each.usage.by_model.items() if usage.cost_usd is None
    }
    if not unknown:
        return []
    return [f"The price of {', '.join(sorted(unknown))} is not known: set it by %config RLMMagics.prices."]


def events_of(magics: RLMMagics, entry: Entry) -> tuple[Event, ...]:
    """Return the events of a run so far, its contexts filled in where they are still there."""
    from ..trace.jsonl import Trajectory  # noqa: PLC0415  on use

    return Trajectory.load(entry.trace, _there(magics, entry)).events


def _there(magics: RLMMagics, entry: Entry) -> dict[str, Any]:
    """Return what the run's contexts are called now: they are matched by hash, so others do no harm."""
    from ..files import read_path, read_paths  # noqa: PLC0415  on use

    namespace = magics.shell.user_ns
    found = {name: namespace[name] for name in entry.names if name in namespace and name not in entry.paths}
    for name, paths in entry.paths.items():
        with suppress(RLMError):  # it was there when it was asked about
            loaded = read_path(paths) if isinstance(paths, Path) else read_paths(paths)
            found[name] = loaded.value
    return found


def trace(magics: RLMMagics, rest: str) -> None:
    """Show a run again, or one row of it."""
    found, flags = words("trace", rest, 1, node=True)
    entry = magics.desk.find(found[0] if found else "")
    events = events_of(magics, entry)
    secrets = magics.secrets()
    if "node" in flags:
        show(_node(events, str(flags["node"]), secrets))
        return
    from IPython.display import display  # noqa: PLC0415  on use

    from ..trace.redact import Redactor  # noqa: PLC0415  on use
    from .bundle import texts  # noqa: PLC0415  on use
    from .outline import Outline  # noqa: PLC0415  on use

    outline = Outline(Redactor(secrets))
    for event in events:
        outline.take(event)
    display(texts(outline), raw=True)  # type: ignore[no-untyped-call]


def _node(events: Iterable[Event], node: str, secrets: list[str]) -> Table:
    """Return what one row of the tree holds, as the panel's detail does."""
    from ..trace.redact import Redactor  # noqa: PLC0415  on use
    from .brief import Whole  # noqa: PLC0415  on use

    whole = Whole(Redactor(secrets))
    rows_by_name: dict[str, str] = {}
    for event in events:
        whole.take(event)
        if isinstance(event, CellStarted):
            rows_by_name[event.cell] = event.cell
        elif isinstance(event, CallStarted):
            rows_by_name[event.call] = f"{event.run}/{event.turn}" if event.kind == "root" else event.call
    found = whole.find(rows_by_name.get(node, node))
    if not found:
        near = difflib.get_close_matches(node, rows_by_name, 3) or list(rows_by_name)[:5]
        raise InputError(f"the run has no node {node}", hint=f"it has, among others, {', '.join(near)}")
    rows = [
        (str(each["type"]), name, _readable(each[name]))
        for each in found
        for name in ("messages", "message", "code", "text", "outputs", "error")
        if each.get(name)
    ]
    return Table(("event", "what", "text"), rows)


def _readable(value: Any) -> str:
    if isinstance(value, Mapping):
        return _readable(value.get("content") or value.get("text") or "")
    if isinstance(value, list):
        return "\n".join(_readable(each) for each in value)
    return str(value)


def export(magics: RLMMagics, rest: str) -> None:
    """Write a run to a file."""
    found, flags = words("export", rest, 1, run=True, force=False)
    if not found:
        raise misused("export", "it was given no path")
    entry = magics.desk.find(str(flags.get("run", "")))
    target = Path(found[0]).expanduser()
    if target.exists() and "force" not in flags:
        raise InputError(f"{target} is there already", hint=f"%rlm export {target} --force writes over it")
    if entry.run is not None:
        raise InputError(f"run {entry.number} is under way", hint="export it when it is over")
    from .exporting import export as write  # noqa: PLC0415  on use

    written = write(entry.trace, target, contexts=_there(magics, entry), secrets=magics.secrets())
    print(f"run {entry.number} is in {', '.join(map(str, written))}")  # noqa: T201  what the command says


def insert(magics: RLMMagics, rest: str) -> None:
    """Put a run's cells below: each as a cell where the page can do that, else, or by ``--one``, as one."""
    found, flags = words("insert", rest, 1, one=False)
    entry = magics.desk.find(found[0] if found else "")
    root, cells, fine = "", {}, set()
    for event in events_of(magics, entry):
        if isinstance(event, RunStarted) and event.parent_run is None:
            root = event.run
        elif isinstance(event, CellStarted) and event.run == root:
            cells[event.cell] = event
        elif isinstance(event, CellFinished) and event.status == "ok":
            fine.add(event.cell)
    blocks = [
        f"# %% turn {event.turn}, block {event.block}\n{event.code.strip()}"
        for name, event in cells.items()
        if name in fine
    ]
    if not blocks:
        raise InputError(f"run {entry.number} ran no cell to its end", hint="%rlm trace shows what it did")
    if "one" in flags or len(blocks) == 1 or magics.plain or not shows_widgets(magics.shell):
        magics.shell.set_next_input("\n\n".join(blocks), replace=False)
        return
    from .inserting import insert as as_cells  # noqa: PLC0415  on use

    as_cells(blocks, f"{len(blocks)} cells of run {entry.number}")
