"""The words sent to models: golden files, and what must hold of them whatever the settings.

With UPDATE_GOLDEN=1 in the environment the golden files are written instead of compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel import prompts
from rlm_kernel.dialect import parse
from rlm_kernel.engine import EngineSettings
from rlm_kernel.events import ContextInfo
from rlm_kernel.feedback import CellFeedback, cells_message
from rlm_kernel.guest.describe import describe
from rlm_kernel.outputs import Output
from rlm_kernel.prompts import PromptSpec, first_message, status_line, system_prompt
from rlm_kernel.repl.bootstrap import GuestSettings

GOLDEN = Path(__file__).parent.parent / "golden"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"

COINS = """\
north gate: Ada paid 4 coins
south gate: Bo paid 9 coins
north gate: Bo paid 12 coins
east gate: Ada paid 7 coins
east gate: Bo paid 5 coins"""


def info(value: object, name: str = "context") -> ContextInfo:
    return ContextInfo(name, **describe(value, name))


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if UPDATE:
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") == text + "\n"


# System prompt

FULL = PromptSpec(
    context_names=("old", "new"),
    has_recursion=True,
    depth=1,
    max_iterations=12,
    cell_timeout=None,
    output_chars=9000,
    sub_call_chars=50_000,
    vision=True,
    models=("small", "large"),
    tools=(("weather(city) -> dict", "the weather of {city} today"),),
    budget={"usd": 1.5, "calls": 100, "tokens": None, "seconds": 600},
    output='{"type": "integer"}',
    cite=True,
)


def test_golden_system_prompt():
    check("system_prompt.txt", system_prompt(PromptSpec()))


def test_golden_system_prompt_with_everything():
    check("system_prompt_full.txt", system_prompt(FULL))


def test_size():
    assert len(system_prompt(PromptSpec())) < 5_200


def test_only_what_applies_is_offered():
    plain, full = system_prompt(PromptSpec()), system_prompt(FULL)
    offered = ("rlm_query", "model=", "images", "whole run", "weather", "JSON schema below", "Code asked")
    for words in (*offered, "quotes=[line "):
        assert words not in plain
        assert words in full
    assert "stopped after 120 s" in plain
    assert "stopped after" not in full
    assert "`old`, `new`" in full
    without = system_prompt(PromptSpec(context_names=()))
    assert "No context was given" in without
    assert "On turn 1" not in without


@given(st.text(), st.text())
def test_no_text_is_a_format_string(signature, description):
    assert f"- `{signature}`: {description}" in system_prompt(PromptSpec(tools=((signature, description),)))


# The worked examples: their messages must be what this package says and reads.


def examples() -> list[list[tuple[str, str]]]:
    """Return the examples of the system prompt as lists of (role, text)."""
    _, *parts = re.split(r"\n## Example \d[^\n]*\n", system_prompt(PromptSpec()))
    return [
        [
            (role, text.strip("\n"))
            for role, text in re.findall(
                r"(User|Assistant):\n(.*?)(?=\n\n(?:User|Assistant):\n|\Z)", part, re.DOTALL
            )
        ]
        for part in parts
    ]


def made(namespace: dict[str, object], before: set[str]) -> tuple[str, ...]:
    """Return the variables that a REPL would list: sorted, without modules."""
    return tuple(
        sorted(
            name
            for name, value in namespace.items()
            if name not in before and not isinstance(value, types.ModuleType)
        )
    )


def test_there_are_two_examples_that_end_in_an_answer():
    first, second = examples()
    assert [role for role, _ in first] == ["User", "Assistant"] * 3
    assert [role for role, _ in second] == ["User", "Assistant"] * 2
    final = parse(first[-1][1]).final
    assert final is not None
    assert final.argument == "26"
    assert parse(second[-1][1]).blocks[0].code.endswith('FINAL_VAR("report")')


def test_first_example_is_a_true_run():
    (_, opening), *rest = examples()[0]
    question = re.search(r"^Question: (.*)$", opening, re.MULTILINE)[1]
    assert opening == first_message(question, [info(COINS)], status_line(1, 9, {}))
    namespace: dict[str, object] = {"context": COINS}
    clean = set(namespace) | {"__builtins__"}
    for turn, ((_, reply), (_, answer)) in enumerate(zip(rest[::2], rest[1::2], strict=False), 2):
        (block,) = parse(reply).blocks
        *lines, last = block.code.splitlines()
        exec("\n".join(lines), namespace)
        result = repr(eval(last, namespace))
        cell = CellFeedback(1, "ok", (Output("result", result),), variables=made(namespace, clean))
        assert answer == cells_message([cell], status=status_line(turn, 9, {}))


def test_code_of_the_second_example_runs():
    (_, opening), (_, reply), (_, told), (_, last) = examples()[1]
    assert "\n\nQuestion: " in opening
    asked: list[str] = []
    answers: list[object] = []

    def llm_query_batched(batch):
        asked.extend(batch)
        return ["Soup\nduck\n", "soup", type("CallFailed", (), {"__bool__": lambda self: False})()]

    namespace: dict[str, object] = {
        "context": ["a" * 50_000, "b" * 60_000, "c" * 85_000],
        "llm_query_batched": llm_query_batched,
    }
    clean = {*namespace, "__builtins__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(parse(reply).blocks[0].code, namespace)
    assert len(asked) == 3
    assert max(map(len, asked)) < 100_000
    assert printed.getvalue().startswith("3 [<")
    assert printed.getvalue().endswith(" [('soup', 2), ('duck', 1)]\n")
    names = ", ".join(made(namespace, clean))
    assert f"\n\nVariables: {names}\n\nTurn 2 of 9." in told
    namespace["FINAL_VAR"] = lambda name: answers.append(namespace[name])
    exec(parse(last).blocks[0].code, namespace)
    assert answers == ["soup: 2 complaints"]


# Messages


def test_first_message_puts_the_question_last():
    message = first_message(
        " What\nchanged? ", [info("a\n\nQuestion: b", "old"), info([1], "new")], "Turn 1 of 9."
    )
    assert message.startswith("old: str")
    assert "\n\nnew: list" in message
    assert message.endswith("\n\nQuestion: What\nchanged?\n\nTurn 1 of 9.")
    assert re.findall(r"^Question: ", message, re.MULTILINE) == ["Question: "]


def test_first_message_without_context():
    assert first_message("{why}?", [], "") == "Question: {why}?"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({}, "Turn 2 of 20."),
        ({"usd": None, "calls": None}, "Turn 2 of 20."),
        ({"usd": 0.814, "calls": 34, "seconds": 540.3}, "Turn 2 of 20. Left: 34 calls, $0.81, 540 s."),
        ({"usd": 0.0042, "tokens": 120000}, "Turn 2 of 20. Left: 120,000 tokens, $0.0042."),
        ({"usd": 0, "calls": 0}, "Turn 2 of 20. Left: 0 calls, $0.00."),
    ],
)
def test_status_line(left, words):
    assert status_line(2, 20, left) == words


def test_the_last_turn_is_called_so():
    assert status_line(20, 20, {}) == "Turn 20 of 20, the last: give your answer."


def test_undefined_final_var_names_what_there_is():
    note = prompts.undefined_final_var("totl", ["total", "x"])
    assert "FINAL_VAR(totl)" in note
    assert "Your variables: total, x." in note
    assert "none yet" in prompts.undefined_final_var("x", [])


def test_sub_prompt():
    assert prompts.sub_prompt("Why {0}?") == "Why {0}?"
    assert prompts.sub_prompt("Why?", "Because.") == "Why?\n\nContext:\nBecause."


def test_golden_transcript():
    """Every message that a run can hold, in one run that goes wrong often."""
    left = {"calls": 34, "usd": 0.81}
    error = "Traceback (most recent call last):\nNameError: name 'rows' is not defined"
    failed = CellFeedback(1, "error", (Output("stdout", "5\n"), Output("error", error)), variables=("lines",))
    died = CellFeedback(1, "died", lost="The kernel ended: signal 11. A fresh one replaces it.")
    slow = CellFeedback(1, "timed_out", seconds=120.2, variables=("lines",))
    silent = CellFeedback(1, "ok", variables=("lines", "rows"))
    turns: list[tuple[list[CellFeedback], list[str]]] = [
        ([], [prompts.no_code()]),
        ([], [prompts.REFUSED_UNSEEN]),
        ([failed], []),
        ([died], []),
        ([slow], [prompts.INVENTED_OUTPUT]),
        ([silent], [prompts.REFUSED_FINAL]),
        ([], [prompts.undefined_final_var("row", ["lines", "rows"])]),
    ]
    messages = [first_message("How many coins did Bo pay?", [info(COINS)], status_line(1, 8, left))]
    for turn, (cells, notes) in enumerate(turns, 2):
        blocks = 2 if cells == [failed] else len(cells)
        messages.append(cells_message(cells, notes, status_line(turn, 8, left), blocks=blocks))
    messages.append(prompts.wrap_up_message())
    check("transcript.txt", "\n\n---\n\n".join(messages))


def test_the_stated_cut_is_the_one_that_the_guest_makes():
    guest = GuestSettings()
    assert guest.head + guest.tail == EngineSettings().output_chars == PromptSpec().output_chars


def test_a_reply_without_code_is_shown_some():
    for names, code in ((["text"], "print(str(text)[:500])"), ([], "SHOW_VARS()")):
        assert [block.code for block in parse(prompts.no_code(names)).blocks] == [code]


def test_bare_python_is_not_said_to_have_what_it_has_not():
    bare = prompts.system_prompt(prompts.PromptSpec(bare_python=True))
    assert "Python in WebAssembly, with its standard library only" in bare
    assert "IPython" not in bare
    assert "threads and `%magics` work" not in bare
