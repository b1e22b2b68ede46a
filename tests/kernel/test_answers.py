"""How an answer leaves a cell."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "code, text, value, via",
    [
        ("FINAL('four')", "four", "four", "FINAL"),
        ("FINAL({'a': [1, 2]})", "{'a': [1, 2]}", {"a": [1, 2]}, "FINAL"),
        ("FINAL(object)", "<class 'object'>", None, "FINAL"),
        ("n = 3\nFINAL_VAR('n')", "3", 3, "FINAL_VAR"),
        ("n = [1, 2]\nFINAL_VAR(n)", "[1, 2]", [1, 2], "FINAL_VAR"),
        ("n = 'some words'\nFINAL_VAR(n)", "some words", "some words", "FINAL_VAR"),
        ("answer['content'] = 5\nanswer['ready'] = True", "5", 5, "answer"),
        ("answer['ready'] = True\nanswer['content'] = 'late'", "late", "late", "answer"),
        ("answer.update(content='u', ready=True)", "u", "u", "answer"),
        ("answer = {'content': 'rebound', 'ready': True}", "rebound", "rebound", "answer"),
        ("FINAL('first')\nFINAL('last')", "last", "last", "FINAL"),
        ("def f():\n    FINAL('nested')\nf()", "nested", "nested", "FINAL"),
    ],
)
async def test_forms_of_an_answer(repl, code, text, value, via):
    final = (await repl.run(code)).final
    assert (final.text, final.value, final.via) == (text, value, via)


async def test_an_answer_before_an_exception_counts(repl):
    result = await repl.run("answer['content'] = 'x'\nanswer['ready'] = True\n1/0")
    assert (result.status, result.final.text) == ("error", "x")


async def test_an_answer_belongs_to_its_cell(repl):
    assert (await repl.run("FINAL('x')")).final
    assert (await repl.run("1")).final is None
    assert (await repl.run("answer.update(content='y', ready=True)")).final
    assert (await repl.run("1")).final is None


async def test_a_draft_is_reported(repl):
    result = await repl.run("answer['content'] = 'so far'")
    assert (result.final, result.draft) == (None, "so far")


async def test_an_undefined_variable_is_an_error_that_names_the_others(repl):
    result = await repl.run("found = 1\nFINAL_VAR('fuond')")
    assert result.final is None
    assert result.outputs[-1].value == "FINAL_VAR: no variable 'fuond'; your variables: found"


async def test_ready_without_content_is_no_answer(repl):
    assert (await repl.run("answer['ready'] = True")).final is None


async def test_an_enormous_answer_is_refused_in_the_cell(repl):
    result = await repl.run("FINAL('x' * 9_000_000)")
    assert result.final is None
    assert "shorten it" in result.outputs[-1].value
