"""The references: what a run costs without this package, in as few lines as do the same work.

Both execute code in their own process by ``exec``, which no one should do with a model's code: they are a
lower bound, not an alternative. A asks by raw aiohttp, O by the ``openai`` client as its documentation does.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..prompts import PromptSpec, first_message, system_prompt

__all__ = ["REFERENCES", "Reference"]

SHOWN_CHARS = 20_000
Messages = list[dict[str, str]]


class Reference(ABC):
    """A Recursive Language Model in a few lines; ``ask`` is where the two differ."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url
        self.api_key = api_key

    @abstractmethod
    async def ask(self, model: str, messages: Messages) -> str:
        """Return the text of the model's reply."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    async def complete(self, root: str, sub: str, query: str, context: str, turns: int) -> str:
        """Answer ``query`` over ``context``."""
        loop = asyncio.get_running_loop()
        final: list[Any] = []

        def wait(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        async def batch(prompts: Sequence[str]) -> list[str]:
            return await asyncio.gather(*(self.ask(sub, [_user(each)]) for each in prompts))

        async def children(items: Sequence[tuple[str, str]]) -> list[str]:
            return await asyncio.gather(*(self.complete(sub, sub, *each, turns) for each in items))

        names: dict[str, Any] = {
            "context": context,
            "llm_query": lambda prompt: wait(self.ask(sub, [_user(prompt)])),
            "llm_query_batched": lambda prompts: wait(batch(prompts)),
            "rlm_query_batched": lambda items: wait(children(items)),
            "FINAL": final.append,
        }
        # As long as the real prompts, so that as much is sent.
        system = system_prompt(PromptSpec())
        messages = [{"role": "system", "content": system}, _user(first_message(query, (), context[:500]))]
        for turn in range(turns):
            text = await self.ask(root, messages)
            code = re.findall(r"^```repl\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
            out = io.StringIO()
            names["print"] = partial(print, file=out)
            await asyncio.to_thread(exec, code, names)
            if final:
                return str(final[0])
            shown = out.getvalue()[:SHOWN_CHARS]
            messages.append({"role": "assistant", "content": text})
            messages.append(_user(f"REPL output:\n{shown}\n\nTurn {turn + 2} of {turns}."))
        return ""


class RawAiohttp(Reference):
    """A: the least that a request can cost in Python."""

    _session: Any = None

    async def ask(self, model: str, messages: Messages) -> str:
        import aiohttp  # noqa: PLC0415  on use

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
            self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        body = json.dumps({"model": model, "messages": messages}).encode()
        url = f"{self.base_url}/chat/completions"
        async with self._session.post(url, data=body) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    async def close(self) -> None:
        await self._session.close()


class OpenAIClient(Reference):
    """O: the client that most programs use, in its default settings."""

    _client: Any = None

    async def ask(self, model: str, messages: Messages) -> str:
        import openai  # noqa: PLC0415  on use

        if self._client is None:
            self._client = openai.AsyncOpenAI(base_url=self.base_url, api_key=self.api_key)
        completion = await self._client.chat.completions.create(model=model, messages=messages)
        return str(completion.choices[0].message.content)

    async def close(self) -> None:
        await self._client.close()


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


REFERENCES: dict[str, type[Reference]] = {"A": RawAiohttp, "O": OpenAIClient}
"""The references by the letter that tables name them by."""
