"""A root that gives each region to a child, which adds up by code in a kernel of its own."""

from rlm_kernel.messages import message_text

SHARE = """
found = rlm_query_batched([("How many crates are there?", text) for text in letters.values()])
counts = dict(zip(letters, map(int, found)))
FINAL(f"{counts}, {sum(counts.values())} together")
"""


def turn(request):
    text = message_text(request.messages[1])
    if "each region" in text:
        return f"```repl\n{SHARE.strip()}\n```"
    return "```repl\nFINAL(sum(int(line.split()[0]) for line in context.splitlines()))\n```"


MODELS = {"scripted": turn}


def check(output):
    north, south = sum(range(1, 60)), sum(range(20, 90))
    assert f"{{'north': {north}, 'south': {south}}}, {north + south} together" in output
    assert [line.split()[0] for line in output.splitlines()[-3:-1]] == ["0", "1"]
