"""Replies that begin with code and open no fence."""

import pytest

from rlm_kernel.dialect import parse

PROGRAM = "import re\nn = len(context)\nprint(n)"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (PROGRAM, PROGRAM),
        (f"{PROGRAM}\n```", PROGRAM),
        (f"\n\n{PROGRAM}\n\n```\n\nThat counts.", PROGRAM),
        (f"<think>Let me count.</think>\n{PROGRAM}\n```", PROGRAM),
        ("print(len(context))", "print(len(context))"),
        ("n = 3\nFINAL(n)", "n = 3\nFINAL(n)"),
        ("await allm_query('a')", "await allm_query('a')"),
        ("for x in context:\n    print(x)", "for x in context:\n    print(x)"),
    ],
)
def test_a_program_is_code(reply, code):
    parsed = parse(reply)
    assert [block.code for block in parsed.blocks] == [code]
    assert parsed.final is None
    assert parsed.invented_at is None


def test_output_that_the_reply_makes_up_is_not_read():
    reply = f"{PROGRAM}\n```\n\nOutput:\n\n```\n42\n```\n\nFINAL(42)"
    parsed = parse(reply)
    assert [block.code for block in parsed.blocks] == [PROGRAM]
    assert reply[parsed.invented_at :].startswith("Output:")
    assert parsed.final is None


def test_the_end_of_a_reply_that_was_cut_is_not_closed():
    assert not parse(PROGRAM).blocks[0].closed
    assert parse(f"{PROGRAM}\n```").blocks[0].closed


def test_the_reply_is_kept_as_prose_for_a_best_effort():
    assert parse("x = 5").prose == "x = 5"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "42",
        "None",
        "yes or no",
        "The answer is 42.",
        "FINAL(42)",
        'FINAL_VAR("n")',
        '"""A text."""',
        "x == 5",
        "Let me look:\nimport re\nprint(1)",
        "import re from the library",
        "(" * 5000,
        "x = 1\x00",
        "x = " + "9" * 30_000,
    ],
)
def test_what_is_no_program_is_not_run(reply):
    assert parse(reply).blocks == ()


def test_a_tagged_fence_is_the_code():
    assert [block.code for block in parse("x = 1\n```repl\ny = 2\n```").blocks] == ["y = 2"]


def test_a_warning_of_the_compiler_is_nobodys_business():
    assert parse('print(1 is 1, "\\d")').blocks
