"""Quotes written as text, as small models write them."""

import asyncio

import pytest

from rlm_kernel import dialect
from rlm_kernel.context import Context
from rlm_kernel.repl.base import FinalAnswer
from rlm_kernel.runs.citing import Citing, TextQuotes, read_quotes


@pytest.mark.parametrize(
    ("reply", "argument", "texts"),
    [
        ('FINAL(red)\nQUOTES:\n- "the gate is red" (a.pdf, page 2)\n- the gate\'s "red" door', "red", 2),
        ('FINAL(red)\n\n**Quotes:**\n\n1. "one of them"\n2. `another one`\nThat is all.', "red", 2),
        ('FINAL(red)\nQuote: "the gate is red"', "red", 1),
        ("QUOTES:\n> the gate is red\n\nFINAL(red)", "red", 1),
        ('FINAL("red", quotes=["the gate is red", \'it\\\'s red\'])', "red", 2),
        ('FINAL(red (dark), quotes=["(the) gate"])', "red (dark)", 1),
        ('FINAL(it is "red", quotes = "the gate")', 'it is "red"', 1),
        ('FINAL(red\nQUOTES:\n- "the gate is red")', "red", 1),
        ("FINAL(red)", "red", 0),
        ("FINAL(quotes: none)", "quotes: none", 0),
        ('FINAL_VAR(report, quotes=["the gate is red [1]", "x"])', "report", 2),
        ("FINAL_VAR(report)\nQUOTES:\n\u2022 \u201cthe gate is red\u201d", "report", 1),
    ],
)
def test_quotes_as_text(reply, argument, texts):
    final, quotes = read_quotes(dialect.parse(reply).final, reply)
    assert final.argument == argument
    assert len(quotes.texts) == texts
    assert not any(text.startswith(('"', "`", "\u201c")) for text in quotes.texts)


def test_quotes_are_taken_letter_by_letter():
    reply = 'FINAL("a", quotes=["tab\\there, \\u00e9 and \\"this\\" \\\\ done"])'
    assert read_quotes(dialect.parse(reply).final, reply)[1] == TextQuotes(
        ('tab\there, é and "this" \\ done',)
    )


@pytest.mark.parametrize("reply", ["FINAL(red, quotes=found)", "FINAL_VAR(red, quotes=found)"])
def test_quotes_in_a_variable(reply):
    final, quotes = read_quotes(dialect.parse(reply).final, reply)
    assert (final.argument, quotes) == ("red", TextQuotes(variable="found"))


def test_a_long_reply_is_read_quickly():
    reply = "FINAL_VAR(x, quotes=[" * 3000 + "QUOTES:\n" * 3000
    assert dialect.parse(reply).final is None
    reply = "FINAL(" + ", quotes=[" * 20_000 + ")"
    final = dialect.parse(reply).final
    assert read_quotes(final, reply)[1].texts == ()


def citing(**options):
    told = []
    return Citing(
        [Context.of("context", "the gate is red")], notice=told.append, **{"wanted": True, **options}
    ), told


def test_an_answer_without_quotes_is_sent_back_once():
    judge, _ = citing()
    bare, notes = FinalAnswer("red", "red", "FINAL"), []
    assert judge.take(bare, notes) is None
    assert (judge.extra_turns, len(notes)) == (1, 1)
    assert judge.take(bare, notes) == bare
    assert (judge.extra_turns, len(notes)) == (1, 1)


def test_an_answer_that_was_sent_back_is_not_lost():
    judge, told = citing()
    bare = FinalAnswer("red", "red", "FINAL")
    assert judge.held(None, "exhausted", "") == (None, "exhausted", "")
    judge.take(bare, [])
    assert judge.held(None, "exhausted", "no turns") == (bare, "answered", "")
    assert judge.held(None, "over_budget", "all spent") == (bare, "answered", "")
    assert "all spent" in told[-1]
    assert judge.held(None, "cancelled", "stopped") == (None, "cancelled", "stopped")


def test_nothing_is_asked_where_nothing_is_wanted():
    for judge, _ in (citing(wanted=False), (Citing([], wanted=True, notice=print), None)):
        bare = FinalAnswer("red", "red", "FINAL")
        assert judge.take(bare, []) == bare
    judge, told = citing(wanted=False)
    asyncio.run(judge.check(FinalAnswer("red", "red", "FINAL", ("the gate is red",))))
    assert (judge.evidence, told) == ((), [])
