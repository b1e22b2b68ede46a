"""Models asked by a real fetch, from Python in WebAssembly: the same replies, retries and failures."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from pathlib import Path

import pytest
from wasm import needs_deno

import rlm_kernel
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import Fault, ScriptedServer

pytestmark = needs_deno

KEY = "sk-canary-fetched-0123456789"
PROGRAM = """
import asyncio, json
from rlm_kernel.models.base import Reply, Request
from rlm_kernel.models.openai import OpenAIModel
from rlm_kernel.models.retry import Backoff

quick = Backoff(base=0.0)
request = Request([{"role": "user", "content": "Grüße, 世界"}], timeout=60)

def model(name="echo", **given):
    return OpenAIModel(name, **{"base_url": URL, "api_key": KEY, "backoff": quick, **given})

async def told(work):
    try:
        return await work
    except Exception as error:
        return f"{type(error).__name__}: {error}"

async def streamed(model):
    pieces, reply = [], None
    async for each in model.stream(request):
        if isinstance(each, Reply):
            reply = each
        else:
            pieces.append(each)
    return [len(pieces) > 1, reply.text, reply.attempts, reply.usage.total_tokens > 0]

async def main():
    found = {}
    reply = await model().reply(request)
    found["reply"] = [reply.text, reply.attempts]
    found["stream"] = await streamed(model("limited"))
    found["cut"] = await streamed(model("cut"))
    found["key"] = await told(model(api_key=KEY + "-wrong").reply(request))
    found["name"] = await told(model("none").reply(request))
    found["slow"] = await told(model("hang", timeout=0.5, max_retries=0).reply(request))
    found["slow stream"] = await told(streamed(model("hang", timeout=0.5, max_retries=0)))
    found["garbage"] = await told(model("garbage", max_retries=0).reply(request))
    found["moved"] = await told(model("moved", max_retries=0).reply(request))
    found["nobody"] = await told(model(base_url="http://127.0.0.1:9/v1", max_retries=0).reply(request))
    print("FOUND " + json.dumps(found))

await main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    path = tmp_path_factory.mktemp("fetched") / "rlm_kernel-0-py3-none-any.whl"
    package = Path(rlm_kernel.__file__).parent
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(package.rglob("*.py")):
            archive.write(file, file.relative_to(package.parent))
    return path


def _fault(seen):
    def wrong(served):
        number = seen[served.model] = seen.get(served.model, 0) + 1
        kinds = {
            "limited": Fault("status", 429, {"retry-after": "0"}) if number == 1 else None,
            "cut": Fault("cut") if number == 1 else None,
            "hang": Fault("hang"),
            "garbage": Fault("garbage"),
            "moved": Fault("status", 307, {"location": "/v1/elsewhere"}),
        }
        return kinds.get(served.model)

    return wrong


async def test_models_are_asked_as_over_aiohttp(wheel, tmp_path):
    from rlm_kernel.repl.pyodide import runtime

    names = ("echo", "limited", "cut", "hang", "garbage", "moved")
    models = {
        name: ScriptedModel(lambda request: f"You said: {request.messages[-1]['content']}", name=name)
        for name in names
    }
    folder = runtime.ensure().folder
    program = tmp_path / "program.py"
    async with ScriptedServer(models, api_key=KEY, fault=_fault({}), origin="*") as server:
        program.write_text(f"URL, KEY = {server.base_url!r}, {KEY!r}\n{PROGRAM}", "utf-8")
        process = await asyncio.create_subprocess_exec(
            *(runtime.deno_command(), "run", "--no-prompt", "--no-remote", "--no-config"),
            *(f"--allow-read={folder},{wheel},{program}", "--allow-net=127.0.0.1", "--allow-env"),
            *(Path(__file__).with_name("fetching.mjs"), folder, wheel, program),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "NO_COLOR": "1"},
        )
        said = (await process.communicate())[0].decode()
    line = next((line for line in said.splitlines() if line.startswith("FOUND ")), None)
    assert line is not None, said
    found = json.loads(line.removeprefix("FOUND "))
    text = "You said: Grüße, 世界"
    assert found["reply"] == [text, 1]
    assert found["stream"] == [True, text, 2, True]
    assert found["cut"] == [True, text, 2, True]
    assert found["key"].startswith("AuthError")
    assert found["name"].startswith("ModelNotFoundError")
    assert found["slow"].startswith("ModelTimeoutError")
    assert found["slow stream"].startswith("ModelTimeoutError")
    assert found["garbage"].startswith("MalformedReplyError")
    assert found["moved"].startswith("RequestRefusedError"), "a key goes to nobody else"
    assert found["nobody"].startswith("UnreachableError")
    assert KEY not in said
    assert KEY in str(server.requests[0].headers["authorization"])
    assert not any("cookie" in request.headers for request in server.requests)
