"""A model that adds up by code, and finds its sums again in the second question."""

from rlm_kernel.messages import message_text

SUMS = """
import re
sums = {}
for town, count in re.findall(r"the (\\w+) office sold (\\d+)", report):
    sums[town] = sums.get(town, 0) + int(count)
sums
"""


def turn(request):
    texts = [message_text(each) for each in request.messages]
    number = sum(each["role"] == "assistant" for each in request.messages)
    if "fewest" in texts[1]:
        return "```repl\nFINAL(min(sums, key=sums.get))\n```"
    assert "report" in texts[1]
    return f"```repl\n{SUMS.strip()}\n```" if number == 0 else "```repl\nFINAL(max(sums, key=sums.get))\n```"


MODELS = {"scripted": turn}


def check(output):
    towns = ["Arles", "Bergen", "Cork", "Delft", "Evora"]
    sums = {}
    for n in range(35 * 12):
        town = towns[n * n % 5]
        sums[town] = sums.get(town, 0) + 10 + n * 37 % 90
    most, fewest = max(sums, key=sums.get), min(sums, key=sums.get)
    assert f"\n{most}\n\n(2 calls, " in output
    assert f"('answered', '{most}', 2, " in output
    assert f"fewest: {fewest}\n" in output
    assert "And which sold fewest?" in output
