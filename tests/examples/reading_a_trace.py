"""A model that looks, then finds the number by code."""

FIND = """
squares = [tuple(map(int, line.split(": "))) for line in text.splitlines()]
FINAL(max(n for n, square in squares if square < 1000))
"""


def turn(request):
    number = sum(each["role"] == "assistant" for each in request.messages)
    return "```repl\ntext[:20]\n```" if number == 0 else f"```repl\n{FIND.strip()}\n```"


MODELS = {"scripted": turn}


def check(output):
    assert "\n31\n\n(" in f"\n{output}"
    assert "cell ok [" in output
    assert "0: 0" in output
    assert "tokens in," in output
    assert "['system', 'user', 'assistant', 'user', 'assistant'" in output
    assert "squares.ipynb" in output
