"""A model that keeps what it parsed, and uses it for the later questions."""

from rlm_kernel.messages import message_text

PARSE = """\
import re
rows = [re.match(r"(\\S+) (pump \\d) (\\w+)(?:: (.+))?", line).groups() for line in context.splitlines()]
bad = [row for row in rows if row[3] == "pressure"]
bad
"""
TUESDAY = """\
new = {line.split(" ", 1)[1][:6] for line in context.splitlines() if line.endswith("pressure")}
old = {row[1] for row in bad}
assert len(context_0) > len(context) and len(history) == 2
new, old
"""
ANSWERS = {
    "How often": (PARSE, "FINAL(len(bad))"),
    "Which pump": ("set(row[1] for row in bad), history[-1]['value']", "FINAL(bad[0][1])"),
    "Is it the same": (TUESDAY, "FINAL('yes' if new == old else 'no')"),
}


def turn(request):
    first = message_text(request.messages[1])
    question = first.rpartition("Question: ")[2]
    code = next(code for words, code in ANSWERS.items() if question.startswith(words))
    assert ("still there: " in first) == (not question.startswith("How often"))
    number = sum(each["role"] == "assistant" for each in request.messages)
    return f"```repl\n{code[number]}\n```"


MODELS = {"scripted": turn}


def check(output):
    assert output == (
        "2\npump 1\nyes\n"
        "How often did a pump stop because of the pressure? answered\n"
        "Which pump was that? answered\n"
        "Is it the same pump on the day after? answered\n"
    )
