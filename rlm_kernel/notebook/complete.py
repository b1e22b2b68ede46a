"""Tab completion after `%rlm` and on the first line of `%%rlm`, and of ``@names`` in questions.

Offered is what may stand at the cursor: commands and options, values of options, run numbers, and the user's
variables, with type and size, before everything else. Nothing is evaluated and nobody is asked: models are
those in the settings and those an endpoint has listed before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from . import subjects
from .commands import DISPLAY_NAMES
from .options import COMMANDS, OPTIONS
from .settings import NAMES

if TYPE_CHECKING:
    from .magics import RLMMagics

__all__ = ["install", "remove"]

_HEAD = re.compile(r"^[ \t]*(?:[^\W\d][\w.]*[ \t]*=[ \t]*)?(?P<sign>%%?)rlm[ \t]+(?P<rest>.*)$")
_VALUES = {name: option for option in OPTIONS if option.value for name in option.names}
_FLAGS = {
    "cost": ("--by",),
    "trace": ("--node",),
    "export": ("--run", "--force"),
    "insert": ("--one",),
    "doctor": ("--endpoint",),
}
_LABEL_CHARS = 48
_MOST_FILES = 500
_REPLS = ("local", "shell")

Found = Iterator[tuple[str, str]]


def install(magics: RLMMagics) -> None:
    """Have the shell's completer ask here."""

    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        return _match(magics, context)

    magics.matcher = context_matcher(identifier="rlm_kernel")(matcher)
    magics.shell.Completer.custom_matchers.append(matcher)


def remove(magics: RLMMagics) -> None:
    """Take back what `install` did."""
    magics.shell.Completer.custom_matchers.remove(magics.matcher)


def _match(magics: RLMMagics, context: CompletionContext) -> SimpleMatcherResult:
    lines = context.full_text.split("\n")
    line = lines[context.cursor_line][: context.cursor_position]
    first = lines[0].lstrip()
    body = context.cursor_line > 0 and first.startswith("%%rlm")
    head = None if body else _HEAD.match(line)
    if head is None and not body:
        return {"completions": []}
    rest = line if head is None else head["rest"]
    fragment = re.search(r"\S*$", rest)[0]  # type: ignore[index]
    before = rest[: len(rest) - len(fragment)].split()
    found: Found
    if fragment.startswith("@"):
        found = ((f"@{name}", about) for name, about in _variables(magics))
    elif body:
        return {"completions": []}
    else:
        found = _offered(magics, before, cell=head["sign"] == "%%")  # type: ignore[index]
    matches = [
        SimpleCompletion(text, type=_label(about)) for text, about in found if text.startswith(fragment)
    ]
    return {"completions": matches, "matched_fragment": fragment, "ordered": True, "suppress": True}


def _label(about: str) -> str:
    """Return what stands beside a completion: on one line, which JupyterLab breaks at spaces."""
    short = about if len(about) <= _LABEL_CHARS else f"{about[: _LABEL_CHARS - 1]}…"
    return short.replace(" ", "\N{NO-BREAK SPACE}")


def _offered(magics: RLMMagics, before: list[str], *, cell: bool) -> Found:
    last = before[-1] if before else ""
    command = before[0] if before and before[0] in COMMANDS and not cell else None
    if command is not None:
        yield from _after_command(magics, command, before[1:])
    elif last in _VALUES:
        yield from _values(magics, _VALUES[last].field)
    else:
        if not before and not cell:
            yield from ((name, about) for name, (_, about) in COMMANDS.items())
        names = [(name, option.about) for option in OPTIONS for name in option.names]
        yield from sorted(names, key=lambda each: not each[0].startswith("--"))


def _values(magics: RLMMagics, field: str) -> Found:
    if field == "context":
        yield from _variables(magics)
        yield from _files()
    elif field in ("model", "sub_model"):
        yield from _models(magics)
    elif field == "repl":
        yield from ((name, "where the model's code runs") for name in _REPLS)
    elif field == "output":
        yield from _variables(magics)


def _after_command(magics: RLMMagics, command: str, words: list[str]) -> Found:
    last = words[-1] if words else ""
    numbers = ((str(each.number), each.question[:60]) for each in reversed(magics.desk.entries))
    if command == "use":
        yield from _variables(magics)
        yield from _files()
    elif command == "config":
        if not words:
            settings = magics.settings()
            yield from ((name, f"{settings[name].shown} ({settings[name].origin})") for name in NAMES)
            yield from ((name, str(getattr(magics, name))) for name in DISPLAY_NAMES)
        elif len(words) == 1:
            yield from _values(magics, words[0])
            yield "default", "take back what was set here"
    elif command == "cost" and last == "--by":
        yield from (("model", "by model"), ("depth", "by depth"))
    elif command == "cost" and not words:
        yield from (("last", "the last run"), ("all", "all runs of this notebook"))
        yield "--by", "in parts"
    elif (command in ("trace", "insert") and not words) or last == "--run":
        yield from numbers
    else:
        yield from ((flag, COMMANDS[command][1]) for flag in _FLAGS.get(command, ()))


def _variables(magics: RLMMagics) -> Found:
    hidden = magics.shell.user_ns_hidden
    return ((name, subjects.about(value)) for name, value in subjects.variables(magics.shell.user_ns, hidden))


def _models(magics: RLMMagics) -> Found:
    settings = magics.settings()
    names = [settings[name].value for name in ("model", "sub_model")]
    yield from ((name, "in use") for name in dict.fromkeys(name for name in names if name))
    yield from ((name, "of the endpoint") for name in magics.listed if name not in names)


def _files() -> Found:
    with suppress(OSError), os.scandir() as entries:
        found = [each for each in islice(entries, _MOST_FILES) if not each.name.startswith(".")]
        yield from ((each.name, "folder" if each.is_dir() else "file") for each in sorted(found, key=_name))


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
