"""Scripted root models: named policies that explore, split, ask and reduce as a model would.

A policy writes what its name says, in three turns: it looks at the context, does the work, ends. It keeps
no state, its turn being the number of assistant messages. What it writes is real code against ``context``
(text, a list, or a dict of texts); every answer is computed by that code from the text.

The question decides what is looked for: a ``/regular expression/`` in it, else a ``'quoted word'``, else
function or class definitions if it speaks of functions or classes, else its longest word.

============== =============================================================== ==================
name           work                                                            ends with
============== =============================================================== ==================
``peek``       asks for a summary of the first 2,000 characters                ``answer`` dict
``grep``       searches in the REPL, asks nobody                               ``FINAL_VAR`` text
``map_reduce`` packs all text into chunks, one batch of sub-calls, adds up     ``FINAL_VAR`` call
``summary``    summarises chunks, then the summaries, until one is left        ``answer`` dict
``pairs``      asks for each part's matches, pairs parts that share one        ``FINAL`` call
``recursive``  gives four children a quarter each with ``rlm_query``, adds up  ``FINAL`` call
``reader``     is a sub-model, see `rlm_kernel.models.reader`
============== =============================================================== ==================

A request without a system message is no turn but a sub-call: every policy answers it as ``reader`` does. A
turn that ``reader`` is asked for, as a child's root model, is played by ``recursive``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..messages import message_text
from .base import Request
from .reader import read

__all__ = ["POLICIES", "pattern_of", "question_of"]

_FUNCTIONS = r"^[ \t]*(?:async[ \t]+)?def[ \t]"
_CLASSES = r"^[ \t]*class[ \t]"
_PART_QUESTION = re.compile(r"Count the matches of /.+/ in this part")

_PARTS = """\
parts = (
    {str(k): v if isinstance(v, str) else str(v) for k, v in context.items()} if isinstance(context, dict)
    else {str(i): v if isinstance(v, str) else str(v) for i, v in enumerate(context)}
    if isinstance(context, (list, tuple))
    else {"context": str(context)}
)
"""

_SHOW = """\
print(type(context).__name__, "of", len(parts), "parts,", sum(map(len, parts.values())), "chars")
for name, text in list(parts.items())[:3]:
    print(f"{name}: {len(text)} chars, {text[:80]!r}")
"""

# Pieces of a part end at the end of a line, so that patterns find the same in them as in the whole.
_SPLIT = """\
def pieces(text, size):
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            end = text.rfind("\\n", start, end) + 1 or end
        yield text[start:end]
        start = end

"""

_PEEK = """\
text = "\\n".join(parts.values())
answer["content"] = llm_query("Summarise the text in 1 sentence.\\n\\n" + text[:2000])
answer["ready"] = True
"""

_GREP = """\
import re

places = [
    (name, match.group().strip())
    for name, text in parts.items()
    for match in re.compile(PATTERN, re.MULTILINE).finditer(text)
]
result = {"matches": len(places), "first": places[:5]}
result
"""

_MAP_REDUCE = (
    _SPLIT
    + """\
import json
from collections import Counter

chunks, size = [], 150_001
for name, text in parts.items():
    for piece in pieces(text, 150_000):
        if size + len(piece) > 150_000:
            chunks.append("")
            size = 0
        chunks[-1] += f"=== FILE {json.dumps(name)} ({len(piece)} characters) ===\\n{piece}\\n"
        size += len(piece)
task = "Count the matches of /" + PATTERN + "/ in each file. Reply with JSON, path -> number.\\n\\n"
replies = llm_query_batched([task + chunk for chunk in chunks])
failed = [i for i, reply in enumerate(replies) if not reply]
for i, reply in zip(failed, llm_query_batched([task + chunks[i] for i in failed])):
    replies[i] = reply
counts = Counter()
for reply in replies:
    if reply:
        counts.update(json.loads(reply))
missing = sum(not reply for reply in replies)
print(len(chunks), "chunks,", missing, "without a reply;", sum(counts.values()), "in all")
print(counts.most_common(5))
"""
)

_MAP_REDUCE_END = """\
things = THINGS
total = sum(counts.values())
result = f"There are {total} {things}."
if len(counts) > 1:
    best, most = counts.most_common(1)[0]
    result = f"{best} has the most {things}: {most}. There are {total} in all, in {len(parts)} texts."
if missing:
    result += f" {missing} of {len(chunks)} chunks could not be read, so these are lower bounds."
FINAL_VAR("result")
"""

_SUMMARY = (
    _SPLIT
    + """\
text = "\\n".join(parts.values())
size = max(20_000, len(text) // 60)
level = [chunk for chunk in pieces(text, size)]
task = "Summarise the text in {} sentences.\\n\\n"
while True:
    level = [str(reply) for reply in llm_query_batched([task.format(2) + each for each in level]) if reply]
    print(len(level), "summaries")
    if len(level) <= 1:
        break
    level = ["\\n".join(level[i : i + 8]) for i in range(0, len(level), 8)]
answer["content"] = level[0] if level else "There is nothing to summarise."
answer["ready"] = True
"""
)

_PAIRS = """\
import json
from itertools import combinations

if len(parts) == 1:
    lines = next(iter(parts.values())).splitlines()
    parts = {str(number): line for number, line in enumerate(lines, 1) if line.strip()}
names = list(parts)
task = "List the matches of /" + PATTERN + "/ in each file. Reply with JSON, path -> matches.\\n\\n"
blocks = [f"=== FILE {json.dumps(n)} ({len(parts[n])} characters) ===\\n{parts[n]}\\n" for n in names]
prompts = [task + "".join(blocks[i : i + 50]) for i in range(0, len(blocks), 50)]
found = {}
for reply in llm_query_batched(prompts):
    found.update(json.loads(reply) if reply else {})
holders = {}
for name in names:
    for match in found.get(name, []):
        holders.setdefault(match, []).append(name)
place = {name: i for i, name in enumerate(names)}
shared = {pair for group in holders.values() for pair in combinations(group, 2)}
pairs = [list(pair) for pair in sorted(shared, key=lambda pair: (place[pair[0]], place[pair[1]]))]
print(len(pairs), "pairs")
"""

_RECURSIVE = """\
text = "\\n".join(parts.values())
places = [len(text) * i // 4 for i in range(1, 4)]
cuts = sorted({0, len(text), *(text.find("\\n", place) + 1 or place for place in places)})
quarters = [text[start:end] for start, end in zip(cuts, cuts[1:])]
query = "Count the matches of /" + PATTERN + "/ in this part. Reply with the number only."
replies = rlm_query_batched([(query, quarter) for quarter in quarters])
counts = [int(reply) for reply in replies if reply]
print(counts)
"""

_RECURSIVE_END = """\
total = sum(counts)
FINAL(total if len(counts) == len(quarters) else f"at least {total}: not every part was counted")
"""

_CHILD = """\
import re

count = sum(len(re.findall(PATTERN, text, re.MULTILINE)) for text in parts.values())
print(count)
"""


def question_of(request: Request) -> str:
    """Return the question: in the first user message, after the last ``Question:`` to an empty line."""
    first = next((message_text(each) for each in request.messages if each["role"] == "user"), "")
    found = list(re.finditer(r"^Question:", first, re.MULTILINE))
    return first[found[-1].end() :].strip().partition("\n\n")[0] if found else first.strip()


def pattern_of(question: str) -> tuple[str, str]:
    """Return the regular expression that ``question`` is about, and what to call its matches."""
    if found := re.search(r"(?<![\w/])/(?! )(.+)/(?![\w/])", question):
        return found[1], f"matches of /{found[1]}/"
    if found := re.search(r"""(?<!\w)["'`\u201c]([^"'`\u201d\n]+)["'`\u201d](?!\w)""", question):
        return re.escape(found[1]), f"matches of {found[1]!r}"
    for word, pattern, things in (("function", _FUNCTIONS, "functions"), ("class", _CLASSES, "classes")):
        if re.search(rf"\b{word}", question, re.IGNORECASE):
            return pattern, things
    word = max(re.findall(r"\w+", question), key=len, default="the")
    return re.escape(word), f"matches of {word!r}"


def _policy(plan: str, work: str, end: str = "") -> Callable[[Request], str]:
    """Return a policy whose second turn executes ``work`` and whose third ends with ``end``.

    Without ``end``, the work itself ends the run. Where it was lost with its kernel it is done again.
    """

    def reply(request: Request) -> str:
        if not any(each["role"] == "system" for each in request.messages):
            return read(request)
        pattern, things = pattern_of(question_of(request))
        turns = sum(each["role"] == "assistant" for each in request.messages)
        lost = re.search(r"^NameError: name", message_text(request.messages[-1]), re.MULTILINE)
        if turns == 0:
            return _written("I look at the context first.", _PARTS + _SHOW)
        if turns == 1 or lost or not end:
            return _written(plan, _PARTS + work.replace("PATTERN", repr(pattern)))
        if end.startswith("```"):
            return _written("That is all I need.", end.removeprefix("```").replace("THINGS", repr(things)))
        return f"That is all I need.\n\n{end}"

    return reply


def _written(plan: str, code: str) -> str:
    return f"{plan}\n\n```repl\n{code}```"


_divide = _policy("I give each quarter of the text to a child.", _RECURSIVE, f"```{_RECURSIVE_END}")
_count = _policy("This is small enough to count here.", _CHILD, "```FINAL(count)\n")


def _recursive(request: Request) -> str:
    return (_count if _PART_QUESTION.match(question_of(request)) else _divide)(request)


POLICIES: Mapping[str, Callable[[Request], str]] = {
    "peek": _policy("The beginning will tell.", _PEEK),
    "grep": _policy("A search finds it.", _GREP, "FINAL_VAR(result)"),
    "map_reduce": _policy(
        "I pack the text into chunks, let sub-models count, and add up.",
        _MAP_REDUCE,
        f"```{_MAP_REDUCE_END}",
    ),
    "summary": _policy("I summarise the text in pieces, then the summaries.", _SUMMARY),
    "pairs": _policy("I collect the matches of each part.", _PAIRS, "```FINAL(pairs)\n"),
    "recursive": _recursive,
    "reader": _recursive,
}
"""The policies by name."""
