"""Two models: one counts by code, the other asks a sub-model for each half, which counts."""

from rlm_kernel.messages import message_text

HALVES = """
lines = text.splitlines()
halves = ["\\n".join(lines[:500]), "\\n".join(lines[500:])]
counts = llm_query_batched(["How many lines say even? Only the number.\\n" + half for half in halves])
FINAL(sum(map(int, counts)))
"""


def large(request):
    return "```repl\nFINAL(text.count('even'))\n```"


def small(request):
    if request.messages[0]["role"] != "system":
        return str(message_text(request.messages[-1]).count(": even"))
    return f"```repl\n{HALVES.strip()}\n```"


MODELS = {"gpt-5": large, "gpt-5-mini": small}


def check(output):
    assert "gpt-5 answered 500 1 1\n" in output
    assert "gpt-5-mini answered 500 1 3\n" in output
