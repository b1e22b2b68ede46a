"""Programs as a user would write them, for what they cost from nothing: start, imports, first request.

Each prints when its first line ran, by the monotonic clock. The command line is ``<base URL>``.
"""

from __future__ import annotations

__all__ = ["COLD", "IMPORTS"]

_HEAD = "import time; begun = time.monotonic()\nimport sys\n"

_A = """\
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        body = {"model": "one", "messages": [{"role": "user", "content": "How long is it?"}]}
        async with session.post(sys.argv[1] + "/chat/completions", json=body) as response:
            await response.json()
asyncio.run(main())
"""

_O = """\
import asyncio, openai
async def main():
    async with openai.AsyncOpenAI(base_url=sys.argv[1], api_key="sk-canary-bench") as client:
        await client.chat.completions.create(
            model="one", messages=[{"role": "user", "content": "How long is it?"}]
        )
asyncio.run(main())
"""

_OURS = """\
from rlm_kernel import RLM
with RLM(model="one", base_url=sys.argv[1], api_key="sk-canary-bench") as rlm:
    answer = rlm.completion("How long is it?", "x" * 1000)
assert answer.text == "1000", answer
"""

COLD = {name: f"{_HEAD}{code}print(begun)\n" for name, code in (("A", _A), ("O", _O), ("ours", _OURS))}
"""Programs that ask for one reply, by contender."""

IMPORTS = {
    name: f"import time; begun = time.perf_counter()\n{code}\n"
    "print(time.perf_counter() - begun)\nimport sys; print(*sys.modules)\n"
    for name, code in (
        ("package", "import rlm_kernel"),
        ("facade", "from rlm_kernel import RLM"),
    )
}
"""Programs that import, then print the seconds it took and what is loaded."""
