"""`GGUFModel` on a real llama.cpp with a tiny file: it starts, answers, dies, comes back, and ends."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rlm_kernel import RLM, errors
from rlm_kernel.errors import ConfigError
from rlm_kernel.models import gguf as gguf_module
from rlm_kernel.models.base import Model, ModelOptions, Reply, Request
from rlm_kernel.models.gguf import GGUFModel
from rlm_kernel.models.gguf_header import read_header
from rlm_kernel.models.prices import Price
from rlm_kernel.models.wire import connected
from rlm_kernel.usage import Usage

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from tinygguf import CONTEXT_LENGTH, write_tiny_gguf

ASK = Request([{"role": "user", "content": "Say hello"}], ModelOptions(max_output_tokens=8, temperature=0))
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
async def model(path):
    model = GGUFModel(path, threads=1)
    yield model
    await model.aclose()


def process_of(model):
    return model._process._child


async def by_stream(model, request):
    *pieces, last = [piece async for piece in model.stream(request)]
    assert "".join(pieces) == last.text
    return last


def test_is_a_model_that_starts_nothing_before_it_is_asked(path):
    model = GGUFModel(path)
    assert isinstance(model, Model)
    assert (model.name, model.window, process_of(model)) == ("gguf:tiny.gguf", CONTEXT_LENGTH, None)
    assert GGUFModel(path, window=100).window == 100


async def test_answers_whole_and_in_pieces(model):
    first, second = await model.reply(ASK), await by_stream(model, ASK)
    assert isinstance(first, Reply)
    for reply in (first, second):
        assert (reply.model, reply.finish_reason) == ("gguf:tiny.gguf", "length")
        assert (reply.usage.output_tokens, reply.usage.cost_usd) == (8, 0)
    assert second.usage.cached_tokens > 0


async def test_what_does_not_fit_is_refused(model):
    with pytest.raises(errors.ContextLengthError) as caught:
        await model.reply(Request([{"role": "user", "content": "word " * 400}]))
    assert "512 tokens" in str(caught.value)


async def test_requests_wait_for_each_other_and_share_one_process(model):
    await asyncio.gather(*(model.reply(ASK) for _ in range(6)))
    process = process_of(model)
    await model.reply(ASK)
    assert process_of(model) is process


async def test_only_the_model_may_ask_its_server(model):
    await model.open()
    address, _ = model._process._where
    assert address.startswith("http://127.0.0.1:")
    body = json.dumps({"messages": ASK.messages}).encode()
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, {"Content-Type": "text/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, request)
    caught.value.close()
    assert caught.value.code == 401


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_key_of_the_user_reaches_the_process(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = GGUFModel(path)
    await model.open()
    process = Path(f"/proc/{process_of(model).pid}")
    assert KEY.encode() not in (process / "environ").read_bytes()
    assert b"local-" not in (process / "cmdline").read_bytes()
    await model.aclose()


async def test_closing_ends_the_process_and_asking_starts_it_again(model):
    await model.reply(ASK)
    process = process_of(model)
    await model.aclose()
    await model.aclose()
    assert process.poll() is not None
    await model.reply(ASK)


async def test_a_death_in_mid_request_is_told_and_survived(model):
    await model.open()
    process = process_of(model)
    process.send_signal(signal.SIGSTOP)  # it takes requests, and answers none
    async with connected(model._model._endpoint, model) as wire:
        task = asyncio.create_task(model.reply(ASK))
        async with asyncio.timeout(30):
            while not wire.gate.in_flight:  # noqa: ASYNC110  only the gate knows
                await asyncio.sleep(0)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(errors.EndpointError) as caught:
        await task
    assert "llama.cpp ended" in str(caught.value)
    assert "memory" in caught.value.hint
    assert (await model.reply(ASK)).usage.output_tokens == 8


async def test_it_ends_with_the_process_that_started_it(path):
    code = (
        "import asyncio, os, sys; from rlm_kernel.models.gguf import GGUFModel;"
        "model = GGUFModel(sys.argv[1]);"
        "asyncio.run(model.open()); print(model._process._child.pid, flush=True); os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(gguf_module.__file__).parents[2])}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 9, done.stderr
    async with asyncio.timeout(30):
        while _alive(int(done.stdout)):  # noqa: ASYNC110  nothing tells of another's child
            await asyncio.sleep(0.01)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_one_model_serves_one_event_loop_after_another(path):
    model = GGUFModel(path)
    for _ in range(2):
        assert asyncio.run(model.reply(ASK)).usage.output_tokens == 8
    asyncio.run(model.aclose())


def test_prices_can_be_set(path):
    assert GGUFModel(path).cost(Usage(1_000_000, 0)) == 0
    assert GGUFModel(path, prices={"gguf:*": Price(2, 0)}).cost(Usage(1_000_000, 0)) == 2


HEAD = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with b''"),
        (b"PK\x03\x04 a zip", "begins with b'PK"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 0), "version is 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensors"),
        (HEAD[:10], "ends in its header"),
        (HEAD, "ends in its header"),
        (HEAD + struct.pack("<Q", 9) + b"gen", "ends in its header"),
        (HEAD + struct.pack("<Q", 2**60), "in its header"),
        (HEAD + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 99), "unknown type 99"),
        (HEAD + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
    ],
)
def test_other_files_are_refused_before_anything_starts(tmp_path, content, says):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        GGUFModel(path)
    assert "model.gguf" in str(caught.value)
    assert caught.value.hint


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            GGUFModel(path)


def test_the_header_holds_what_stands_before_the_tokenizer(path):
    header = read_header(path)
    assert (header["general.architecture"], header["llama.context_length"]) == ("llama", CONTEXT_LENGTH)
    assert not any(key.startswith("tokenizer") for key in header)


async def test_a_file_that_llama_cpp_refuses_is_an_error_of_the_request(path, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:50_000])  # the header is whole, the weights are not
    model = GGUFModel(broken)
    with pytest.raises(errors.EndpointError, match="can't be loaded") as caught:
        await model.reply(ASK)
    assert "broken.gguf" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert process_of(model) is None


async def test_too_little_memory_is_an_error_of_the_request(path, monkeypatch):
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (600_000_000,) * 2);"
        f"sys.argv = [{str(gguf_module._SERVER)!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = path.with_name("limited.py")
    script.write_text(limited)
    monkeypatch.setattr(gguf_module, "_SERVER", script)
    big = path.with_name("big.gguf")
    big.write_bytes(path.read_bytes())
    with big.open("r+b") as file:
        file.truncate(2_000_000_000)
    model = GGUFModel(big)
    with pytest.raises(errors.EndpointError, match="memory") as caught:
        await model.reply(ASK)
    assert "smaller" in caught.value.hint
    await model.aclose()


def test_without_the_extra_it_says_what_to_install(path, monkeypatch):
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        GGUFModel(path)
    assert "rlm-kernel[local]" in caught.value.hint


def test_a_name_is_enough(path):
    with RLM(model=f"gguf:{path}") as rlm:
        estimate = rlm.estimate("How long is it?", "x" * 4000)
    assert (estimate.model, estimate.window, estimate.fits) == ("gguf:tiny.gguf", CONTEXT_LENGTH, False)
    with pytest.raises(ConfigError, match=r"missing\.gguf"):
        RLM(model="gguf:missing.gguf")


@pytest.mark.parametrize("options", [{"window": 0}, {"threads": 0}, {"timeout": 0}])
def test_unusable_settings_are_refused(path, options):
    with pytest.raises(ConfigError):
        GGUFModel(path, **options)
