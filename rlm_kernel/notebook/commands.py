"""What `%rlm use`, `%rlm cost` and the others do: each is a function of the magics and the rest of the line.

A command shows what it has to say, and returns None; one that can't do what it is told raises.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import importlib.util
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import background
from ..config import FIELDS
from ..errors import InputError, RLMError
from ..events import CallStarted, CellFinished, CellStarted, RunStarted
from ..usage import Usage
from . import subjects
from .display import headless
from .options import COMMANDS, Command
from .settings import NAMES, OPENAI
from .tables import Table

if TYPE_CHECKING:
    from ..events import Event
    from .desk import Entry
    from .magics import RLMMagics

__all__ = ["carry_out", "model_names"]

DISPLAY_NAMES = ("plain", "quiet", "inline_trace_kb")


def carry_out(magics: RLMMagics, command: Command) -> None:
    """Do what ``command`` says.

    Raises:
        InputError: it can't be done as it stands.
    """
    _HANDLERS[command.name](magics, command.rest)


def _words(name: str, rest: str, most: int, **flags: bool) -> tuple[list[str], dict[str, str | bool]]:
    """Split ``rest`` into at most ``most`` words and the flags, each with whether it has a value."""
    words: list[str] = []
    given: dict[str, str | bool] = {}
    todo = iter(rest.split())
    for word in todo:
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            words.append(word)
        elif flag[2:] not in flags:
            raise _misused(name, f"it has no option {flag}")
        elif not flags[flag[2:]]:
            given[flag[2:]] = True
        else:
            value = value if equals else next(todo, "")
            if not value:
                raise _misused(name, f"{flag} has no value")
            given[flag[2:]] = value
    if len(words) > most:
        raise _misused(name, f"{' '.join(words)!r} is more than it takes")
    return words, given


def _misused(name: str, what: str) -> InputError:
    return InputError(
        f"%rlm {name}: {what}",
        hint=f"write %rlm {name} {COMMANDS[name][0]}, or %rlm -- {name} ... for a question that begins so",
    )


def _show(shown: object) -> None:
    from IPython.display import display  # noqa: PLC0415  on use

    display(shown)  # type: ignore[no-untyped-call]


def _use(magics: RLMMagics, rest: str) -> None:
    names = tuple(rest.split())
    if names:
        subjects.contexts(names, magics.shell.user_ns)
    found = subjects.contexts(names or magics.default, magics.shell.user_ns)
    if not found:
        raise InputError("no context is chosen", hint="choose one: %rlm use NAME")
    from ..context import collect  # noqa: PLC0415  on use
    from ..estimate import value_tokens  # noqa: PLC0415  on use

    rows = []
    for context in collect(contexts=found):
        info = context.info()
        tokens = value_tokens(context.value)
        about = "?" if tokens is None else f"{round(tokens):,}"
        rows.append((context.name, info.type, f"{info.size:,} {info.unit}", about))
    magics.default = names or magics.default
    note = "It stays in the REPL: models are told its type, its size and how it begins, and read it by code."
    _show(Table(("name", "type", "size", "about tokens"), rows, ("size", "about tokens"), [note]))


def _config(magics: RLMMagics, rest: str) -> None:
    name, _, value = rest.partition(" ")
    value = value.strip()
    if not name:
        _show_settings(magics)
        return
    if any(field.name == name and field.secret for field in FIELDS):
        raise InputError(
            f"{name} can't be set by a line, which stands in the notebook",
            hint="type a key: %rlm login; tokens come from the environment",
        )
    if name not in (*NAMES, *DISPLAY_NAMES):
        near = difflib.get_close_matches(name, (*NAMES, *DISPLAY_NAMES), 1)
        raise InputError(
            f"there is no setting {name}",
            hint=f"did you mean {near[0]}?" if near else f"settings are {', '.join(NAMES)}",
        )
    if value:
        set_trait(magics, name, value)
    row = next(row for row in setting_rows(magics) if row[0] == name)
    _show(Table(("name", "value", "from", "about"), [row]))


def set_trait(magics: RLMMagics, name: str, value: str) -> None:
    """Set a setting for this notebook, by text; ``default`` takes back what was set.

    Raises:
        InputError: it can't have that value.
    """
    from traitlets import TraitError  # noqa: PLC0415  on use

    trait = magics.traits()[name]
    try:
        if value == "default":
            setattr(magics, name, magics.file.get(name, trait.default()))
            magics.here.pop(name, None)
        else:
            setattr(magics, name, trait.from_string(value))
    except (TraitError, ValueError) as error:
        raise InputError(f"{name} can't be {value!r}", hint=str(error)) from None


def setting_rows(magics: RLMMagics) -> list[tuple[str, str, str, str]]:
    """Return (name, value, origin, help) of every setting; the key as it may be shown."""
    settings = magics.settings()
    about = {field.name: field.about for field in FIELDS}
    rows = [(name, settings[name].shown, settings[name].origin, about[name]) for name in (*NAMES, "api_key")]
    traits = magics.traits()
    for name in DISPLAY_NAMES:
        value = getattr(magics, name)
        origin = "default" if value == traits[name].default() else "this notebook, or configuration file"
        rows.append((name, str(value), origin, str(traits[name].help)))
    return rows


def _show_settings(magics: RLMMagics) -> None:
    table = Table(("name", "value", "from", "about"), setting_rows(magics))
    kernel = getattr(magics.shell, "kernel", None)
    if kernel is None or headless(magics.shell) or magics.plain:
        _show(table)
        return
    from .forms import config_form, show_form  # noqa: PLC0415  on use

    show_form(config_form(magics), table)


def _models(magics: RLMMagics, rest: str) -> None:
    settings = magics.settings()
    names = [name for name in model_names(magics) if rest.lower() in name.lower()]
    if not names:
        raise InputError(f"no model's name contains {rest!r}", hint="%rlm models lists them all")
    from ..models.prices import price  # noqa: PLC0415  on use
    from ..models.windows import listed_window  # noqa: PLC0415  on use

    base_url = settings["base_url"].value
    prices = magics.priced()
    rows = []
    for name in names:
        window = listed_window(name, base_url)
        each = [
            price(usage, name, overrides=prices, provider_url=base_url)
            for usage in (Usage(1_000_000, 0), Usage(0, 1_000_000))
        ]
        role = [part for part in ("model", "sub_model") if settings[part].value == name]
        amounts = ["?" if amount is None else f"${amount:.2f}" for amount in each]
        rows.append((name, *amounts, "?" if window is None else f"{window:,}", ", ".join(role)))
    right = ("in / million", "out / million", "window")
    _show(Table(("model", *right, "used as"), rows, right))


def model_names(magics: RLMMagics) -> list[str]:
    """Return the names of the endpoint's models.

    Raises:
        ModelError: it does not tell.
    """
    from ..doctor import model_names as ask  # noqa: PLC0415  on use

    settings = magics.settings()
    magics.listed = background.run(ask(settings["base_url"].value or OPENAI, settings["api_key"].value))
    return magics.listed


def _cost(magics: RLMMagics, rest: str) -> None:
    words, flags = _words("cost", rest, 1, by=True)
    which, by = (words or ["all"])[0], flags.get("by")
    if which not in ("last", "all") or by not in (None, "model", "depth"):
        raise _misused("cost", f"{rest!r} is not what it takes")
    magics.desk.find()
    entries = magics.desk.entries if which == "all" else magics.desk.entries[-1:]
    right = ("calls", "in", "cached", "out", "cost")
    if by is None:
        rows = [
            (
                *(str(each.number), each.question[:50], each.run.status, str(each.run.calls)),
                *_spent(each.run.usage),
            )
            for each in entries
        ]
        total = sum((_plain_usage(each.run.usage) for each in entries), Usage())
        calls = sum(each.run.calls for each in entries)
        rows.append(("", "all", "", str(calls), *_spent(total, known=_known(entries))))
        _show(Table(("run", "question", "state", *right), rows, right, _cost_notes(entries)))
        return
    sums: dict[Any, Usage] = {}
    for entry in entries:
        parts: Mapping[Any, Usage] = getattr(entry.run.usage, f"by_{by}")
        for key, usage in parts.items():
            sums[key] = sums.get(key, Usage()) + usage
    rows = [(str(key), *_spent(usage)) for key, usage in sorted(sums.items())]
    _show(Table((str(by), *right[1:]), rows, right[1:], _cost_notes(entries)))


def _plain_usage(usage: Usage) -> Usage:
    return Usage(*(getattr(usage, name) for name in Usage.__dataclass_fields__))


def _known(entries: Iterable[Entry]) -> Decimal:
    """Return the sum of what is known to have been spent."""
    return sum(
        (
            usage.cost_usd
            for entry in entries
            for usage in entry.run.usage.by_model.values()
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
        name for each in entries for name, usage in each.run.usage.by_model.items() if usage.cost_usd is None
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


def _trace(magics: RLMMagics, rest: str) -> None:
    words, flags = _words("trace", rest, 1, node=True)
    entry = magics.desk.find(words[0] if words else "")
    events = events_of(magics, entry)
    secrets = magics.secrets()
    if "node" in flags:
        _show(_node(events, str(flags["node"]), secrets))
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


def _export(magics: RLMMagics, rest: str) -> None:
    words, flags = _words("export", rest, 1, run=True, force=False)
    if not words:
        raise _misused("export", "it was given no path")
    entry = magics.desk.find(str(flags.get("run", "")))
    target = Path(words[0]).expanduser()
    if target.exists() and "force" not in flags:
        raise InputError(f"{target} is there already", hint=f"%rlm export {target} --force writes over it")
    if not entry.run.done:
        raise InputError(f"run {entry.number} is under way", hint="export it when it is over")
    from .exporting import export  # noqa: PLC0415  on use

    written = export(entry.trace, target, contexts=_there(magics, entry), secrets=magics.secrets())
    print(f"run {entry.number} is in {', '.join(map(str, written))}")  # noqa: T201  what the command says


def _insert(magics: RLMMagics, rest: str) -> None:
    words, _ = _words("insert", rest, 1)
    entry = magics.desk.find(words[0] if words else "")
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
    magics.shell.set_next_input("\n\n".join(blocks), replace=False)


def _say(magics: RLMMagics, rest: str) -> None:
    entry = magics.desk.running()
    if entry is None:
        raise InputError("no run is under way", hint="%rlm --bg QUESTION starts one that can be told things")
    entry.run.say(rest)
    print(f"run {entry.number} is told before its next turn")  # noqa: T201  what the command says


def _login(magics: RLMMagics, rest: str) -> None:
    _, flags = _words("login", rest, 0, forget=False, keyring=False)
    base_url = magics.settings()["base_url"]
    where = base_url.shown if base_url.value else OPENAI
    if "forget" in flags:
        magics.keys.forget(base_url.value)
        print(f"the key for {where} is forgotten")  # noqa: T201  what the command says
        return
    if headless(magics.shell):
        raise InputError(
            "nobody is here to type a key", hint="set OPENAI_API_KEY where the notebook is executed"
        )
    key = getpass.getpass(f"Key for {where}: ").strip()
    if not key:
        raise InputError("no key was typed", hint="%rlm login asks again")
    field = next(each for each in FIELDS if each.name == "api_key")
    try:
        field.parse(key)
    except ValueError as error:
        raise InputError("that is no key", hint=f"a key is {error}") from None
    magics.keys.add(base_url.value, key, keep="keyring" in flags)
    kept = "in the keyring" if "keyring" in flags else "in memory, until this kernel ends"
    print(f"the key for {where} is kept {kept}")  # noqa: T201  what the command says


def _doctor(magics: RLMMagics, rest: str) -> None:
    _, flags = _words("doctor", rest, 0, endpoint=False)
    settings = magics.settings()
    args = argparse.Namespace(endpoint="endpoint" in flags)
    from ..doctor import facts  # noqa: PLC0415  on use

    found: list[Any] = []
    # It runs event loops of its own, which this thread may have already.
    thread = threading.Thread(target=lambda: found.extend(facts(args, settings)), name="rlm-doctor")
    thread.start()
    thread.join()
    rows = [(fact.state, fact.text, fact.hint) for fact in [*_here(magics), *found]]
    _show(Table(("state", "what", "what to do"), rows))


def _here(magics: RLMMagics) -> list[Any]:
    """Return what is to be said of this notebook."""
    from ..doctor import Fact  # noqa: PLC0415  on use

    kernel = getattr(magics.shell, "kernel", None)
    if kernel is None:
        return [Fact("ok", "notebook: none, this is a terminal; Ctrl-C stops a run")]
    facts = [
        Fact("ok", "notebook: widgets can be shown, if the page has them")
        if _widgets()
        else Fact("note", "notebook: no widgets, runs show as a line", "pip install anywidget ipywidgets")
    ]
    awaits = hasattr(magics.shell, "ask_rlm")
    subshells = getattr(kernel, "_supports_kernel_subshells", False)
    facts.append(
        Fact("ok", "kernel: it hears the panel while a run goes on")
        if awaits
        else Fact(
            "note",
            "kernel: the panel's buttons are not heard while %rlm waits; the toolbar's stop is",
            "the kernel `Python (RLM)` hears them: jupyter rlm kernelspec install",
        )
    )
    facts.append(Fact("ok", f"kernel: subshells {'are' if subshells else 'are not'} supported"))
    return facts


def _widgets() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("anywidget", "ipywidgets"))


_HANDLERS: Mapping[str, Callable[[RLMMagics, str], None]] = {
    "use": _use,
    "config": _config,
    "models": _models,
    "cost": _cost,
    "trace": _trace,
    "export": _export,
    "insert": _insert,
    "say": _say,
    "login": _login,
    "doctor": _doctor,
}
