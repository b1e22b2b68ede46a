"""What every contender of the overhead benchmark is asked to do, and what the scripted models reply to it.

A model's name says what it does: ``batch-200`` is a root that asks 200 sub-calls in one batch, ``sub-50`` a
sub-model that takes 50 ms. Replies depend on the name and on the number of turns so far, so that any
number of contenders can ask at once and all are asked for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CHILD_CHARS", "Sizes", "Workload", "latency", "reply"]

CHILD_CHARS = 1000
SUB_REPLY = "It is as you say."
# Where the cost of a first turn, a kernel's start included, is not what is asked for.
_LOOK = "print(len(context))"
_POOL = """\
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(32) as pool:
    replies = list(pool.map(llm_query, [f"say {i}" for i in range(COUNT)]))"""
_TEXT = """\
import collections, json, re
rows = [f"On day {i} the {i % 97}th of {i % 389} guests wrote to us." for i in range(COUNT * 10_000)]
text = "\\n".join(rows)
found = re.findall(r"day (\\d+) the (\\d+)th", text)
words = collections.Counter(text.lower().split())
again = json.loads(json.dumps(rows))
order = sorted(again, key=lambda row: row[::-1])"""
_WORK = {
    "calls": 'replies = [llm_query(f"say {i}") for i in range(COUNT)]',
    "batch": 'replies = llm_query_batched([f"say {i}" for i in range(COUNT)])',
    "pool": _POOL,
    "children": f'replies = rlm_query_batched([("How long is it?", "x" * {CHILD_CHARS})] * COUNT)',
    "flood": 'print("x" * (COUNT * 10**6))',
    "lines": 'line = "x" * 99\nfor _ in range(COUNT * 10**4): print(line)',
    "text": _TEXT,
}
_END = {
    "calls": f"FINAL(replies.count({SUB_REPLY!r}))",
    "batch": f"FINAL(replies.count({SUB_REPLY!r}))",
    "pool": f"FINAL(replies.count({SUB_REPLY!r}))",
    "children": f"FINAL(replies.count({str(CHILD_CHARS)!r}))",
    "flood": "FINAL(COUNT)",
    "lines": "FINAL(COUNT)",
    "text": "FINAL(len(found) // 10_000)",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; the defaults are those of the published table. Times in ms, sizes in MB.

    ``warm`` is whether spare kernels are waited for, as a lasting program would find them.
    """

    turns: int = 20
    calls: int = 30
    batch: int = 200
    latency: int = 50
    children: int = 8
    completions: int = 8
    flood: int = 50
    many: int = 1000
    memory: tuple[int, ...] = (100, 500, 1000)
    text: int = 20
    warm: bool = True


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing to do: ``completions`` at once of ``root`` over ``chars`` characters.

    They share a client, ours an `RLM`; ``apart``, each opens and closes its own. ``expected`` is the text of
    the answer, which every contender must reach. ``warm`` is whether the process is to have spare kernels
    ready, where it keeps any; ``repl`` and ``spare_kernels`` are the `RLM`'s.
    """

    root: str
    sub: str = "sub-0"
    expected: str = ""
    chars: int = CHILD_CHARS
    completions: int = 1
    apart: bool = False
    max_depth: int = 1
    max_iterations: int = 20
    warm: bool = True
    repl: str = "local"
    spare_kernels: int = 2

    @property
    def text(self) -> str:
        """A context of ``chars`` ASCII characters, in lines."""
        return ("x" * 79 + "\n") * (self.chars // 80) + "x" * (self.chars % 80)


def steps(model: str) -> Sequence[str]:
    """Return the code of each turn of ``model``."""
    kind, _, number = model.partition("-")
    if kind in ("one", "child"):
        return ["FINAL(len(context))"]
    if kind == "turns":
        return [_LOOK] * (int(number) - 1) + [f"FINAL({number})"]
    if kind == "read":
        return ['print(context.count("x"))', "FINAL(len(context))"]
    return [each.replace("COUNT", number) for each in (_LOOK, f"{_WORK[kind]}\n{_LOOK}", _END[kind])]


def reply(model: str, turn: int) -> str:
    """Return what ``model`` writes on ``turn``, counted from 0."""
    if model.startswith("sub-"):
        return SUB_REPLY
    return f"I go on with the next step.\n\n```repl\n{steps(model)[turn]}\n```"


def latency(model: str) -> float:
    """Return how many seconds ``model`` takes."""
    kind, _, number = model.partition("-")
    return int(number) / 1000 if kind == "sub" else 0.0
