"""A model that lets a sub-model judge the reviews, piece by piece, and counts what it says."""

import re

from rlm_kernel.messages import message_text

JUDGE = """
lines = context.splitlines()
pieces = ["\\n".join(lines[start : start + 100]) for start in range(0, len(lines), 100)]
ask = "Which reviews complain of the soup? Numbers only.\\n"
replies = llm_query_batched([ask + piece for piece in pieces])
found = [number for reply in replies for number in reply.split()]
print(len(lines), len(found))
"""

ANSWER = """
answer["content"] = f"{as_percent(len(found), len(lines))} complain"
answer["ready"] = True
"""


def turn(request):
    texts = [message_text(each) for each in request.messages]
    if len(texts) == 1:
        return " ".join(re.findall(r"review (\d+): the soup was cold", texts[0]))
    assert "A share in percent." in texts[0]
    code = ANSWER if "500 71" in texts[-1] else JUDGE
    return f"```repl\n{code.strip()}\n```"


MODELS = {"scripted": turn}


def check(output):
    assert (
        output == "14.2 % complain\nscripted: 7 calls, sub-calls included\n3 lines for the viewer of rlms\n"
    )
