"""`%rlm` lines out of a cell, before IPython's own rules see them.

IPython takes a line that ends in ``?`` for a request for help, whatever it begins with, and most questions
end so. This transformer runs among the first and turns every ``%rlm`` line into a call with the line as a
string literal, so that nothing in a question means anything to IPython or Python. Left alone are bare
``%rlm?`` (help), text inside strings and brackets, and comments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

__all__ = ["awaited", "called", "transformer"]

Call = Callable[[str, str | None], str]
"""Makes the source of a call, an expression, of a line and, for a cell magic, the cell's body."""

_NAMES = r"[^\W\d][\w.]*(?:[ \t]*,[ \t]*[^\W\d][\w.]*)*"
_LINE = re.compile(rf"^(?P<before>[ \t]*(?:{_NAMES}[ \t]*=[ \t]*)?)%rlm(?P<rest>(?![\w?]).*|)$", re.DOTALL)
_CELL = re.compile(r"^%%rlm(?P<line>(?![\w?]).*|)$", re.DOTALL)
_OTHER = re.compile(r"^(?P<before>[ \t]*(?:[\w., \t]+=[ \t]*)?)[%!?][^\n]*")  # IPython's own
_QUOTES = ('"""', "'''", '"', "'")


def called(line: str, cell: str | None) -> str:
    """Return the call that IPython makes of a magic."""
    if cell is None:
        return f"get_ipython().run_line_magic('rlm', {line!r})"
    return f"get_ipython().run_cell_magic('rlm', {line!r}, {cell!r})"


def awaited(line: str, cell: str | None) -> str:
    """Return the call that the `rlm` kernel's shell makes: it waits without keeping the kernel busy."""
    arguments = repr(line) if cell is None else f"{line!r}, {cell!r}"
    return f"(await get_ipython().ask_rlm({arguments}))"


def transformer(call: Call = called) -> Callable[[list[str]], list[str]]:
    """Return a transformer for IPython's ``input_transformers_cleanup``, which calls by ``call``."""

    def transform(lines: list[str]) -> list[str]:
        if not any("%rlm" in line for line in lines):
            return lines
        if found := _CELL.match(lines[0].rstrip()):
            return [call(found["line"].strip(), "".join(lines[1:])) + "\n"]
        done = _transformed(lines, call)
        # Inside a plain function nothing can be awaited.
        return done if call is called or _compiles(done) else _transformed(lines, called)

    return transform


def _transformed(lines: list[str], call: Call) -> list[str]:
    done: list[str] = []
    state = _Scanner()
    todo = iter(lines)
    for line in todo:
        found = _LINE.match(line.rstrip()) if state.at_start else None
        if found is None:
            state.take(line)
            done.append(line)
            continue
        rest, extra = found["rest"], 0
        while rest.endswith("\\"):
            rest = rest[:-1].rstrip() + " " + next(todo, "").strip()
            extra += 1
        # Line numbers in tracebacks stay right.
        done.append(f"{found['before']}{call(rest.strip(), None)}\n" + "\n" * extra)
    return done


def _compiles(lines: list[str]) -> bool:
    """Tell whether every ``await`` stands where one may; what is no Python for other reasons is not told."""
    source = "".join(_OTHER.sub(r"\g<before>None", line) for line in lines)
    try:
        compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return "await" not in str(error)
    return True


class _Scanner:
    """Knows, line by line, whether the next one starts a statement.

    It reads strings, brackets and continued lines only; of lines that start with one of IPython's signs it
    reads nothing, since what follows is no Python.
    """

    def __init__(self) -> None:
        self._string = ""
        self._depth = 0
        self._continued = False

    @property
    def at_start(self) -> bool:
        return not (self._string or self._depth or self._continued)

    def take(self, line: str) -> None:
        """Read ``line``."""
        text = line.rstrip("\r\n")
        if self.at_start and text.lstrip()[:1] in {"%", "!", "?"}:
            self._continued = text.endswith("\\")
            return
        if self._continued and not (self._string or self._depth):
            self._continued = text.endswith("\\")
        position = 0
        while position < len(text):
            position = self._step(text, position)
        self._continued = text.endswith("\\") and not self._string
        if len(self._string) == 1 and not text.endswith("\\"):
            self._string = ""  # a string that its line did not end: an error, and over

    def _step(self, text: str, position: int) -> int:
        """Read what stands at ``position``; return where to go on."""
        here = text[position]
        if self._string:
            if here == "\\":
                return position + 2
            if text.startswith(self._string, position):
                position += len(self._string)
                self._string = ""
                return position
            return position + 1
        if here == "#":
            return len(text)
        for quotes in _QUOTES:
            if text.startswith(quotes, position):
                self._string = quotes
                return position + len(quotes)
        if here in "([{":
            self._depth += 1
        elif here in ")]}":
            self._depth = max(0, self._depth - 1)
        return position + 1
