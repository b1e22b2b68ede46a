"""The words sent to models, besides the outputs of cells (`rlm_kernel.feedback`).

Invariants: the system prompt depends on a run's settings only and never changes during the run, so that
provider prefix caches hit; its size does not depend on the context; no text of a user or a context is ever
used as a format string. The worked examples are what small models learn the format from: their messages have
exactly the form of the real ones, which a test holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .events import ContextInfo

__all__ = [
    "CUT_REPLY",
    "INVENTED_OUTPUT",
    "NO_QUOTES",
    "REFUSED_FINAL",
    "REFUSED_UNSEEN",
    "PromptSpec",
    "faulty_answer",
    "faulty_reply",
    "first_message",
    "json_request",
    "no_code",
    "own_system_prompt",
    "status_line",
    "sub_prompt",
    "system_prompt",
    "undefined_final_var",
    "wrap_up_message",
]


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """What the system prompt tells of a run.

    ``has_recursion`` is whether children get a REPL, without which ``rlm_query`` isn't offered. ``depth`` is
    0 for the root. ``output_chars`` is what each stream of a cell may show; ``sub_call_chars`` how long a
    prompt of a sub-call should be at most. ``models`` are names that calls may ask for. ``tools`` are pairs
    of signature and description. ``budget`` holds the caps of the whole tree, named as in
    `rlm_kernel.ledger`. ``output`` is the JSON schema of the answer as text, or empty. ``cite`` is
    whether the answer is to come with quotes. ``bare_python`` is whether the REPL has Python alone: no
    IPython, threads, processes or packages.
    """

    context_names: tuple[str, ...] = ("context",)
    has_recursion: bool = False
    depth: int = 0
    max_iterations: int = 20
    cell_timeout: float | None = 120.0
    output_chars: int = 20_000
    sub_call_chars: int = 100_000
    vision: bool = False
    models: tuple[str, ...] = ()
    tools: tuple[tuple[str, str], ...] = ()
    budget: Mapping[str, float | None] = field(default_factory=dict)
    output: str = ""
    cite: bool = False
    bare_python: bool = False


def system_prompt(spec: PromptSpec) -> str:
    """Return the system prompt of a run."""
    asked = (_finishing(spec), _output(spec), _cite(spec))
    examples = _EXAMPLES.replace(*_CITED_EXAMPLE) if asked[-1] else _EXAMPLES
    return _joined([_role(spec), _code(spec), _names(spec), *asked, _WORK, examples])


def own_system_prompt(text: str, spec: PromptSpec) -> str:
    """Return a caller's own system prompt, with what its tools and its answer need to be known."""
    return _joined([text, "\n".join(_tools(spec)), _output(spec), _cite(spec)])


def first_message(query: str, contexts: Sequence[ContextInfo], status: str, note: str = "") -> str:
    """Return the first user message: the contexts' descriptions, ``note``, the question, and ``status``.

    The question stands behind ``Question: `` at the start of a line, the last such line there, and may have
    several lines.
    """
    described = "\n\n".join(info.description for info in contexts)
    return _joined([described, note, f"Question: {query.strip()}", status])


def status_line(turn: int, max_iterations: int, left: Mapping[str, float | None]) -> str:
    """Return the line that ends each message: which turn comes, and what is left under the caps there are."""
    last = ", the last: give your answer" if turn >= max_iterations else ""
    amounts = _amounts(left)
    return f"Turn {turn} of {max_iterations}{last}." + (f" Left: {amounts}." if amounts else "")


def sub_prompt(query: str, context_text: str | None = None) -> str:
    """Return the prompt of a child that is one plain call: the question, then its context as text."""
    return query if context_text is None else f"{query}\n\nContext:\n{context_text}"


def wrap_up_message() -> str:
    """Return what is said when no turn is left."""
    return (
        "No turns are left, and no code will run any more. From what you have seen so far, give your best "
        "answer to the question now, in plain text. Say so where it is a guess."
    )


def json_request(schema: str) -> str:
    """Return the end of a sub-call's prompt that asks for JSON."""
    return f"Reply with JSON only, no other words, that satisfies this JSON schema:\n{schema}"


def faulty_reply(faults: Sequence[str]) -> str:
    """Return what a sub-model is told of a reply that does not satisfy its schema."""
    return f"This does not satisfy the JSON schema:\n{_list(faults)}\nReply again, with correct JSON only."


def faulty_answer(faults: Sequence[str]) -> str:
    """Return the note that an answer does not satisfy its schema."""
    return (
        f"Note: your answer was not taken, it does not satisfy the JSON schema:\n{_list(faults)}\nCorrect it "
        "and give it again."
    )


def no_code(names: Sequence[str] = ()) -> str:
    """Return what a reply without code is told, with a block to start from, which small models copy."""
    look = f"print(str({names[0]})[:500])" if names else "SHOW_VARS()"
    return (
        "Note: nothing was run, your reply had no code. Write code in a block such as this one, or finish "
        f"with a line FINAL(your answer).\n```repl\n{look}\n```"
    )


REFUSED_FINAL = (
    "Note: FINAL(...) was not taken, because it stood beside code whose output you had not seen. Now that "
    "you see it, answer, or go on."
)
REFUSED_UNSEEN = (
    "Note: your answer was not taken, because you gave it before you had seen anything of the context or of "
    "what your code puts out. Look first, then answer."
)
NO_QUOTES = (
    "Note: your answer was not taken yet, because it came without quotes. Give the same answer again with "
    "them: FINAL(value, quotes=[...]), each quote cut out of the context by code."
)
CUT_REPLY = (
    "Note: your reply was cut at its length limit; a block that was not closed did not run. Write less at a "
    "time."
)
INVENTED_OUTPUT = (
    "Note: your reply went on with output that you made up; it was dropped from there on. End your reply "
    "after the code block: the real output comes in the next message."
)


def undefined_final_var(name: str, known: Sequence[str]) -> str:
    """Return the note that ``FINAL_VAR`` named no variable, with those there are."""
    names = ", ".join(known[:30]) if known else "none yet"
    return f"Note: FINAL_VAR({name}) was not taken, there is no variable {name}. Your variables: {names}."


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _joined(paragraphs: Sequence[str]) -> str:
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _amounts(caps: Mapping[str, float | None]) -> str:
    forms = {"calls": "{:,.0f} calls", "tokens": "{:,.0f} tokens", "usd": "${:,.2f}", "seconds": "{:,.0f} s"}
    forms["tool_calls"] = "{:,.0f} tool calls"
    amounts = []
    for name, form in forms.items():
        amount = caps.get(name)
        if amount is not None:
            small = name == "usd" and 0 < amount < 0.1
            amounts.append(f"${amount:.4f}" if small else form.format(amount))
    return ", ".join(amounts)


# The system prompt ----------------------------------------------------------------------------------


def _role(spec: PromptSpec) -> str:
    quoted = [f"`{name}`" for name in spec.context_names]
    if quoted:
        where = f"the variable {quoted[0]}" if len(quoted) == 1 else f"the variables {', '.join(quoted)}"
        context = (
            "What the question is about can be far too long to read: it is not in this conversation, it is "
            f"in the REPL as {where}. You see a short description of it. Look at it with code, let "
            "sub-models read pieces of it, and give the answer."
        )
    else:
        context = "No context was given: the question stands by itself."
    child = " Code asked it and gets your answer back: give just what is asked." if spec.depth else ""
    return f"You answer a question by writing Python code in a REPL, turn by turn.{child} {context}"


_FULL = ("IPython", "Top-level `await`, threads and `%magics` work; `input()` does not.")
_BARE = (
    "Python in WebAssembly, with its standard library only",
    (
        "Top-level `await` works; `input()`, threads, processes, `%magics` and other packages do not. For "
        "many calls in flight use `llm_query_batched`."
    ),
)


def _code(spec: PromptSpec) -> str:
    python, works = _BARE if spec.bare_python else _FULL
    figures = "and figures, as images" if spec.vision else "but no figures, only text"
    limit = "" if spec.cell_timeout is None else f" A block is stopped after {spec.cell_timeout:g} s."
    budget = _amounts(spec.budget)
    spend = f", and {budget} for the whole run" if budget else ""
    return f"""\
# Code
Write code in a block that opens with ```repl and closes with ```. One block a reply is best; several run in \
order, up to the first error. End your reply there: the output comes in the next message, never make it up. \
The REPL is a Jupyter kernel ({python}):
- Variables, functions and imports stay, also when a block raises.
- You are shown what is printed, the value of the last expression, displayed tables and tracebacks, {figures}.
- Of each stream you see up to {spec.output_chars:,} characters, head and tail. Print \
counts and samples, keep the rest in variables.
- {works}{limit}
You have {spec.max_iterations} turns{spend}; each message says what is left."""


def _names(spec: PromptSpec) -> str:
    lines = [
        _LLM_QUERY.replace("LENGTH", f"{spec.sub_call_chars:,}"),
        *([_RLM_QUERY] if spec.has_recursion else []),
    ]
    if spec.vision:
        lines.append("- A prompt may also be a list of texts and images.")
    if len(spec.models) > 1:
        lines.append(f"- These take `model=` as well: {', '.join(spec.models)}.")
    lines += [
        "- Each has an awaitable twin with an `a` before its name, such as `allm_query`.",
        "- `SHOW_VARS()` lists your variables, `budget()` tells what is left.",
        *_tools(spec),
    ]
    return "\n".join(lines)


def _tools(spec: PromptSpec) -> list[str]:
    if not spec.tools:
        return []
    return [
        _TOOLS,
        *(f"- `{signature}`: {description}" for signature, description in spec.tools),
    ]


def _output(spec: PromptSpec) -> str:
    if not spec.output:
        return ""
    return (
        "# The answer\n"
        "It must be a JSON value that satisfies the JSON schema below. In code, give it as a Python value: "
        "`FINAL(value)`; without code, write JSON between the parentheses of `FINAL(...)`.\n"
        f"{spec.output}"
    )


def _cite(spec: PromptSpec) -> str:
    if not (spec.cite and spec.context_names):
        return ""
    return """\
# Quotes
The answer must come with quotes: passages of the context that prove it, letter by letter as they stand \
there, each a sentence or a line or two. Never type a quote, cut it out by code, such as a line you found or \
`text[a:b]`; every quote is searched for, and one with a changed letter counts as invented. Give them with \
the answer: `FINAL(value, quotes=[...])`, `FINAL_VAR("name", quotes=[...])`, or `answer["quotes"] = [...]` \
before `answer["ready"] = True`. In a reply without code, write a line `QUOTES:` below FINAL(...) and each \
quote on a line of its own that starts with `- `."""


def _finishing(spec: PromptSpec) -> str:
    look = " On turn 1 look, don't answer." if spec.context_names else ""
    return f"""\
# Finishing
In code: `FINAL(value)`, `FINAL_VAR("name")` for a variable, or `answer["content"] = value; \
answer["ready"] = True`. Without code: a line that starts with `FINAL(your answer)` or `FINAL_VAR(name)`. \
Answer only from output you have seen.{look}"""


_LLM_QUERY = """\
# Functions in the REPL
- `llm_query(prompt) -> str`: ask a sub-model. It sees the prompt and nothing else, so put the text into it; \
up to LENGTH characters work well. Raises `CallFailed` if it fails. With `schema=<JSON schema>` the reply \
comes as a JSON value that satisfies it.
- `llm_query_batched(prompts) -> list`: ask many at once, far faster than a loop. Replies in order; where \
one failed there is a `CallFailed` object (false, with `.kind` and `.message`)."""

_TOOLS = """\
- Tools run outside the REPL: arguments and results are JSON values, a call that fails raises `CallFailed`, \
and each has an awaitable twin as well. There are:"""

_RLM_QUERY = """\
- `rlm_query(query, context) -> str`: a child with a REPL of its own, like yours, answers `query` over \
`context` (any value). For parts that need code or several steps; much dearer than `llm_query`.
- `rlm_query_batched([(query, context), ...]) -> list`: many children at once."""

_WORK = """\
# How to work
1. Look: type, size, a sample of every kind of part. 2. Plan. 3. Use code (regular expressions, counting, \
sorting) for what is exact; use sub-models for what needs understanding: cut the text into pieces as long as \
allowed, ask all of them in one batch, and combine the replies with code. 4. Check: does every line fit your \
pattern, did any call fail? After an error, fix the code. 5. Finish."""

_CITED_EXAMPLE = (
    "Assistant:\nFINAL(26)",
    "Assistant:\n```repl\nFINAL(26, quotes=[line for line in lines if ': Bo paid' in line])\n```",
)

_EXAMPLES = """\
# Two examples
They are about other contexts than yours: learn the way from them, copy no name, pattern or number.

## Example 1: what is exact, by code
User:
context: str, 140 characters (about 35 tokens), 5 lines
text: 'north gate: Ada paid 4 coins\\nsouth gate: Bo paid 9 coins\\nnorth gate: Bo paid 12 coins\\neast \
gate: Ada paid 7 coins\\neast gate: Bo paid 5 coins'

Question: Lines read like "north gate: Ada paid 4 coins". How many coins did Bo pay in all?

Turn 1 of 9.

Assistant:
I parse the fields and check that every line fits.
```repl
import re
lines = context.splitlines()
rows = [re.fullmatch(r"(.+) gate: (.+) paid (\\d+) coins", line) for line in lines]
len(rows), rows.count(None)
```

User:
REPL output:
(5, 0)

Variables: lines, rows

Turn 2 of 9.

Assistant:
```repl
paid = {}
for row in rows:
    paid[row[2]] = paid.get(row[2], 0) + int(row[3])
paid
```

User:
REPL output:
{'Ada': 11, 'Bo': 26}

Variables: lines, paid, row, rows

Turn 3 of 9.

Assistant:
FINAL(26)

## Example 2: what needs understanding, by sub-models
User:
context: list[str], 5,200 items, 2,912,345 characters (about 728k tokens) in all
length of items: shortest 48, median 560, longest 2,930 (of 867 sampled)
starts: ['We waited an hour, and then the soup was cold.', 'Lovely evening!', ...]

Question: Which dish do most guests complain about?

Turn 1 of 9.

Assistant:
Complaints are a matter of meaning, so sub-models read all letters, in pieces of 90,000 characters.
```repl
from collections import Counter
pieces, size = [[]], 0
for text in context:
    if size + len(text) > 90_000:
        pieces.append([])
        size = 0
    pieces[-1].append(text)
    size += len(text)
ask = "For each letter below, name the dish it complains about, if any: one per line, nothing else.\\n\\n"
replies = llm_query_batched([ask + "\\n---\\n".join(piece) for piece in pieces])
failed = [reply for reply in replies if not isinstance(reply, str)]
lines = [line.strip().lower() for reply in replies if reply for line in reply.splitlines()]
dishes = Counter(filter(None, lines))
print(len(replies), failed, dishes.most_common(4))
```

User:
REPL output:
33 [] [('soup', 412), ('duck', 97), ('rice', 31), ('tea', 8)]

Variables: Counter, ask, dishes, failed, lines, pieces, replies, size, text

Turn 2 of 9.

Assistant:
```repl
dish, count = dishes.most_common(1)[0]
report = f"{dish}: {count} complaints"
FINAL_VAR("report")
```"""
