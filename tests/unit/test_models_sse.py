"""Server-sent events, cut anywhere, with any kind of line break."""

import asyncio
import contextlib
import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.models.base import Reply, Request
from rlm_kernel.models.openai import OpenAIModel
from rlm_kernel.models.sse import EventLines

STREAM = (
    b": a comment\n\nevent: message\ndata: one\nid: 7\n\n"
    b"data:two\ndata: lines\n\ndata\ndata:\n\nretry: 10\n\nnothing: here\n\ndata: \xc3\xa4\xe2\x80\xa8 \n\n"
)
EVENTS = [b"one", b"two\nlines", b"\n", "ä\u2028 ".encode()]


def events_of(pieces):
    lines = EventLines()
    found = [event for piece in pieces for event in lines.feed(piece)]
    return found + lines.rest()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_wherever_a_stream_is_cut(places, line_break):
    stream = STREAM.replace(b"\n", line_break)
    ends = [0, *sorted(places), len(stream)]
    assert events_of(stream[a:b] for a, b in itertools.pairwise(ends)) == EVENTS


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_taken(pieces):
    assert all(isinstance(event, bytes) for event in events_of(pieces))


def test_the_end_of_a_stream_completes_its_last_event():
    assert events_of([b"data: a\n\ndata: b"]) == [b"a", b"b"]
    assert events_of([b"data: a\r\n\r\ndata: b\r\n"]) == [b"a", b"b"]
    assert events_of([b"data: a\n\n"]) == [b"a"]


async def test_an_endpoint_that_does_not_stream_is_read_whole():
    body = {"model": "m", "choices": [{"message": {"content": "all at once"}, "finish_reason": "stop"}]}

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        pieces = [piece async for piece in model.stream(Request([{"role": "user", "content": "hello"}]))]
        await model.aclose()
    assert pieces[0] == "all at once"
    assert isinstance(pieces[1], Reply)
