"""A root that maps and reduces, and a reader that sorts letters by words in them."""

import json
import re
from collections import Counter

from rlm_kernel.messages import message_text

MAP = """\
pieces, size = [[]], 0
for letter in context.split("\\n\\n"):
    if size + len(letter) > 90_000:
        pieces.append([])
        size = 0
    pieces[-1].append(letter)
    size += len(letter)
ask = "Sort these letters by theme. Reply with JSON: theme -> number of letters.\\n\\n"
schema = {"type": "object", "additionalProperties": {"type": "integer"}}
replies = llm_query_batched([ask + "\\n".join(piece) for piece in pieces], schema=schema)
print(len(replies), [reply for reply in replies if not isinstance(reply, dict)])
"""
REDUCE = """\
from collections import Counter
themes = Counter()
for reply in replies:
    themes.update(reply)
FINAL("\\n".join(f"{theme}: {count}" for theme, count in themes.most_common()))
"""
WORDS = {
    "the ferry": "ferry",
    "noise at night": "bottles|bar below|bells",
    "the library": "reading room|second volume|evening hours",
    "the trees on the quay": "lime trees",
}


def read(prompt):
    assert len(prompt) < 100_000
    counts = Counter()
    for letter in re.findall(r"about how (.+?)\.", prompt):
        counts[next(theme for theme, words in WORDS.items() if re.search(words, letter))] += 1
    return json.dumps(counts)


def turn(request):
    if request.messages[0]["role"] != "system":
        return read(message_text(request.messages[0]))
    number = sum(each["role"] == "assistant" for each in request.messages)
    return f"```repl\n{['print(context[:600])', MAP, REDUCE][number]}\n```"


MODELS = {"scripted": turn}


def check(output):
    *themes, facts = output.splitlines()
    assert [line.partition(":")[0] for line in themes] == list(WORDS)
    counts = [int(line.rpartition(" ")[2]) for line in themes]
    assert sum(counts) > 1_500
    status, calls, tokens = re.fullmatch(r"(\w+), (\d+) calls, ([\d,]+) tokens", facts).groups()
    assert (status, int(calls)) == ("answered", 3 + 9)
    # Read once, and little else.
    assert 200_000 < int(tokens.replace(",", "")) < 230_000
