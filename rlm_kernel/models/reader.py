"""The scripted sub-model: it answers a few kinds of question by reading the text in its own prompt.

A prompt is an instruction, an empty line, the text (a line ``Context:`` before it is skipped). Nothing is
canned: a reply is computed from that text, so that a run on scripted models has a real answer.

=============================================== ============================================
``Count the matches of /RE/ in the text``       a number
``Count the matches of /RE/ in each file``      JSON: path -> number
``List the matches of /RE/ in the text``        each match once, a line each
``List the matches of /RE/ in each file``       JSON: path -> list of matches, each once
``Summarise the text in N sentences``           its first N sentences, each from another paragraph
``Which of these is named most often: a, b, c`` the one of these words, or ``none``
=============================================== ============================================

Regular expressions are Python's, ``^`` and ``$`` matching at lines; a match counts as its first group
where there is one. Several files stand in one text in the form that `file_block` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from ..messages import message_text
from .base import Request

__all__ = ["file_block", "read"]

_FILE = re.compile(r"=== FILE (.+) \((\d+) characters\) ===\n")
_SENTENCE = re.compile(r"\S[^\n]*?(?:[.!?](?=\s|$)|$)", re.MULTILINE)
SENTENCE_CHARS = 300


def file_block(path: str, text: str) -> str:
    """Return ``text`` as one of several files in a prompt; its length says where it ends."""
    return f"=== FILE {json.dumps(path)} ({len(text)} characters) ===\n{text}\n"


def read(request: Request) -> str:
    """Answer the last user message of ``request``."""
    prompt = next((message_text(each) for each in reversed(request.messages) if each["role"] == "user"), "")
    instruction, _, text = prompt.partition("\n\n")
    text = text.removeprefix("Context:\n")
    for pattern, rule in _RULES:
        found = pattern.match(instruction)
        if found:
            try:
                return rule(found, text)
            except re.error as error:
                return f"That is no regular expression: {error}"
    return f"I am scripted and know no rule for this: {instruction[:200]}"


def _count(found: re.Match[str], text: str) -> str:
    return str(len(_matches(found, text)))


def _count_each(found: re.Match[str], text: str) -> str:
    return json.dumps({path: len(_matches(found, part)) for path, part in _files(text)})


def _list(found: re.Match[str], text: str) -> str:
    return "\n".join(dict.fromkeys(_matches(found, text)))


def _list_each(found: re.Match[str], text: str) -> str:
    return json.dumps({path: list(dict.fromkeys(_matches(found, part))) for path, part in _files(text)})


def _summarise(found: re.Match[str], text: str) -> str:
    sentences: list[str] = []
    for line in text.splitlines():
        sentence = _SENTENCE.search(line)
        if sentence and any(char.isalpha() for char in sentence[0]):
            sentences.append(sentence[0].strip()[:SENTENCE_CHARS])
        if len(sentences) >= int(found[1]):
            break
    return "\n".join(sentences) or "The text is empty."


def _which(found: re.Match[str], text: str) -> str:
    words = [word.strip() for word in found[1].split(",") if word.strip()]
    counts = {word: len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)) for word in words}
    best = max(counts, key=lambda word: counts[word], default="none")
    return best if counts.get(best) else "none"


def _matches(found: re.Match[str], text: str) -> list[str]:
    pattern = re.compile(found[1], re.MULTILINE)
    return [each[1] or "" if pattern.groups else each[0] for each in pattern.finditer(text)]


def _files(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while header := _FILE.match(text, at):
        end = header.end() + int(header[2])
        yield json.loads(header[1]), text[header.end() : end]
        at = end + 1


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), rule)
    for pattern, rule in (
        (r"Count the matches of /(.+)/ in each file", _count_each),
        (r"Count the matches of /(.+)/", _count),
        (r"List the matches of /(.+)/ in each file", _list_each),
        (r"List the matches of /(.+)/", _list),
        (r"Summari[sz]e the text in (\d+) sentences?", _summarise),
        (r"Which of these is named most often: (.+)", _which),
    )
)
