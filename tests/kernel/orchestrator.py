"""An orchestrator for the tests that end it from outside: `python orchestrator.py <JSON>`.

It starts kernels, two by default, prints a line of JSON that tells of them, executes the given cell in the
first, prints what it showed, and waits for the end of its input.
"""

import asyncio
import json
import os
import sys

from rlm_kernel.kernels.guard import descendants
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.session import JupyterSession


async def no_calls(call):
    raise AssertionError(call)


async def main(fork, cell, kernels=2, copy=False, cwd=None):
    # Not for kernels, although it could be inherited.
    secret = os.memfd_create("secret")
    os.write(secret, os.environ.get("OPENAI_API_KEY", "").encode())
    os.set_inheritable(secret, True)
    sessions = [JupyterSession(LocalTransport(fork=fork, cwd=cwd)) for _ in range(kernels)]
    try:
        for session in sessions:
            await session.start([])
        facts = {
            "orchestrator": os.getpid(),
            "shell": os.getppid(),
            "kernels": [session._transport._process.pid for session in sessions],
            "folders": [session._transport.folder for session in sessions],
            "tree": descendants(os.getpid()),
            "holds": sessions[0]._transport.holds,
        }
        if copy and os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        print(json.dumps(facts), flush=True)
        cell = f"facts = {facts!r}\n{cell}"
        running = asyncio.create_task(sessions[0].execute(cell, timeout=60, on_call=no_calls))
        result = await running
        print(json.dumps([output.text for output in result.outputs]), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        for session in sessions:
            await session.close()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
