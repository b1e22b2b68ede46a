"""How an answer leaves a cell."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("code", "text", "value", "via"),
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


async def test_an_answer_that_is_a_table_or_an_array_counts(repl):
    pytest.importorskip("pandas")
    result = await repl.run("import pandas\nanswer.update(content=pandas.DataFrame({'a': [1]}), ready=True)")
    assert result.final.text.split() == ["a", "0", "1"]
    result = await repl.run("import numpy\nanswer['content'] = numpy.arange(3)")
    assert (result.final, result.draft) == (None, "[0 1 2]")


async def test_an_enormous_answer_of_a_variable_is_refused_in_words(repl):
    result = await repl.run("answer.update(content='x' * 9_000_000, ready=True)")
    assert result.final is None
    assert "answer refused: the answer has 9,000,002 characters" in result.outputs[-1].text


@pytest.mark.parametrize("ready", ["True", "False"])
async def test_an_answer_whose_text_fails_is_no_answer(repl, ready):
    result = await repl.run(
        "class Odd:\n    def __str__(self):\n        raise RuntimeError('odd on purpose')\n"
        f"answer.update(content=Odd(), ready={ready})"
    )
    assert (result.status, result.final) == ("ok", None)
    assert "odd on purpose" in result.outputs[-1].text


async def test_an_interrupt_after_the_code_does_not_lose_the_answer(repl):
    result = await repl.run(
        "import signal\nclass Slow:\n"
        "    def __str__(self):\n        signal.raise_signal(signal.SIGINT)\n        return 'slow'\n"
        "answer.update(content=Slow(), ready=True)"
    )
    assert (result.status, result.final.text) == ("ok", "slow")
    assert (await repl.run("1")).status == "ok"


async def test_a_thread_of_an_earlier_cell_gives_no_answer(repl):
    await repl.run(
        "import threading\ngo, out = threading.Event(), []\n"
        "def later():\n    go.wait()\n    try: FINAL('late')\n    except Exception as e: out.append(e)\n"
        "thread = threading.Thread(target=later); thread.start()"
    )
    result = await repl.run("go.set(); thread.join(); out[0].kind")
    assert (result.final, result.outputs[-1].text) == (None, "'cancelled'")
