"""The scripted endpoint of the overhead benchmark: a process of its own, so that its CPU is not measured.

It notes when each request was complete and when its reply was about to be written, by the monotonic clock,
which is one for all processes of a machine. ``GET /log`` returns these notes and forgets them.

As a program it prints its base URL and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from .workloads import latency, reply

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["main"]


class _Endpoint:
    def __init__(self) -> None:
        self._notes: list[dict[str, Any]] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web  # noqa: PLC0415  on use

        if request.method == "GET":
            notes, self._notes = self._notes, []
            return web.json_response(notes)
        body = await request.content.read()
        received = time.monotonic()
        asked = json.loads(body)
        note = {"model": asked["model"], "received": received, "replied": 0.0, "bytes": len(body)}
        self._notes.append(note)
        turn = sum(each["role"] == "assistant" for each in asked["messages"])
        text = reply(asked["model"], turn)
        streamed = bool(asked.get("stream"))
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4}
        usage["total_tokens"] = sum(usage.values())
        payload = (_events if streamed else _body)(asked["model"], text, usage)
        if seconds := latency(asked["model"]):
            await asyncio.sleep(max(0.0, received + seconds - time.monotonic()))
        kind = "text/event-stream" if streamed else "application/json"
        response = web.Response(body=payload, content_type=kind)
        await response.prepare(request)
        note["replied"] = time.monotonic()
        await response.write_eof()
        return response


_HEAD = {"id": "chatcmpl-1", "created": 0}


def _body(model: str, text: str, usage: dict[str, int]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    whole = {**_HEAD, "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
    return json.dumps(whole).encode()


def _events(model: str, text: str, usage: dict[str, int]) -> bytes:
    """Return the reply as a stream of words, as endpoints write it."""
    head = {**_HEAD, "object": "chat.completion.chunk", "model": model}
    words = re.findall(r"\s*\S+\s*", text)
    choices: list[dict[str, Any]] = [{"delta": {"content": word}, "finish_reason": None} for word in words]
    choices.append({"delta": {}, "finish_reason": "stop"})
    chunks: list[dict[str, Any]] = [{**head, "choices": [{"index": 0, **each}]} for each in choices]
    chunks.append({**head, "choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in chunks) + b"data: [DONE]\n\n"


async def _serve() -> None:
    from aiohttp import web  # noqa: PLC0415  on use

    runner = web.ServerRunner(web.Server(_Endpoint().handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, shutdown_timeout=0.1).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}/v1\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def main() -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
