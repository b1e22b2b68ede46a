"""A scripted endpoint in a thread of its own, for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

from rlm_kernel.messages import message_text
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

KEY = "sk-canary-compat-0123456789"


@contextmanager
def served(scripts, prices=None):
    """Serve ``scripts`` by name of the model; yield the server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    models = {name: ScriptedModel(script, name=name, prices=prices) for name, script in scripts.items()}
    server = ScriptedServer(models)
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def turns(*codes):
    """A root model that runs ``codes``, one a turn; it is told from others by its conversation."""

    def script(request):
        number = sum(each["role"] == "assistant" for each in request.messages)
        return f"```repl\n{codes[min(number, len(codes) - 1)]}\n```"

    return script


def texts(served_request):
    """The texts of a request's messages."""
    return [message_text(each) for each in served_request.body["messages"]]
