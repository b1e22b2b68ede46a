"""A model that never comes to an end: it asks a sub-model about line after line."""

import asyncio

ASK = """
seen = globals().get("seen", 0) + 1
print(llm_query(f"Describe line {seen}: " + text.splitlines()[seen]))
"""


async def turn(request):
    if request.messages[0]["role"] != "system":
        return "A line."
    # Slow enough to be stopped.
    await asyncio.sleep(0.2)
    return f"```repl\n{ASK.strip()}\n```"


MODELS = {"scripted": turn}


def check(output):
    assert "over_budget 3\n" in output
    assert "cancelled False\n" in output
