"""A model that counts for the first orchestrator, and goes on with the list it made for the second."""

from importlib.util import find_spec

from rlm_kernel.messages import message_text

COUNT = 'failed = [line.split()[2] for line in context.splitlines() if line.endswith("failed")]\nlen(failed)'
MOST = """\
from collections import Counter
assert len(context.splitlines()) == 1000 and history[0]["value"] == len(failed)
most = Counter(failed).most_common(1)[0]
most
"""


def turn(request):
    first = message_text(request.messages[1])
    second = "Which pump" in first.rpartition("Question: ")[2]
    # The second orchestrator has given no context, and made no `failed`.
    assert ("still there: failed" in first) == second
    number = sum(each["role"] == "assistant" for each in request.messages)
    code = (MOST, "FINAL(f'pump {most[0]}')") if second else (COUNT, "FINAL(len(failed))")
    return f"```repl\n{code[number]}\n```"


MODELS = {"scripted": turn}


def missing():
    return "" if find_spec("kernel_gateway") else "jupyter-kernel-gateway is not installed"


def check(output):
    assert "first:  143\n" in output
    assert "second: pump 0\n" in output
    assert "How often did a pump fail? 143\nWhich pump failed most often? pump 0\n" in output
