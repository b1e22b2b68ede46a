"""`ScriptedServer` as any OpenAI client sees it."""

import asyncio

import aiohttp
import openai
import pytest

from rlm_kernel import errors
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import Fault, ScriptedServer

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}


def serve(script=lambda request: "good day", **options):
    return ScriptedServer({"m": ScriptedModel(script, name="m")}, **options)


async def post(server, body, path="/chat/completions"):
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.base_url + path, json=body) as response,
    ):
        return response.status, await response.json()


async def test_the_openai_client_is_content_with_it():
    async with (
        serve(api_key="sk-canary-1") as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-canary-1") as client,
    ):
        whole = await client.chat.completions.create(**ASK)
        stream = await client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        models = [model.id async for model in client.models.list()]
    assert whole.choices[0].message.content == "good day"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (3, 2, 5)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert pieces == ["good ", "day", None]
    assert chunks[-1].usage == whole.usage
    assert models == ["m"]
    assert (server.usage_by_model["m"].total_tokens, len(server.requests)) == (10, 2)
    assert [each.status for each in server.requests] == [200, 200]


async def test_usage_is_streamed_only_on_request():
    async with (
        serve() as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/chat/completions", json={**ASK, "stream": True}) as response,
    ):
        text = await response.text()
    assert "usage" not in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("body", [[], {}, {"model": "m"}, "text", {"model": ["m"], "messages": []}])
async def test_requests_that_make_no_sense_are_refused(body):
    async with serve() as server:
        status, answer = await post(server, body)
    assert status == 400
    assert answer["error"]["message"]


async def test_errors_of_scripts_become_statuses():
    script = [errors.RateLimitError("slow"), errors.EndpointError("down", status=503), ValueError("a bug")]
    async with serve(script) as server:
        answers = [await post(server, ASK) for _ in range(4)]
    assert [status for status, _ in answers] == [429, 503, 500, 400]
    assert "a bug" in answers[2][1]["error"]["message"]


async def test_the_key_is_checked_for_models_too():
    async with serve(api_key="sk-canary-1") as server, aiohttp.ClientSession() as session:
        async with session.get(f"{server.base_url}/models") as response:
            assert response.status == 401
        assert (await post(server, ASK))[0] == 401


async def test_a_request_that_is_given_up_is_marked():
    gone = asyncio.Event()

    async def hang(request):
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with serve(hang) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await post(server, ASK)
        await gone.wait()
    assert [each.status for each in server.requests] == [499]
    assert server.in_flight == 0


async def test_leaving_does_not_wait_for_what_hangs():
    arrived = asyncio.Event()

    def hang(served):
        arrived.set()
        return Fault("hang")

    async with serve(fault=hang) as server:
        task = asyncio.create_task(post(server, ASK))
        await arrived.wait()
    with pytest.raises(aiohttp.ClientError):
        await task


async def test_options_reach_the_script_as_options():
    model = ScriptedModel(["ok"], name="m")
    body = {**ASK, "temperature": 0, "max_tokens": 5, "top_k": 1, "prompt_cache_key": "k"}
    body["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object"}},
    }
    async with ScriptedServer({"m": model}, record=False) as server:
        await post(server, body)
        assert server.requests == []
    (request,) = model.requests
    assert (request.options.temperature, request.options.max_output_tokens) == (0, 5)
    assert (request.options.extra_body, request.cache_key) == ({"top_k": 1}, "k")
    assert request.schema == {"type": "object"}
