"""The themes of a document of 200,000 tokens, which no prompt here ever holds as a whole.

The document is made up: letters to the council of a town, each about one of a few themes, some far more
common than others. The root model sees its size and how it begins; it cuts it into pieces, lets sub-models
read all of them at once, and puts their findings together with code.

The model and its endpoint come from the environment: RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

import random

from rlm_kernel import RLM

TOKENS = 200_000
THEMES = {
    "the ferry": (
        "the ferry left without us again",
        "a day ticket for the ferry costs more than lunch",
        "in fog nobody tells us whether the ferry goes",
    ),
    "noise at night": (
        "the bottles are collected at four in the morning",
        "the bar below us closes when the birds begin",
        "the new bells strike every quarter of an hour",
    ),
    "the library": (
        "the reading room is cold from October on",
        "children wait weeks for the second volume",
        "the evening hours were cut without a word",
    ),
    "the trees on the quay": (
        "the lime trees on the quay are not to be felled",
        "the lime trees have been there since my grandmother",
    ),
}
FILLING = (
    "I have lived here for thirty years.",
    "My neighbour says the same.",
    "I wrote about this before, and nobody answered.",
    "I know that money is short.",
    "Please tell me what you intend to do.",
    "The weather has been kind to us this year.",
)


def letters(chars: int) -> str:
    """Return letters of so many characters in all, always the same ones."""
    chance = random.Random(7)  # noqa: S311
    written, size = [], 0
    while size < chars:
        theme = chance.choices(list(THEMES), weights=[8, 4, 2, 1])[0]
        sentences = [f"This is about how {chance.choice(THEMES[theme])}.", *chance.choices(FILLING, k=9)]
        letter = f"Letter {len(written) + 1}\nDear council,\n{' '.join(sentences)}\nYours sincerely\n"
        written.append(letter)
        size += len(letter) + 1
    return "\n".join(written)


with RLM() as rlm:
    answer = rlm.completion(
        "What are the themes of these letters? Name them with the number of letters about each, the most "
        "common first.",
        letters(TOKENS * 4),
    )

print(answer)
print(f"{answer.status}, {answer.total_calls} calls, {answer.usage.total_tokens:,} tokens")
