"""Models against a real HTTP server: reply and stream, chat and Responses, hold the same everywhere."""

import asyncio
import contextlib
import gc
import logging
import threading
import traceback

import openai
import pytest

from rlm_kernel import errors
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.base import Model, ModelOptions, Reply, Request
from rlm_kernel.models.openai import OpenAIModel
from rlm_kernel.models.prices import Price
from rlm_kernel.models.responses import ResponsesModel
from rlm_kernel.models.retry import Backoff
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import Fault, ScriptedServer
from rlm_kernel.models.wire import connected
from rlm_kernel.usage import Usage

KEY = "sk-canary-0123456789abcdef"
ASK = Request([{"role": "user", "content": "hello " * 10}])


async def by_reply(model, request):
    return await model.reply(request)


async def by_stream(model, request):
    """Return the reply of a stream, having checked that it is the last piece and the only one."""
    *pieces, last = [piece async for piece in model.stream(request)]
    assert isinstance(last, Reply)
    assert all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces).endswith(last.text)
    return last


OWN = pytest.mark.parametrize("way", ["chat", "responses"], indirect=True)
BOTH = pytest.mark.parametrize("ask", [by_reply, by_stream])


class Waits:
    """A clock that never waits, and remembers how long it should have."""

    def __init__(self):
        self.seconds = []

    async def sleep(self, seconds):
        self.seconds.append(seconds)

    def backoff(self, random=0.0):
        return Backoff(sleep=self.sleep, random=lambda: random)


def serve(*faults, script=lambda request: "Good morning to you", **options):
    """Return a server whose first requests meet ``faults``; None is no fault."""
    left = list(faults)
    model = ScriptedModel(script, name="m")
    return ScriptedServer({"m": model}, fault=lambda _: left.pop(0) if left else None, **options)


@pytest.fixture(params=["chat", "responses", "chat by client"])
def way(request):
    """Return in which format models ask, and whether through a client of the caller's."""
    return request.param


@pytest.fixture
def model_class(way):
    """Return the class of the model under test."""
    return ResponsesModel if way == "responses" else OpenAIModel


@pytest.fixture
async def model_at(model_class, way):
    """Return what makes a model that asks a server, in either format, by itself or through a client."""
    clients = []

    def make(server, waits=None, **options):
        options = {"api_key": KEY, "backoff": (waits or Waits()).backoff(), **options}
        place = {"base_url": server.base_url, "api_key": options.pop("api_key")}
        headers = options.pop("default_headers", {})
        if "client" not in way:
            return model_class("m", **place, default_headers=headers, **options)
        headers = {"User-Agent": "rlm-kernel/test", **headers}
        client = openai.AsyncOpenAI(**place, default_headers=headers)
        clients.append(client)
        return model_class("m", client=client, **options)

    yield make
    for client in clients:
        await client.close()


async def failure(ask, model, request=ASK):
    with pytest.raises(errors.RLMError) as caught:
        await ask(model, request)
    return caught.value


def test_is_a_model(model_class):
    assert isinstance(model_class("m", base_url="http://127.0.0.1:1/v1"), Model)


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
STREAM_FIELDS = {
    OpenAIModel: {"stream": True, "stream_options": {"include_usage": True}},
    ResponsesModel: {"stream": True, "include": ["reasoning.encrypted_content"]},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
WORDS = {
    OpenAIModel: {
        "messages": [
            {"role": "system", "content": "Be brief. " * 300},
            {"role": "user", "content": [{"type": "text", "text": "What is this? ? ä"}, IMAGE]},
        ],
        "max_tokens": 9,
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": False},
        },
    },
    ResponsesModel: {
        "input": [
            {"type": "message", "role": "system", "content": "Be brief. " * 300},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this? ? ä"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                ],
            },
        ],
        "store": False,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": False}},
    },
}


async def test_both_paths_send_and_return_the_same(model_at, model_class):
    options = ModelOptions(
        temperature=0.5, max_output_tokens=9, reasoning_effort="low", extra_body={"top_k": 3}
    )
    request = Request(
        [
            {"role": "system", "content": "Be brief. " * 300},
            {"role": "user", "content": [{"type": "text", "text": "What is this? \ud800 ä"}, IMAGE]},
        ],
        options,
        SCHEMA,
        cache_key="run-1",
    )
    async with serve(api_key=KEY) as server:
        model = model_at(server, prices={"m": Price(1, 2)}, default_headers={"X-Team": "blue"})
        first, second = await by_reply(model, request), await by_stream(model, request)
    one, two = server.requests
    assert first.text == second.text == "Good morning to you"
    assert first.usage.input_tokens == second.usage.input_tokens > 700
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 512)
    assert first.usage + second.usage == Usage(
        **{
            name: getattr(server.usage_by_model["m"], name)
            for name in ("input_tokens", "output_tokens", "cached_tokens")
        },
        cost_usd=first.usage.cost_usd + second.usage.cost_usd,
    )
    for name in ("authorization", "content-type", "accept", "user-agent", "x-team", "host"):
        assert one.headers[name] == two.headers[name]
    assert one.headers["authorization"] == f"Bearer {KEY}"
    assert one.headers["user-agent"].startswith("rlm-kernel/")
    assert {**one.body, **STREAM_FIELDS[model_class]} == two.body
    assert one.body.items() >= WORDS[model_class].items()
    assert (one.body["temperature"], one.body["top_k"]) == (0.5, 3)
    assert "prompt_cache_key" not in one.body


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind", "status", "attempts"),
    [
        (Fault("status", 400), errors.RequestRefusedError, 400, 1),
        (Fault("status", 401), errors.AuthError, 401, 1),
        (Fault("status", 403), errors.AuthError, 403, 1),
        (Fault("status", 404), errors.ModelNotFoundError, 404, 1),
        (Fault("status", 413), errors.RequestRefusedError, 413, 1),
        (Fault("status", 422), errors.RequestRefusedError, 422, 1),
        (Fault("status", 302, {"Location": "/v1/models"}), errors.RequestRefusedError, 302, 1),
        (Fault("status", 408), errors.EndpointError, 408, 3),
        (Fault("status", 409), errors.EndpointError, 409, 3),
        (Fault("status", 429), errors.RateLimitError, 429, 3),
        (Fault("status", 500), errors.EndpointError, 500, 3),
        (Fault("status", 529), errors.EndpointError, 529, 3),
        (Fault("error", 429), errors.RateLimitError, 429, 3),
        (Fault("error", 502), errors.EndpointError, 502, 3),
        (Fault("drop"), errors.UnreachableError, None, 3),
        (Fault("cut"), errors.MalformedReplyError, 200, 3),
        (Fault("short"), errors.MalformedReplyError, 200, 3),
        (Fault("garbage"), errors.MalformedReplyError, 200, 3),
        (Fault("empty"), errors.MalformedReplyError, 200, 3),
        (Fault("null"), errors.MalformedReplyError, 200, 3),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
async def test_failures_are_the_same_on_both_paths(ask, fault, kind, status, attempts, model_at):
    async with serve(*[fault] * 3) as server:
        error = await failure(ask, model_at(server, max_retries=2))
    assert type(error) is kind
    assert (error.status, error.model, error.attempts) == (status, "m", attempts)
    assert len(server.requests) == attempts
    assert error.hint
    assert len(str(error).splitlines()) == 1
    if fault.kind in ("status", "error"):
        assert fault.message in str(error)


@BOTH
@pytest.mark.parametrize("kind", ["status", "drop", "cut", "short", "garbage", "empty", "null"])
async def test_a_passing_fault_is_retried(ask, kind, model_at):
    waits = Waits()
    async with serve(Fault(kind), Fault(kind)) as server:
        reply = await ask(model_at(server, waits), ASK)
    assert (reply.text, reply.attempts, len(server.requests)) == ("Good morning to you", 3, 3)
    assert len(waits.seconds) == 2


async def test_waits_grow_and_have_full_jitter(model_at):
    for random in (0.0, 0.5, 1.0):
        waits = Waits()
        async with serve(*[Fault("status", 503)] * 9) as server:
            model = model_at(server, backoff=waits.backoff(random), max_retries=7)
            await failure(by_reply, model)
        assert waits.seconds == [random * most for most in (1, 2, 4, 8, 16, 20, 20)]


@BOTH
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3),
        ({"Retry-After-Ms": "250", "Retry-After": "3"}, 0.25),
        ({"Retry-After": "9999"}, 60),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "nan"}, 0),
        ({"Retry-After": "-1"}, 0),
    ],
)
async def test_the_endpoint_says_how_long_to_wait(ask, headers, seconds, model_at):
    waits = Waits()
    async with serve(Fault("status", 429, headers)) as server:
        assert (await ask(model_at(server, waits), ASK)).attempts == 2
    assert waits.seconds == [seconds]


@BOTH
async def test_no_wait_that_would_outlast_the_time_allowed(ask, model_at):
    waits = Waits()
    async with serve(Fault("status", 429, {"Retry-After": "30"})) as server:
        error = await failure(ask, model_at(server, waits), Request(ASK.messages, timeout=20))
    assert (type(error), error.attempts, waits.seconds) == (errors.RateLimitError, 1, [])


@BOTH
async def test_the_time_allowed_bounds_a_hung_request(ask, model_at):
    async with serve(Fault("hang")) as server:
        error = await failure(ask, model_at(server), Request(ASK.messages, timeout=0.3))
        assert type(error) is errors.ModelTimeoutError
        assert "0.3 s" in str(error)
    assert [each.status for each in server.requests] == [499]


@BOTH
async def test_no_time_left_at_all(ask, model_at):
    async with serve() as server:
        error = await failure(ask, model_at(server), Request(ASK.messages, timeout=0.0))
    assert type(error) is errors.ModelTimeoutError
    assert server.requests == []


@BOTH
async def test_a_hung_attempt_is_tried_again(ask, model_at):
    async with serve(Fault("hang")) as server:
        reply = await ask(model_at(server, timeout=0.5), ASK)
    assert reply.attempts == 2


@BOTH
async def test_cancellation_leaves_no_request_behind(ask, model_at):
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def hang(request):
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with serve(script=hang) as server:
        model = model_at(server)
        task = asyncio.create_task(ask(model, ASK))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_leaving_a_stream_early_closes_its_request(model_at):
    async with serve() as server:
        model = model_at(server)
        async with contextlib.aclosing(model.stream(ASK)) as pieces:
            assert await anext(pieces) == "Good "
        assert (await by_stream(model, ASK)).text == "Good morning to you"


@BOTH
async def test_unreachable(ask, model_at):
    async with serve() as server:
        model = model_at(server, max_retries=1)
    error = await failure(ask, model)
    assert (type(error), error.attempts) == (errors.UnreachableError, 2)
    assert server.base_url.split("/")[2] in str(error)


@BOTH
async def test_unknown_model(ask, model_class):
    async with serve(api_key=KEY) as server:
        error = await failure(ask, model_class("other", base_url=server.base_url, api_key=KEY))
    assert type(error) is errors.ModelNotFoundError
    assert "other" in str(error)


@BOTH
async def test_endpoints_may_need_no_key(ask, model_class):
    async with serve() as server:
        await ask(model_class("m", base_url=server.base_url), ASK)
    assert "authorization" not in server.requests[0].headers


@BOTH
async def test_no_error_and_no_log_holds_the_key(ask, caplog, model_at):
    caplog.set_level(logging.DEBUG)
    secret = "team-secret-0123456789"
    faults = [
        Fault("status", 401, message=f"Incorrect API key provided: {KEY}, {secret}"),
        Fault("status", 400, message="x" * 290 + KEY),
        Fault("error", 400, message=f"what is {KEY}?"),
        *[Fault(kind) for kind in ("drop", "cut", "garbage", "null")],
    ]
    async with serve(*faults) as server:
        model = model_at(server, max_retries=0, default_headers={"X-Secret": f"Token {secret}"})
        texts = [repr(model), str(vars(model)), caplog.text]
        for _ in faults:
            error = await failure(ask, model)
            assert error.__cause__ is None
            assert error.__context__ is None
            texts += [str(error), repr(vars(error)), *traceback.format_exception(error)]
    for text in texts:
        assert "canary" not in text
        assert secret not in text


def test_no_key_for_openai_is_told_before_any_request(model_class):
    with pytest.raises(ConfigError) as caught:
        model_class("gpt-5")
    assert "OPENAI_API_KEY" in caught.value.hint


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIModel("gpt-5").base_url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    assert OpenAIModel("gpt-5").base_url == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("RLM_MAX_DEPTH", "not this one's business")
    assert OpenAIModel("gpt-5", base_url="https://host/v1").base_url == "https://host/v1"


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://host"},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"api_key": f"{KEY}\nX-Other: 1"},
        {"default_headers": {"X-A": "b\r\nX-C: d"}},
        {"timeout": 0},
        {"max_retries": -1},
        {"max_concurrency": 0},
    ],
)
def test_unusable_settings_are_refused(options, model_class):
    with pytest.raises(ConfigError) as caught:
        model_class("m", **{"base_url": "http://127.0.0.1:9/v1", **options})
    assert caught.value.hint
    assert KEY not in str(caught.value) + caught.value.hint


async def test_a_client_is_asked_in_place_of_an_endpoint_and_is_not_closed():
    async with (
        serve(api_key=KEY) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client,
    ):
        with pytest.raises(ConfigError):
            OpenAIModel("m", client=client, base_url=server.base_url)
        model = OpenAIModel("m", client=client)
        assert model.base_url == server.base_url
        assert KEY not in repr(model) + str(vars(model))
        await by_reply(model, ASK)
        await model.aclose()
        assert (await by_stream(model, ASK)).text == "Good morning to you"
        await model.aclose()
    assert [each.headers["authorization"] for each in server.requests] == [f"Bearer {KEY}"] * 2


def test_a_model_has_a_name(model_class):
    with pytest.raises(ConfigError):
        model_class(" ", base_url="http://127.0.0.1:9/v1")


@BOTH
async def test_a_body_that_is_no_json_is_refused(ask, model_at):
    async with serve() as server:
        request = Request(ASK.messages, ModelOptions(extra_body={"stop": {"a", "b"}}))
        error = await failure(ask, model_at(server), request)
    assert type(error) is errors.RequestRefusedError
    assert server.requests == []


def test_openai_itself_is_asked_in_its_own_words():
    model = OpenAIModel("gpt-5-mini", base_url="https://api.openai.com/v1", api_key=KEY)
    body = model._body(Request(ASK.messages, ModelOptions(max_output_tokens=7), cache_key="run-1"))
    assert body["max_completion_tokens"] == 7
    assert body["prompt_cache_key"] == "run-1"
    assert "max_tokens" not in body
    assert model.price_known


def test_options_of_a_request_win_over_the_models():
    model = OpenAIModel(
        "m",
        base_url="http://127.0.0.1:9/v1",
        options=ModelOptions(temperature=0.9, reasoning_effort="high", extra_body={"a": 1, "b": 1}),
        prompt_cache_key=True,
    )
    asked = ModelOptions(temperature=0.0, extra_body={"b": 2, "model": "other"})
    body = model._body(Request(ASK.messages, asked, cache_key="k"))
    assert (body["temperature"], body["reasoning_effort"], body["a"], body["b"]) == (0.0, "high", 1, 2)
    assert (body["prompt_cache_key"], body["model"]) == ("k", "other")


async def test_price_of_an_unknown_model_is_unknown(model_at):
    async with serve() as server:
        model = model_at(server)
        assert not model.price_known
        assert (await model.reply(ASK)).usage.cost_usd is None
        assert model_at(server, prices={"*": Price(1, 2)}).price_known


async def test_a_large_body_goes_through(model_at):
    async with serve() as server:
        request = Request([{"role": "user", "content": "x" * 3_000_000}])
        assert (await by_reply(model_at(server), request)).usage.input_tokens == 750_000


async def test_sub_calls_are_capped_and_wait_their_turn(model_at):
    full, release = asyncio.Event(), asyncio.Event()

    async def hold(request):
        if server.in_flight == 3:
            full.set()
        await release.wait()
        return "ok"

    async with serve(script=hold) as server:
        model = model_at(server, max_concurrency=3)
        tasks = [asyncio.create_task(model.reply(ASK)) for _ in range(10)]
        await full.wait()
        late = await failure(by_reply, model, Request(ASK.messages, timeout=0.1))
        assert (type(late), late.attempts) == (errors.ModelTimeoutError, 0)
        release.set()
        assert [reply.text for reply in await asyncio.gather(*tasks)] == ["ok"] * 10
    assert server.peak == 3


@OWN
async def test_rate_limits_lower_the_number_of_requests_in_flight(model_at):
    peaks = []

    def limit(served):
        peaks.append(server.in_flight)
        return Fault("status", 429) if server.in_flight > 4 else None

    async def hold(request):
        await asyncio.sleep(0)
        return "ok"

    async with ScriptedServer({"m": ScriptedModel(hold, name="m")}, fault=limit) as server:
        model = model_at(server, backoff=Backoff(base=0.001), max_retries=50, max_concurrency=64)
        replies = await asyncio.gather(*(model.reply(ASK) for _ in range(200)))
    assert {reply.text for reply in replies} == {"ok"}
    assert max(peaks[:64]) > 32
    assert max(peaks[-50:]) < 32


async def test_connections_are_shared_and_closing_one_model_breaks_no_other(model_at):
    arrived, release = asyncio.Event(), asyncio.Event()

    async def hold(request):
        arrived.set()
        await release.wait()
        return "ok"

    async with serve(script=hold) as server:
        one, two = model_at(server), model_at(server)
        task = asyncio.create_task(two.reply(ASK))
        await arrived.wait()
        await one.aclose()
        release.set()
        assert (await task).attempts == 1
        await one.aclose()
        assert (await one.reply(ASK)).text == "ok"


@OWN
async def test_connections_close_with_the_last_model_that_used_them(model_at):
    async with serve() as server:
        one, two = model_at(server), model_at(server)
        for model in (one, two):
            await by_stream(model, ASK)
        async with connected(one._endpoint, one) as before:
            pass
        await one.aclose()
        async with connected(two._endpoint, two) as after:
            assert after is before
        await two.aclose()
        async with connected(two._endpoint, two) as anew:
            assert anew is not before
        await two.aclose()


async def test_streams_at_once_share_one_client(model_at):
    async with serve() as server:
        model = model_at(server)
        replies = await asyncio.gather(*(by_stream(model, ASK) for _ in range(20)))
        await model.aclose()
    assert {reply.text for reply in replies} == {"Good morning to you"}
    gc.collect()  # a client that was left over would warn here


@OWN
def test_one_model_serves_one_event_loop_after_another(model_at):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(serve().__aenter__(), loop).result()
        model = model_at(server)
        for ask in (by_reply, by_stream, by_reply):
            assert asyncio.run(ask(model, ASK)).text == "Good morning to you"
        gc.collect()  # what was left open would warn here
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@BOTH
async def test_a_proxy_of_the_environment_is_used_for_other_hosts(ask, monkeypatch, model_class):
    async with serve() as server:
        monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        model = model_class("m", base_url="http://models.invalid/v1", api_key=KEY, max_retries=0)
        assert (await ask(model, ASK)).text == "Good morning to you"
        assert server.requests[0].headers["host"] == "models.invalid"
        await model.aclose()
