"""What a `%rlm` line says: a question with its options, or a command.

A question is taken as it stands. Options are looked for at its beginning and at its end only, never inside:
``%rlm -q What does gcc -c do?`` has one. After ``--`` nothing is an option and nothing a command.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import FIELDS
from ..errors import InputError

__all__ = [
    "COMMANDS",
    "OPTIONS",
    "Asked",
    "Command",
    "Option",
    "mentions",
    "parse_cell",
    "parse_line",
    "usage",
]

COMMANDS = {
    "use": ("[NAME|PATH ...]", "choose what questions are about when they name nothing"),
    "config": ("[NAME [VALUE]]", "show settings, or set one for this notebook"),
    "models": ("[FILTER]", "list the endpoint's models, with prices"),
    "cost": ("[last|all] [--by model|depth]", "show what runs have cost"),
    "trace": ("[RUN] [--node ID]", "show a run of this notebook again"),
    "export": ("PATH [--run RUN] [--force]", "write a run as .ipynb, .html, .md, .jsonl or .rlm.json"),
    "insert": ("[RUN] [--one]", "put the cells that the model ran below, as ordinary cells, or as one"),
    "say": ("TEXT", "tell the model of a run under way something"),
    "login": ("[--forget] [--keyring]", "type the endpoint's key, which is kept in memory"),
    "doctor": ("[--endpoint]", "tell what works here"),
}
"""The commands: what they take, and what they do. They are words only where they come first."""

_WORD = re.compile(r"\S+")
_MENTION = re.compile(r"(?<![\w@.])@([^\W\d]\w*)")
_QUOTED = re.compile(r"""(["'])(.*?)\1(?=\s|$)""")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its spellings, what it sets, what its value is called (empty for a switch)."""

    names: tuple[str, ...]
    field: str
    value: str
    about: str
    parse: Callable[[str], Any] = str


def _setting(names: tuple[str, ...], name: str, value: str) -> Option:
    known = next(each for each in FIELDS if each.name == name)

    def checked(text: str) -> str:
        # As it was written: what a setting is resolved from, where "none" is a value.
        known.parse(text)
        return text

    return Option(names, name, value, known.about, checked)


def _name(text: str) -> str:
    if not text.isidentifier():
        raise ValueError("the name of a variable")
    return text


OPTIONS = (
    Option(("-c", "--context"), "context", "NAME|PATH", "A variable or path to ask about; may be repeated."),
    Option(("-o", "--output"), "output", "NAME", "The variable that gets the answer, besides `_rlm`.", _name),
    _setting(("-m", "--model"), "model", "MODEL"),
    _setting(("--sub-model",), "sub_model", "MODEL"),
    _setting(("--depth",), "max_depth", "N"),
    _setting(("--iterations",), "max_iterations", "N"),
    _setting(("--timeout",), "cell_timeout", "SECONDS"),
    _setting(("--budget",), "budget_usd", "USD"),
    _setting(("--budget-tokens",), "budget_tokens", "N"),
    _setting(("--budget-calls",), "budget_calls", "N"),
    _setting(("--budget-seconds",), "budget_seconds", "SECONDS"),
    _setting(("--repl",), "repl", "NAME"),
    _setting(("--gateway-url",), "gateway_url", "URL"),
    _setting(("--kernel-name",), "kernel_name", "NAME"),
    Option(("--share",), "share", "", "With `--repl shell`: what the model's code makes stays with you."),
    Option(("--continue",), "again", "", "Ask in the kernel of the last run, which has its variables still."),
    Option(("--bg",), "background", "", "Return the run at once, to `wait` for, `await` or `cancel`."),
    Option(("--cite",), "cite", "", "Have the answer come with quotes, each checked."),
    Option(("-q", "--quiet"), "quiet", "", "Show nothing."),
    Option(("--plain",), "plain", "", "Show no widget."),
    Option(("--debug",), "debug", "", "Show errors with where they come from."),
)

_BY_NAME = {name: option for option in OPTIONS for name in option.names}
_LISTS = frozenset(("context",))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: its text, and the options by the field that they set."""

    question: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """Return what an option set, by its field; None where it was not given."""
        return self.options.get(name)


@dataclass(frozen=True, slots=True)
class Command:
    """A command and what follows it, as it stands."""

    name: str
    rest: str


def parse_line(line: str) -> Asked | Command:
    """Return what ``line`` says, which is all that follows ``%rlm``.

    Raises:
        InputError: an option that there is not, or a value it can't have.
    """
    first = _WORD.match(line.strip())
    if first is not None and first[0] in COMMANDS:
        return Command(first[0], line.strip()[first.end() :].strip())
    options, question, verbatim = _leading(line.strip())
    if not verbatim:
        trailing, question = _trailing(question)
        for option, value in trailing:
            _put(options, option, value)
    return Asked(question, options)


def parse_cell(line: str, body: str) -> Asked:
    """Return the question of a cell magic: ``body``, after what is no option in ``line``.

    Raises:
        InputError: as by `parse_line`.
    """
    options, rest, _ = _leading(line.strip())
    return Asked("\n".join(part for part in (rest, body.strip()) if part), options)


def mentions(question: str) -> tuple[str, ...]:
    """Return the names that stand in ``question`` as ``@name``, each once."""
    return tuple(dict.fromkeys(_MENTION.findall(question)))


def usage() -> str:
    """Return what `%rlm?` says of options and commands."""
    rows = [(", ".join(each.names) + f" {each.value}".rstrip(), each.about) for each in OPTIONS]
    commands = [(f"%rlm {name} {takes}".rstrip(), f"{about}.") for name, (takes, about) in COMMANDS.items()]
    options = ["Options, before the question or after it:", *_columns(rows, 28)]
    return "\n".join([*options, "", "Commands:", *_columns(commands, 44)])


def _columns(rows: list[tuple[str, str]], width: int) -> list[str]:
    return [f"  {left:<{width}}{about[0].upper()}{about[1:]}" for left, about in rows]


def _leading(text: str) -> tuple[dict[str, Any], str, bool]:
    """Return the options at the beginning, the rest, and whether that is a question as it stands."""
    options: dict[str, Any] = {}
    while word := _WORD.match(text):
        name, equals, given = word[0].partition("=")
        if name == "--":
            return options, text[word.end() :].strip(), True
        option = _BY_NAME.get(name)
        if option is None:
            if re.match(r"--?[A-Za-z][\w-]*$", name):
                raise _unknown(name)
            break
        text = text[word.end() :].lstrip()
        value = given if equals else None
        if option.value and value is None:
            value, text = _value(text, name)
        _put(options, option, value)
    return options, text, False


def _value(text: str, name: str) -> tuple[str, str]:
    if quoted := _QUOTED.match(text):
        return quoted[2], text[quoted.end() :].lstrip()
    word = _WORD.match(text)
    if word is None:
        raise _without_value(name)
    return word[0], text[word.end() :].lstrip()


def _trailing(text: str) -> tuple[list[tuple[Option, str | None]], str]:
    """Return the options at the end, in order, and what is before them."""
    found: list[tuple[Option, str | None]] = []
    while True:
        words = list(_WORD.finditer(text))
        option = value = None
        for count in (1, 2):
            if len(words) < count:
                break
            name, equals, given = words[-count][0].partition("=")
            known = _BY_NAME.get(name)
            if count == 1 and known is not None and known.value and not equals:
                raise _without_value(name)
            if known is None or (count == 2) != bool(known.value and not equals):
                continue
            given = words[-1][0] if count == 2 else given
            # What ends a sentence is no name: "What is gcc -c for?"
            if known.value and not re.search(r"[\w/*}\]~]$", given):
                continue
            option, value, start = known, given if known.value else None, words[-count].start()
            break
        if option is None:
            return found[::-1], text
        found.append((option, value))
        text = text[:start].rstrip()


def _put(options: dict[str, Any], option: Option, value: str | None) -> None:
    name = option.names[0]
    if not option.value:
        if value:
            raise InputError(f"{name} takes no value, but was given {value!r}", hint=f"write {name} alone")
        options[option.field] = True
        return
    try:
        parsed = option.parse(value or "")
    except ValueError as error:
        raise InputError(
            f"{name} {value!r} is not {error}",
            hint="if it belongs to the question, write -- before the question",
        ) from None
    if option.field in _LISTS:
        options[option.field] = (*options.get(option.field, ()), parsed)
    else:
        options[option.field] = parsed


def _without_value(name: str) -> InputError:
    return InputError(
        f"{name} has no value",
        hint=f"give it one: {name} {_BY_NAME[name].value}; if it is part of the question, put -- before that",
    )


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name, _BY_NAME, 1)
    hint = f"did you mean {near[0]}?" if near else "%rlm? lists them"
    return InputError(f"no option {name}", hint=f"{hint} (a question that begins so goes after --)")
