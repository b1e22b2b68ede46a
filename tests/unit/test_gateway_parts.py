"""The parts of the repl `gateway` that need none: addresses, frames, answers kept, pieces of files."""

from __future__ import annotations

import asyncio
import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.config import resolve
from rlm_kernel.errors import ConfigError, ContextError, KernelStartError
from rlm_kernel.repl.gateway import deliveries
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.answered import MAX_CHARS, Answered
from rlm_kernel.repl.gateway.deliveries import PIECES_AHEAD, Deliveries
from rlm_kernel.repl.gateway.frames import FrameError, pack, unpack
from rlm_kernel.repl.gateway.rest import start_environment

TOKEN = "canary-0123456789-gateway"


# Addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8888", "localhost", "[::1]:8888/base", "127.3.2.1"])
def test_plain_http_to_this_machine_is_allowed(host):
    assert Gateway(f"http://{host}/", TOKEN).url == f"http://{host}"


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "gateway.example", "localhost.example", "0.0.0.0", "[2001:db8::1]"]
)
def test_plain_http_to_another_machine_must_be_asked_for(host):
    with pytest.raises(ConfigError, match="plain http") as caught:
        Gateway(f"http://{host}:8888", TOKEN)
    assert "gateway_insecure" in caught.value.hint
    assert Gateway(f"http://{host}:8888", TOKEN, allow_http=True)
    assert Gateway(f"https://{host}:8888", TOKEN)


@pytest.mark.parametrize("url", ["https://user:{}@host", "https://host/?token={}", "https://host/#{}"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError, match="more than an address") as caught:
        Gateway(url.format(TOKEN))
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


def test_the_token_is_in_one_header_and_nowhere_else():
    gateway = Gateway("https://host/base/", TOKEN)
    assert gateway.headers == {"Authorization": f"token {TOKEN}"}
    assert TOKEN not in f"{gateway!r} {gateway} {gateway.api('kernels', 'a/b?c')}"
    assert gateway.api("kernels", "a/b?c") == "https://host/base/api/kernels/a%2Fb%3Fc"
    assert not Gateway("https://host").headers


def test_settings_come_from_the_variables_of_jupyter_too(monkeypatch):
    environment = {"JUPYTER_GATEWAY_URL": "https://host", "JUPYTER_GATEWAY_AUTH_TOKEN": TOKEN}
    settings = resolve({}, environment)
    assert settings["gateway_url"].value == "https://host"
    assert TOKEN not in repr(settings)
    settings = resolve({}, {**environment, "RLM_GATEWAY_URL": "https://other"})
    assert settings["gateway_url"].value == "https://other"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    rlm = RLM(ScriptedModel([]), repl="gateway", kernel_name="python3")
    assert rlm._backend._own == Gateway("https://host", TOKEN, "python3")
    assert TOKEN in rlm._secrets


def test_without_an_address_there_is_no_gateway():
    with pytest.raises(ConfigError, match="needs the URL") as caught:
        RLM(ScriptedModel([]), repl="gateway")
    assert "RLM_GATEWAY_URL" in caught.value.hint
    with pytest.raises(ConfigError, match="plain http"):
        RLM(ScriptedModel([]), repl="gateway", gateway_url="http://10.0.0.7:8888")
    assert RLM(ScriptedModel([]), repl="gateway", gateway_url="http://10.0.0.7:8888", gateway_insecure=True)


def test_who_starts_a_kernel_is_never_root(monkeypatch):
    monkeypatch.delenv("KERNEL_USERNAME", raising=False)
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("KERNEL_EXTRA", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-gateway")
    assert start_environment() == {"KERNEL_USERNAME": "rlm", "KERNEL_EXTRA": "1"}
    monkeypatch.setenv("LOGNAME", "ada")
    assert start_environment()["KERNEL_USERNAME"] == "ada"
    monkeypatch.setenv("KERNEL_USERNAME", "given")
    assert start_environment()["KERNEL_USERNAME"] == "given"


# Frames -----------------------------------------------------------------------------------------------

HEADER = {"msg_id": "m1", "msg_type": "input_reply", "session": "s"}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(content=st.dictionaries(st.text(), JSON), buffers=st.lists(st.binary()), v1=st.booleans())
def test_a_message_survives_its_frame(content, buffers, v1):
    message = unpack(pack("stdin", HEADER, {"msg_id": "p"}, content, buffers, v1=v1), v1=v1)
    assert (message.channel, message.type, message.parent_id) == ("stdin", "input_reply", "p")
    assert message.content == json.loads(json.dumps(content))
    assert [bytes(each) for each in message.buffers] == buffers


def test_a_frame_is_laid_out_as_the_protocol_says():
    frame = pack("shell", {"msg_type": "t"}, {}, {"a": 1}, [b"buffer"], v1=True)
    parts = [b"shell", b'{"msg_type": "t"}', b"{}", b"{}", b'{"a": 1}', b"buffer"]
    offsets = [8 * 8]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    assert frame == b"".join(each.to_bytes(8, "little") for each in [7, *offsets]) + b"".join(parts)


@given(frame=st.binary() | st.text(), v1=st.booleans())
def test_what_is_no_message_is_refused(frame, v1):
    with pytest.raises(FrameError):
        unpack(frame, v1=v1)


@given(data=st.data(), v1=st.booleans())
def test_a_damaged_frame_is_read_or_refused(data, v1):
    frame = pack("iopub", HEADER, {}, {"text": "x" * 20}, [b"buffer"], v1=v1)
    place = data.draw(st.integers(0, len(frame) - 1))
    damaged = frame[:place] + bytes([data.draw(st.integers(0, 255))]) + frame[place + 1 :]
    try:
        unpack(damaged, v1=v1)
    except FrameError:
        return


@pytest.mark.parametrize(
    "message",
    [
        {"channel": "heartbeat", "header": HEADER, "content": {}},
        {"channel": "shell", "header": {}, "content": {}},
        {"channel": "shell", "header": {"msg_type": 1}, "content": {}},
        {"channel": "shell", "header": HEADER, "content": []},
        {"channel": ["shell"], "header": HEADER, "content": {}},
        {"channel": "shell", "header": HEADER, "parent_header": [1], "content": {}},
    ],
)
def test_a_message_of_another_shape_is_refused(message):
    with pytest.raises(FrameError):
        unpack(json.dumps(message), v1=False)


# What was answered -------------------------------------------------------------------------------------


def test_an_answer_is_given_again_and_never_made_again():
    answered = Answered()
    assert answered.get("a") is None
    answered.add("a", {"id": "a", "value": 1}, MAX_CHARS // 2)
    answered.add("b", {"id": "b", "value": 2}, MAX_CHARS // 2)
    assert answered.get("a") == {"id": "a", "value": 1}
    answered.add("c", {"id": "c", "value": 3}, 10)
    lost = answered.get("a")
    assert (lost["id"], lost["ok"], lost["error"]["kind"]) == ("a", False, "internal")
    assert answered.get("b") == {"id": "b", "value": 2}
    assert (answered.size_of("a"), answered.size_of("c")) == (0, 10)


# Pieces of files --------------------------------------------------------------------------------------


class Kernel:
    """Writes pieces into files, and acknowledges them when it is told to."""

    def __init__(self):
        self.messages = []
        self.files = {}
        self.deliveries = Deliveries(self.send)

    def send(self, type_, content, buffers):
        self.messages.append((type_, content, [bytes(each) for each in buffers]))
        return str(len(self.messages) - 1)

    def acknowledge(self, number, **reply):
        _, content, buffers = self.messages[number]
        file = self.files.setdefault(content["name"], bytearray(content["total"]))
        file[content["offset"] : content["offset"] + len(buffers[0])] = buffers[0]
        self.deliveries.take(str(number), {"status": "ok", "path": "/there", **reply})


async def test_pieces_are_acknowledged_a_few_ahead_and_sent_again_after_a_break():
    kernel = Kernel()
    pieces = [bytes([n]) * 3 for n in range(PIECES_AHEAD + 2)]
    task = asyncio.create_task(kernel.deliveries.put("text", pieces, 3 * len(pieces), once=True))
    await asyncio.sleep(0)
    assert len(kernel.messages) == PIECES_AHEAD
    kernel.acknowledge(0)
    await asyncio.sleep(0.01)
    kernel.deliveries.send_again()
    again = kernel.messages[PIECES_AHEAD + 1 :]
    assert [content["offset"] for _, content, _ in again] == [3, 6, 9, 12]
    number = PIECES_AHEAD + 1
    while not task.done():
        if number < len(kernel.messages):
            kernel.acknowledge(number)
            number += 1
        await asyncio.sleep(0)
    assert await task == "/there"
    assert list(kernel.files.values()) == [b"".join(pieces)]
    kernel.deliveries.drop()
    assert kernel.messages[-1] == ("rlm_drop", {"name": next(iter(kernel.files))}, [])


@pytest.mark.parametrize(
    ("line", "last"), [("quick", deliveries.PIECE_BYTES), ("slow", deliveries.SMALLEST_BYTES)]
)
async def test_pieces_are_as_large_as_the_line_is_fast(monkeypatch, line, last):
    # Seen as such, whatever the time.
    monkeypatch.setattr(deliveries, "QUICK_SECONDS", {"quick": float("inf"), "slow": -1.0}[line])
    monkeypatch.setattr(deliveries, "SLOW_SECONDS", -1.0)
    kernel = Kernel()
    data = os.urandom(1024) * (10 * deliveries.PIECE_BYTES // 1024)
    pieces = [data[at : at + deliveries.PIECE_BYTES] for at in range(0, len(data), deliveries.PIECE_BYTES)]
    task = asyncio.create_task(kernel.deliveries.put("text", pieces, len(data), once=True))
    number = 0
    while not task.done():
        if number < len(kernel.messages):
            kernel.acknowledge(number)
            number += 1
        await asyncio.sleep(0)
    sizes = [len(buffers[0]) for _, _, buffers in kernel.messages]
    assert sizes[0] == deliveries.FIRST_BYTES
    assert sizes[-1] == last
    assert list(kernel.files.values()) == [data]


@pytest.mark.parametrize("ends", ["refused", "dead"])
async def test_a_file_that_does_not_arrive(ends):
    kernel = Kernel()
    task = asyncio.create_task(kernel.deliveries.put("text", [b"a", b"b"], 2, once=True))
    await asyncio.sleep(0)
    if ends == "refused":
        kernel.acknowledge(0, status="error", evalue="OSError: no space")
    else:
        kernel.deliveries.fail("its process ended")
    error, match = (ContextError, "no space") if ends == "refused" else (KernelStartError, "process ended")
    with pytest.raises(error, match=match):
        await task


def test_a_gateway_compares_by_what_it_is_and_pickles_no_state():
    assert Gateway("https://host", TOKEN) == Gateway("https://host/", TOKEN)
    assert hash(Gateway("https://host", TOKEN)) == hash(Gateway("https://host", TOKEN))
    assert Gateway("https://host", TOKEN) != Gateway("https://host", "other")
    assert pickle.loads(pickle.dumps(Gateway("https://host", TOKEN))) == Gateway("https://host", TOKEN)
