"""See that an answer comes with quotes, where the caller asked for them, and check each on the host.

One `Citing` serves one run. An answer without a quote is sent back once, which buys the run one more turn;
then it stands as it is. What counts as a quote is told in `rlm_kernel.evidence`; only the run's own contexts
count, as the host holds them: neither the question, nor a child's context, nor what the kernel made of them.

In code, quotes are given as ``FINAL(value, quotes=[...])``, ``FINAL_VAR("name", quotes=[...])`` or
``answer["quotes"] = [...]``. As text, the first two as well, the list being texts or a variable's name; or a
list below a line ``QUOTES:``, one quote a line.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from .. import prompts
from ..context import Context
from ..dialect import TextFinal
from ..events import RunStatus
from ..evidence import Quote, Search
from ..passages import passages
from ..repl.base import CellResult, FinalAnswer

__all__ = ["Citing", "TextQuotes", "read_quotes"]

_LIST = r"\[.*\]|\(.*\)|\"[^\"\n]*\"|[^\W\d]\w*"
_IN_CALL = re.compile(rf"(?P<text>.*?),\s*quotes\s*=\s*(?P<given>{_LIST})\s*,?\s*", re.DOTALL)
_IN_VAR_CALL = re.compile(
    r"""FINAL_VAR[ \t]*\(\s*["']?\w+["']?\s*,\s*quotes\s*=\s*(?P<given>(?s:\[.{0,8000}?\])|\w+)\s*\)"""
)
_TOKEN = re.compile(r"\"((?:\\.|[^\"\\])*)\"|(?<!\w)'((?:\\.|[^'\\]|(?<=\w)'(?=\w))*)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_FLAGS = re.IGNORECASE | re.MULTILINE
_HEADING = re.compile(r"^[ \t>*_#]*(?:quotes?|evidence)[ \t*_]*:[ \t*_]*(?P<rest>[^\n]*)$", _FLAGS)
_ITEM = re.compile(r"[ \t]*(?:[-*\u2022>]|\d{1,3}[.)])[ \t]+(?P<text>\S.*)")
_MARKS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u00ab": "\u00bb"}
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}


@dataclass(frozen=True, slots=True)
class TextQuotes:
    """Quotes written as text: the texts, or the name of the variable that is to hold them."""

    texts: tuple[str, ...] = ()
    variable: str = ""


class Citing:
    """Asks for quotes and checks them. With ``wanted`` false it lets every answer through as it is."""

    def __init__(self, contexts: Sequence[Context], *, wanted: bool, notice: Callable[[str], None]) -> None:
        self._contexts = contexts
        self._notice = notice
        self._held: FinalAnswer | None = None
        self.wanted = wanted
        self.extra_turns = 0
        self.evidence: tuple[Quote, ...] = ()

    def take(self, final: FinalAnswer | None, notes: list[str]) -> FinalAnswer | None:
        """Return ``final`` if it may stand, or note once that it has no quotes."""
        if final is None or not self.wanted or final.quotes or self._held is not None or not self._contexts:
            return final
        self._held = final
        self.extra_turns = 1
        notes.append(prompts.NO_QUOTES)
        return None

    def held(
        self, final: FinalAnswer | None, status: RunStatus, reason: str
    ) -> tuple[FinalAnswer | None, RunStatus, str]:
        """Return how a run ends: with the answer that was sent back, if nothing came after it."""
        if final is not None or self._held is None or status == "cancelled":
            return final, status, reason
        if status != "exhausted":
            self._notice(f"the answer was asked for quotes and got none: {reason}")
        return self._held, "answered", ""

    async def read(
        self,
        final: TextFinal,
        words: str,
        judge: Callable[[TextFinal], Awaitable[FinalAnswer | None]],
        run: Callable[[str], Awaitable[CellResult]],
    ) -> FinalAnswer | None:
        """Let ``judge`` take an answer written in the reply ``words``, and add the quotes given with it.

        ``run`` executes code.
        """
        if not self.wanted:
            return await judge(final)
        final, quotes = read_quotes(final, words)
        taken = await judge(final)
        if taken is None or taken.quotes:
            return taken
        if quotes.variable:
            given = (await run(f"FINAL(None, quotes={quotes.variable})")).final
            return replace(taken, quotes=given.quotes if given else ())
        return replace(taken, quotes=quotes.texts)

    async def check(self, final: FinalAnswer | None) -> None:
        """Look for the quotes of ``final`` in the contexts, letting the event loop run in between."""
        if final is None or not self.wanted:
            return
        search = Search(final.quotes, lambda: passages(self._contexts))
        for _ in search.steps():
            await asyncio.sleep(0)
        self.evidence = search.quotes
        if search.left_out:
            self._notice(f"{search.left_out:,} quotes were left out, past the first {len(self.evidence):,}")
        wrong = sum(not quote.verified for quote in self.evidence)
        if not self.evidence:
            self._notice("the answer comes without quotes")
        elif wrong:
            self._notice(f"{wrong:,} of {len(self.evidence):,} quotes are not verified")


def read_quotes(final: TextFinal, words: str) -> tuple[TextFinal, TextQuotes]:
    """Return an answer found in the reply ``words`` without its quotes, and these."""
    if final.kind == "FINAL":
        inside = _IN_CALL.fullmatch(final.argument)
        if inside is not None:
            return replace(final, argument=_unquoted(inside["text"].strip())), _given(inside["given"])
        heading = _HEADING.search(final.argument)
        if heading is not None and heading.start():
            text = final.argument[: heading.start()].strip()
            return replace(final, argument=_unquoted(text)), TextQuotes(_below(final.argument))
    elif inside := _IN_VAR_CALL.match(words, final.start):
        return final, _given(inside["given"])
    return final, TextQuotes(_below(words))


def _given(text: str) -> TextQuotes:
    if text.isidentifier():
        return TextQuotes(variable=text)
    return TextQuotes(tuple(_unescaped(match[1] or match[2] or "") for match in _TOKEN.finditer(text)))


def _below(words: str) -> tuple[str, ...]:
    """Return the items of the list below the first heading in ``words``."""
    heading = _HEADING.search(words)
    if heading is None:
        return ()
    found = [_item(heading["rest"])] if heading["rest"].strip() else []
    for line in words[heading.end() :].split("\n"):
        text = line.strip()
        item = _ITEM.fullmatch(line.rstrip())
        if item is not None:
            found.append(_item(item["text"]))
        elif text[:1] in _MARKS and len(text) > 1:
            found.append(_item(text))
        elif text:
            break
    return tuple(found)


def _item(text: str) -> str:
    """Take quotation marks off, and what stands behind them."""
    text = text.strip()
    closing = _MARKS.get(text[:1])
    end = text.rfind(closing) if closing else 0
    return text[1:end] if end > 0 else text


def _unquoted(text: str) -> str:
    match = _TOKEN.fullmatch(text)
    return _unescaped(match[1] or match[2] or "") if match else text


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _SIMPLE.get(m[2], m[2]), text)
