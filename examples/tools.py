"""Functions of your own in the REPL: here a price list in a database that model-written code can't open.

The model and its endpoint come from the environment: RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

import asyncio
import sqlite3
from typing import Literal

from rlm_kernel import RLM, Budget, Tool

ORDERS = """\
order 1: 3 x oak shelf, to Lyon
order 2: 1 x desk lamp, to Oslo
order 3: 2 x oak shelf and 2 x desk lamp, to Lyon
order 4: 1 x garden gnome, to Oslo
"""

stock = sqlite3.connect(":memory:", check_same_thread=False)
stock.execute("CREATE TABLE prices (item TEXT PRIMARY KEY, euros REAL)")
stock.executemany("INSERT INTO prices VALUES (?, ?)", [("oak shelf", 40.0), ("desk lamp", 25.5)])


def price_of(item: str) -> float:
    """Return the price of one ``item`` in euros. Raises KeyError for what is not in stock."""
    row = stock.execute("SELECT euros FROM prices WHERE item = ?", [item]).fetchone()
    if row is None:
        raise KeyError(f"{item} is not in stock")
    return row[0]


async def freight(parcels: int, *, to: Literal["Lyon", "Oslo"]) -> dict[str, float]:
    await asyncio.sleep(0)  # a request to a carrier, say
    return {"euros": parcels * (5.0 if to == "Lyon" else 12.0)}


tools = {
    "price_of": price_of,
    "freight": Tool(freight, description="What sending so many parcels costs.", children=True),
}

with RLM(tools=tools, budget=Budget(tool_calls=100)) as rlm:
    answer = rlm.completion("What do all orders that can be filled cost, freight included?", ORDERS)

print(answer.status, answer)
