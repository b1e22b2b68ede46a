"""A model that reads the orders, asks for prices and freight, and learns from an error what is missing."""

import re

from rlm_kernel.messages import message_text

LOOK = """
import re
lines = context.splitlines()
orders = [(re.findall(r"(\\d+) x (\\w+ \\w+)", line), line.rsplit(" ", 1)[1]) for line in lines]
orders
"""

PRICES = """
prices = {item: price_of(item) for item in sorted({item for parts, to in orders for n, item in parts})}
"""

WITHOUT = """
prices = {}
for item in sorted({item for parts, to in orders for n, item in parts}):
    try:
        prices[item] = price_of(item=item)
    except CallFailed as error:
        print(error)
possible = [(parts, to) for parts, to in orders if all(item in prices for n, item in parts)]
sent = await asyncio.gather(*(afreight(sum(int(n) for n, item in parts), to=to) for parts, to in possible))
goods = sum(int(n) * prices[item] for parts, to in possible for n, item in parts)
total = goods + sum(each["euros"] for each in sent)
total
"""


def turn(request):
    texts = [message_text(each) for each in request.messages]
    assert "`price_of(item: str) -> float`: Return the price of one ``item`` in euros." in texts[0]
    assert "`freight(parcels: int, *, to: Literal['Lyon', 'Oslo']) -> dict[str, float]`: What" in texts[0]
    number = sum(each["role"] == "assistant" for each in request.messages)
    if number == 2:
        assert "garden gnome is not in stock" in texts[-1]
    code = (LOOK, PRICES, "import asyncio" + WITHOUT)
    if number < len(code):
        return f"```repl\n{code[number].strip()}\n```"
    total = re.search(r"^(\d+\.\d+)$", texts[-1], re.MULTILINE)[1]
    return f"FINAL({total} euros)"


MODELS = {"scripted": turn}


def check(output):
    # 5 shelves, 3 lamps; 3 + 4 parcels to Lyon, 1 to Oslo.
    assert output == f"answered {5 * 40 + 3 * 25.5 + 7 * 5 + 12} euros\n"
