"""What a model may write in a reply: code blocks, answers as text, and what it must not invent.

`parse` reads any text, never raises, and takes time linear in it. Its invariant: what stands inside a fence
is never an answer, and what stands inside an answer is never code.

**Code** is a fence of three or more backticks or tildes, tagged ``repl``, ``python`` or the like. Untagged,
it is code when it is the only fence of the reply; with another tag (``json``, ``text``, ``bash``) never.
Fences may be indented or stand in a list item; code is moved left by as much. They close as in CommonMark: by
the same character, at least as often. One that never closes runs to the end of the reply. Two things go
beyond CommonMark: a fence on one line is read, and a closing fence inside a triple-quoted string of the code
closes nothing, if that string ends before a later one. A reply without a fence tagged as code that begins
with a program is code up to its first fence (`rlm_kernel.barecode`). Thoughts (``<think>`` at the start) are
passed over.

**An answer** as text is a line that starts with ``FINAL(`` or ``FINAL_VAR(``, outside every fence, quotation
and code span. The first one counts. ``FINAL(`` goes to its matching parenthesis, over lines and fences if
need be, or else to the next fence or the end; quotes around all of it are taken off. ``FINAL_VAR`` takes one
name, bare or quoted. In a comment or a string of code, both are just code.

**Invented output** is a line like ``REPL output:`` or ``User:``, or a fence tagged ``output``, after code:
nothing from there on is read.

What becomes of an answer is decided by the engine:

==============================================  =========================================================
answer                                          taken
==============================================  =========================================================
given by code, in the first block of a reply    yes
given by code, in a later block                 yes; on turn 1 refused once, its code saw no output yet
``FINAL(...)`` as text beside code              never: it can't rest on that code's output
``FINAL_VAR(name)`` as text beside code         after all blocks ran without error; on turn 1 refused once
either as text, without code                    yes; on turn 1 refused once if there is a context to look at
``FINAL_VAR`` of an undefined variable          no; the model is told which variables there are
==============================================  =========================================================

Blocks run in order, up to the first error. An answer by code counts if its cell raises afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .barecode import bare_code

__all__ = ["Block", "ParsedReply", "TextFinal", "parse"]


@dataclass(frozen=True, slots=True)
class Block:
    """Code to execute. ``reply[start:end]`` is the whole fence; ``closed`` is false if the reply ended first.

    Where no fence was opened, ``start`` is where the reply begins.

    ``tag`` is in lower case, empty for an untagged fence.
    """

    code: str
    tag: str
    start: int
    end: int
    closed: bool = True


@dataclass(frozen=True, slots=True)
class TextFinal:
    """An answer written as text; ``argument`` is its text, or the variable's name. It starts at ``start``."""

    kind: Literal["FINAL", "FINAL_VAR"]
    argument: str
    start: int


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """A reply, read. ``prose`` is what is left of it without code, thoughts and invented output.

    ``invented_at`` is where the reply starts to imitate the REPL, or None.
    """

    blocks: tuple[Block, ...] = ()
    final: TextFinal | None = None
    invented_at: int | None = None
    prose: str = ""


def parse(reply: str) -> ParsedReply:
    """Find code and answer in ``reply``. Any text will do."""
    begin = _after_thought(reply)
    fences, final, imitations = _scan(reply, begin)
    fences = [fence for fence in fences if fence.tag not in _OUTPUT_TAGS]
    invented_at = _invention(fences, imitations)
    end = len(reply) if invented_at is None else invented_at
    fences = [fence for fence in fences if fence.start < end]
    blocks = [fence for fence in fences if fence.tag in _CODE_TAGS]
    if len(fences) == 1 and not fences[0].tag:
        blocks = fences
    if not any(fence.tag in _CODE_TAGS for fence in fences) and (bare := bare_code(reply, begin)):
        code, stop, closed = bare
        imitation = _IMITATION_LINE.search(reply, stop)
        invented_at = imitation.start() if imitation else None
        block = Block(code, "", begin, stop, closed=closed)
        return ParsedReply((block,), None, invented_at, reply[begin:].strip())
    if final is not None and final.start >= end:
        final = None
    return ParsedReply(tuple(blocks), final, invented_at, _prose(reply[:end], begin, blocks))


_CODE_TAGS = frozenset({"repl", "python", "py", "python3", "ipython", "ipython3"})
_OUTPUT_TAGS = frozenset({"output", "stdout"})
# How many closing fences are tried for code with an open triple-quoted string; keeps `parse` linear.
_LOOKAHEAD = 32

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_OPENING = re.compile(
    r"(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<fence>`{3,}|~{3,})(?P<info>.*)", re.DOTALL
)
_CLOSING = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*")
_TAG = re.compile(r"[ \t]*\{?\.?([\w+#-]*)")
_FINAL = re.compile(r"[ \t]*(?:\*{1,3}|_{1,3})?(?P<word>FINAL(?:_VAR)?)[ \t]*\(")
# Quotes beside the name are read by `rlm_kernel.runs.citing`.
_VARIABLE = re.compile(
    r"""\s*(["']?)([^\W\d]\w*)\1\s*(?:,\s*quotes\s*=\s*(?:(?s:\[.{0,8000}?\])|\w+)\s*)?\)"""
)
_IMITATION = re.compile(
    r"[ \t]*(?:[*_#]{1,3}[ \t]*)?"
    r"(?:(?:REPL output|Output|stdout)(?:[ \t]*\(block \d+\))?[*_]{0,3}:|Out ?\[\d+\]:|User:[ \t]*$)",
    re.IGNORECASE,
)
_IMITATION_LINE = re.compile(rf"^(?:{_IMITATION.pattern})", re.MULTILINE | re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)


def _after_thought(reply: str) -> int:
    """Return where the reply proper starts, for models that write their thoughts into it."""
    thought = _THOUGHT.match(reply)
    return thought.end() if thought else 0


def _invention(fences: Sequence[Block], imitations: Sequence[int]) -> int | None:
    """Return the first of ``imitations`` that follows code."""
    tagged = [fence for fence in fences if fence.tag in _CODE_TAGS]
    if tagged:
        return next((start for start in imitations if start >= tagged[0].end), None)
    if not fences or fences[0].tag:
        return None
    start = next((start for start in imitations if start >= fences[0].end), None)
    alone = start is not None and (len(fences) == 1 or fences[1].start > start)
    return start if alone else None


def _prose(text: str, begin: int, blocks: Sequence[Block]) -> str:
    pieces = []
    for block in blocks:
        pieces.append(text[begin : block.start])
        begin = block.end
    pieces.append(text[begin:])
    return "".join(pieces).strip()


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its end; the next one starts at ``end``."""

    text: str
    start: int
    end: int


def _scan(reply: str, begin: int) -> tuple[list[Block], TextFinal | None, list[int]]:
    """Return all fences as blocks, the first answer, and where lines imitate the REPL."""
    fences: list[Block] = []
    final: TextFinal | None = None
    imitations: list[int] = []
    lines = [
        _Line(match[0].rstrip("\r\n"), match.start(), match.end()) for match in _LINE.finditer(reply, begin)
    ]
    index, read = 0, begin
    while index < len(lines):
        line = lines[index]
        if line.start < read:
            index += 1  # part of an answer
        elif (opening := _opening(line.text)) is not None:
            block, index = _fence(lines, index, opening)
            fences.append(block)
            if block.tag in _OUTPUT_TAGS:
                imitations.append(block.start)
        else:
            index += 1
            if _IMITATION.match(line.text):
                imitations.append(line.start)
            elif final is None and (word := _FINAL.match(line.text)):
                final, read = _final(reply, word["word"], line.start + word.start("word"))
    return fences, final, imitations


# Fences ---------------------------------------------------------------------------------------------


def _opening(line: str) -> re.Match[str] | None:
    """Return the opening fence in ``line``; a code span that starts with three backticks is none."""
    opening = _OPENING.fullmatch(line)
    if opening is None or (opening["fence"][0] == "`" and "`" in opening["info"] and not _one_line(opening)):
        return None
    return opening


def _one_line(opening: re.Match[str]) -> str | None:
    """Return the code of a fence that opens and closes on one line, or None for any other."""
    tag, rest = _tag_of(opening["info"])
    rest = rest.rstrip()
    code = rest.removesuffix(opening["fence"])
    closes_once = code != rest and opening["fence"] not in code and not code.endswith(opening["fence"][0])
    return code.strip() or None if tag in _CODE_TAGS and closes_once else None


def _tag_of(info: str) -> tuple[str, str]:
    """Split what follows a fence's opening into the tag and the rest."""
    match = _TAG.match(info)
    end = match.end() if match else 0
    return (match[1].lower() if match else ""), info[end:]


def _fence(lines: Sequence[_Line], index: int, opening: re.Match[str]) -> tuple[Block, int]:
    """Read the fence that opens at line ``index``. Returns it and the index of the line after it."""
    start = lines[index].start + len(opening["indent"])
    tag, rest = _tag_of(opening["info"])
    inline = _one_line(opening)
    if inline is not None:
        return Block(inline, tag, start, lines[index].end), index + 1
    # After ``repl`` there are no attributes to expect, so the rest of the line is code.
    head = [rest.strip()] if tag == "repl" and rest[:1].isspace() and rest.strip() else []
    body = index + 1
    close = _close(lines, body, opening["fence"], head, is_code=tag in _CODE_TAGS or not tag)
    code = "\n".join(head + _moved_left([line.text for line in lines[body:close]], len(opening["indent"])))
    if close == len(lines):
        return Block(code, tag, start, lines[-1].end, closed=False), close
    return Block(code, tag, start, lines[close].end), close + 1


def _close(lines: Sequence[_Line], body: int, fence: str, head: Sequence[str], *, is_code: bool) -> int:
    """Return the index of the line that closes a fence, or the number of lines if none does."""
    quote = _open_string("\n".join(head), "")
    first = (*head, *(line.text for line in lines[body : body + 1]), "")[0]
    if first.startswith("%%"):
        is_code = False  # a cell magic: what follows need not be Python
    candidates: list[int] = []
    read = body
    for index in range(body, len(lines)):
        closing = _CLOSING.fullmatch(lines[index].text)
        if closing is None or not closing[1].startswith(fence):
            continue
        candidates.append(index)
        quote = _open_string("\n".join(line.text for line in lines[read:index]) + "\n", quote)
        read = index
        if not (is_code and quote):
            return index
        if len(candidates) == _LOOKAHEAD:
            return candidates[0]
    if candidates and _open_string("\n".join(line.text for line in lines[read:]), quote):
        return candidates[0]  # the string is never closed: an error in the code, which the kernel will show
    return len(lines)


_TOKEN = re.compile(
    r"""#[^\n]*|(?P<triple>\"{3}|'{3})|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?""", re.DOTALL
)
_END = {quote: re.compile(rf"\\.|({quote})", re.DOTALL) for quote in ('"""', "'''")}


def _open_string(code: str, quote: str) -> str:
    """Return the quotes of the triple-quoted string open after ``code``, given those open before it."""
    position = 0
    while True:
        token = (_END[quote] if quote else _TOKEN).search(code, position)
        if token is None:
            return quote
        position = token.end()
        if not quote:
            quote = token["triple"] or ""
        elif token[1]:
            quote = ""


def _moved_left(lines: list[str], columns: int) -> list[str]:
    """Take a fence's indentation off its lines, if the first line of the code has it."""
    first = next((line for line in lines if line.strip()), "")
    if not columns or len(first) - len(first.lstrip()) < columns:
        return lines
    return [line[:columns].lstrip() + line[columns:] for line in lines]


# Answers --------------------------------------------------------------------------------------------

_QUOTED = re.compile(r"""(\"{3}|'{3}|["'])(?P<text>(?:\\.|(?!\1)[^\\])*)\1\s*(?:,\s*)?\)""", re.DOTALL)
_PARENTHESES = re.compile(
    r"""\"[^"\n]*"|(?<!\w)'[^'\n]*'(?!\w)|(?m:^)[ \t]*\w{1,3}\)(?=[ \t]+\S)|(?P<paren>[()])"""
)
_ANY_PARENTHESES = re.compile(r"(?P<paren>[()])")
# Quotes around a text whose own quotes are apostrophes.
_SURROUNDED = re.compile(r"""(["'])((?:(?!\1).|(?<=\w)\1(?=\w))+)\1""", re.DOTALL)
_SPACE = re.compile(r"\s*")
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.MULTILINE)


def _final(reply: str, word: str, start: int) -> tuple[TextFinal | None, int]:
    """Read the answer whose ``word`` is at ``start``. Returns it and the offset up to which it was read."""
    begin = reply.index("(", start) + 1
    if word == "FINAL_VAR":
        name = _VARIABLE.match(reply, begin)
        return (TextFinal("FINAL_VAR", name[2], start), name.end()) if name else (None, begin)
    blank = _SPACE.match(reply, begin)
    quoted = _QUOTED.match(reply, blank.end() if blank else begin)
    if quoted is not None:
        text = quoted["text"].replace("\\" + quoted[1][0], quoted[1][0])
        return _found(text, start), quoted.end()
    end = _matching(_PARENTHESES, reply, begin) or _matching(_ANY_PARENTHESES, reply, begin)
    if end is not None:
        return _found(_unquoted(reply[begin : end - 1].strip()), start), end
    fence = _FENCE_LINE.search(reply, begin)
    if fence is not None and reply[begin : fence.start()].strip():
        return _found(reply[begin : fence.start()], start), begin
    return _found(reply[begin:], start), len(reply)


def _found(text: str, start: int) -> TextFinal | None:
    text = text.strip()
    return TextFinal("FINAL", text, start) if text else None


def _unquoted(text: str) -> str:
    surrounded = _SURROUNDED.fullmatch(text)
    return surrounded[2] if surrounded else text


def _matching(parentheses: re.Pattern[str], text: str, begin: int) -> int | None:
    """Return the offset after the parenthesis that closes the one before ``begin``; skip what is quoted."""
    depth = 1
    for match in parentheses.finditer(text, begin):
        if match["paren"] is not None:
            depth += 1 if match["paren"] == "(" else -1
            if depth == 0:
                return match.end()
    return None
