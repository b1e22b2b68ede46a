"""What `%rlm use`, `%rlm cost` and the others do: each is a function of the magics and the rest of the line.

A command shows what it has to say, and returns None; one that can't do what it is told raises.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import importlib.util
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import background, page
from ..config import FIELDS
from ..errors import InputError, ModelError
from ..usage import Usage
from . import past, subjects
from .display import headless
from .options import Command
from .settings import NAMES, OPENAI
from .tables import Table
from .words import show, words

if TYPE_CHECKING:
    from .magics import RLMMagics

__all__ = ["carry_out", "model_names"]

DISPLAY_NAMES = ("plain", "quiet", "inline_trace_kb")


def carry_out(magics: RLMMagics, command: Command) -> None:
    """Do what ``command`` says.

    Raises:
        InputError: it can't be done as it stands.
    """
    _HANDLERS[command.name](magics, command.rest)


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
    show(Table(("name", "type", "size", "about tokens"), rows, ("size", "about tokens"), [note]))


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
    show(Table(("name", "value", "from", "about"), [row]))


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
        show(table)
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
    show(Table(("model", *right, "used as"), rows, right))


def model_names(magics: RLMMagics) -> list[str]:
    """Return the names of the endpoint's models.

    Raises:
        ModelError: it does not tell.
    """
    from ..doctor import model_names as ask  # noqa: PLC0415  on use

    settings = magics.settings()
    given = settings["base_url"]
    try:
        magics.listed = background.run(ask(given.value or OPENAI, settings["api_key"].value))
    except ModelError as error:
        where = given.shown if given.value else OPENAI
        raise type(error)(f"endpoint {where}: {error}", hint=error.hint) from None
    return magics.listed


def _say(magics: RLMMagics, rest: str) -> None:
    running = magics.desk.running()
    if running is None:
        raise InputError("no run is under way", hint="%rlm --bg QUESTION starts one that can be told things")
    entry, run = running
    run.say(rest)
    print(f"run {entry.number} is told before its next turn")  # noqa: T201  what the command says


def _login(magics: RLMMagics, rest: str) -> None:
    _, flags = words("login", rest, 0, forget=False, keyring=False)
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
    _, flags = words("doctor", rest, 0, endpoint=False)
    if page.here():
        raise InputError("doctor looks at a machine; this is a web page", hint="see docs/browser.md")
    settings = magics.settings()
    args = argparse.Namespace(endpoint="endpoint" in flags)
    from ..doctor import facts  # noqa: PLC0415  on use

    found: list[Any] = []
    # It runs event loops of its own, which this thread may have already.
    thread = threading.Thread(target=lambda: found.extend(facts(args, settings)), name="rlm-doctor")
    thread.start()
    thread.join()
    rows = [(fact.state, fact.text, fact.hint) for fact in [*_here(magics), *found]]
    show(Table(("state", "what", "what to do"), rows))


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
    "cost": past.cost,
    "trace": past.trace,
    "export": past.export,
    "insert": past.insert,
    "say": _say,
    "login": _login,
    "doctor": _doctor,
}
