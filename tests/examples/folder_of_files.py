"""A model that counts lines in the files of a dict, and of two texts."""

from rlm_kernel.messages import message_text

MOST = """
counts = {path: sum(line.startswith("TODO") for line in text.splitlines()) for path, text in notes.items()}
FINAL(max(counts, key=counts.get))
"""


def turn(request):
    text = message_text(request.messages[1])
    if "begin with TODO" in text:
        return f"```repl\n{MOST.strip()}\n```"
    return "```repl\nFINAL(len(mon.splitlines()) - len(wed.splitlines()))\n```"


MODELS = {"scripted": turn}


def check(output):
    assert "week1/monday.txt\n\n(1 call, " in output
    assert "\n2\n\n(1 call, " in output
    assert "notes" in output
    assert "3 items" in output
