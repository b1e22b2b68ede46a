"""What a `%rlm` line says, and how it gets past IPython's own rules."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from rlm_kernel.errors import InputError
from rlm_kernel.notebook.options import Asked, Command, mentions, parse_cell, parse_line, usage
from rlm_kernel.notebook.transform import awaited, called, transformer


def transformed(cell, call=called):
    manager = TransformerManager()
    manager.cleanup_transforms.append(transformer(call))
    return manager.transform_cell(cell)


def magics_in(code):
    """The arguments of the magic calls in Python code."""
    return [
        [ast.literal_eval(each) for each in node.args]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
    ]


@pytest.mark.parametrize(
    ("cell", "arguments"),
    [
        ("%rlm what's {this} $x @y?", ["rlm", "what's {this} $x @y?"]),
        ("  %rlm what??", ["rlm", "what??"]),
        ("a = %rlm -q why? # not a comment", ["rlm", "-q why? # not a comment"]),
        ("a, b.c = %rlm why?", ["rlm", "why?"]),
        ("%rlm", ["rlm", ""]),
        ("%rlm one \\\n  two?", ["rlm", "one two?"]),
        ("if x:\n    %rlm why?", ["rlm", "why?"]),
        ("x = '''\n'''\n%rlm why?", ["rlm", "why?"]),
        ("!echo '\n%rlm why?", ["rlm", "why?"]),
        ("x = [1,\n 2]  # it's\n%rlm why?", ["rlm", "why?"]),
        ("s = 'it is \\'so\\''\n%rlm why?", ["rlm", "why?"]),
        ("In [1]: %rlm why?", ["rlm", "why?"]),
        ("%%rlm -c x\nwhy?\n%rlm no magic", ["rlm", "-c x", "why?\n%rlm no magic\n"]),
        ("%%rlm\n'''?", ["rlm", "", "'''?\n"]),
    ],
)
def test_a_line_becomes_a_call(cell, arguments):
    code = transformed(cell)
    assert arguments in magics_in(code.replace("get_ipython().system", "system"))


@pytest.mark.parametrize(
    "cell",
    [
        "x = '''\n%rlm why\n'''",
        'x = f"""\n%rlm why\n"""',
        "x = (5\n%rlm)",
        "x = 5 \\\n%rlm",
        "# %rlm why?",
        "print('%rlm')",
        "%rlmx = 1",
    ],
)
def test_what_is_no_line_of_ours_is_left_alone(cell):
    lines = cell.splitlines(keepends=True)
    assert transformer()(lines) == lines


@pytest.mark.parametrize("cell", ["%rlm?", "%%rlm?", "%rlm??", "?%rlm"])
def test_help_is_ipythons(cell):
    assert "pinfo" in transformed(cell)


def test_line_numbers_stay():
    cell = "%rlm one \\\n two?\nraise ValueError"
    assert ast.parse(transformed(cell)).body[1].lineno == 3


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1))
def test_any_question_comes_through(question):
    question = " ".join(f"is {question}".split())
    if question.endswith("\\"):
        return
    assert magics_in(transformed(f"%rlm {question}")) == [["rlm", question]]
    assert parse_line(f"-- {question}") == Asked(question)


@pytest.mark.parametrize(
    ("cell", "asynchronous"),
    [
        ("%rlm why?", True),
        ("x = %rlm why?", True),
        ("for i in range(3):\n    %rlm why?", True),
        ("%%rlm\nwhy?", True),
        ("%time 1\nif x:\n    %rlm why?", True),
        ("async def f():\n    %rlm why?", True),
        ("def f():\n    %rlm why?", False),
        ("!ls\ndef f():\n    %rlm why?", False),
        ("class A:\n    %rlm why?", False),
    ],
)
def test_a_line_is_awaited_where_that_can_be(cell, asynchronous):
    code = transformed(cell, awaited)
    assert ("await get_ipython().ask_rlm(" in code) == asynchronous
    assert ("run_line_magic('rlm'" in code) != asynchronous
    compile(code, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(
    ("line", "question", "options"),
    [
        ("What changed? -c old -c new", "What changed?", {"context": ("old", "new")}),
        ("-c old What changed? -q", "What changed?", {"context": ("old",), "quiet": True}),
        ("--context=old -m gpt-5 What?", "What?", {"context": ("old",), "model": "gpt-5"}),
        ("-c 'my file.txt' What?", "What?", {"context": ("my file.txt",)}),
        ("What does gcc -c do?", "What does gcc -c do?", {}),
        ("What is -q for?", "What is -q for?", {}),
        ("-- What is -q", "What is -q", {}),
        ("-q -- -q is what", "-q is what", {"quiet": True}),
        ("-5 degrees: cold?", "-5 degrees: cold?", {}),
        ("Is it?   Yes  or no?", "Is it?   Yes  or no?", {}),
        (
            "--budget 0.5 --depth 2 --timeout none x",
            "x",
            {"budget_usd": "0.5", "max_depth": "2", "cell_timeout": "none"},
        ),
        ("cost", None, None),
        ("-- cost of what?", "cost of what?", {}),
    ],
)
def test_lines(line, question, options):
    parsed = parse_line(line)
    if question is None:
        assert parsed == Command("cost", "")
    else:
        assert (parsed.question, dict(parsed.options)) == (question, options)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-c", "-c has no value"),
        ("What? -c", "-c has no value"),
        ("--nosuch x", "no option --nosuch"),
        ("-q=1 x", "takes no value"),
        ("--depth deep x", "a whole number of at least 0"),
        ("x --budget none", "a number of USD above 0"),
        ("-o not-a-name x", "the name of a variable"),
    ],
)
def test_lines_that_make_no_sense(line, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_line(line)
    assert caught.value.hint


def test_a_cell_is_a_question_whatever_it_begins_with():
    parsed = parse_cell("-c a First:", "cost -q what?\n-- and -c b\n")
    assert parsed == Asked("First:\ncost -q what?\n-- and -c b", {"context": ("a",)})


def test_mentions():
    assert mentions("Is @old like (@new), @old? mail me@home.org, @@twice, x.@y, @1") == ("old", "new")


def test_usage_names_everything():
    text = usage()
    for word in ("--budget", "--continue", "%rlm insert", "-c, --context"):
        assert word in text
