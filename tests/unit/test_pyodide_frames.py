"""Frames of the sandbox: whole ones are read however they are cut, and anything else is tampering."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.repl.pyodide.frames import MAX_FRAME, Reader, Tampered, pack

TOKEN = bytes(range(16))
GUEST, SUPERVISOR = 1, 0


def frame(header, body=b"", *, number=0, token=TOKEN, origin=GUEST):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    rest = token + struct.pack("<IBI", number, origin, len(head)) + head + body
    return struct.pack("<I", len(rest)) + rest


STREAM = {"op": "stream", "cell": 1, "name": "stdout"}


@given(st.lists(st.binary(max_size=200), max_size=6), st.integers(1, 60))
def test_frames_are_the_same_however_the_pipe_cuts_them(bodies, step):
    data = b"".join(frame(STREAM, body, number=number) for number, body in enumerate(bodies))
    reader = Reader(TOKEN)
    found = [each for at in range(0, len(data), step) for each in reader.feed(data[at : at + step])]
    assert [bytes(each.body) for each in found] == bodies


@given(st.binary(min_size=4, max_size=400))
def test_no_bytes_do_worse_than_tampering(data):
    with contextlib.suppress(Tampered):
        assert list(Reader(TOKEN).feed(data)) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(STREAM, token=bytes(16)), id="another token"),
        pytest.param(frame(STREAM, token=bytes(16))[:24], id="the beginning of one with another token"),
        pytest.param(frame(STREAM, number=1), id="a gap"),
        pytest.param(frame(STREAM) + frame(STREAM), id="a repetition"),
        pytest.param(frame(STREAM, origin=2), id="another origin"),
        pytest.param(frame({"op": "broken", "reason": "x"}), id="the supervisor's word from the guest"),
        pytest.param(frame(STREAM, origin=SUPERVISOR), id="the guest's word from the supervisor"),
        pytest.param(struct.pack("<I", MAX_FRAME + 1) + TOKEN, id="too long"),
        pytest.param(struct.pack("<I", 3) + b"abc", id="too short"),
        pytest.param(frame(b"no json"), id="a header that is not JSON"),
        pytest.param(frame(b"[" * 100_000), id="a header nested too deep"),
        pytest.param(frame([1]), id="a header that is a list"),
        pytest.param(frame({"op": ["stream"]}), id="an op that is a list"),
        pytest.param(frame({"op": "unheard"}), id="an op there isn't"),
        pytest.param(frame({**STREAM, "cell": True}), id="a cell that is no number"),
        pytest.param(frame({**STREAM, "name": None}), id="a field that is missing"),
        pytest.param(
            frame({"op": "ask", "cell": 1, "password": False, "sizes": [2]}, b"x"), id="sizes beyond the body"
        ),
        pytest.param(
            frame({"op": "ask", "cell": 1, "password": False, "sizes": [-1, 2]}, b"x"), id="negative sizes"
        ),
        pytest.param(frame({"op": "ask", "cell": 1, "password": False, "sizes": []}), id="no pieces"),
        pytest.param(
            frame({"op": "post", "cell": 1, "sizes": [1], "counts": [3]}, b"x"),
            id="buffers that aren't there",
        ),
        pytest.param(
            frame({"op": "post", "cell": 1, "sizes": [1], "counts": ["1"]}, b"x"), id="a count that is text"
        ),
    ],
)
def test_what_none_of_its_programs_sends_is_tampering(data):
    with pytest.raises(Tampered):
        list(Reader(TOKEN).feed(data))


def test_a_header_may_not_reach_past_its_frame():
    data = bytearray(frame(STREAM))
    data[25:29] = struct.pack("<I", 10_000)
    with pytest.raises(Tampered):
        list(Reader(TOKEN).feed(bytes(data)))


def test_a_frame_for_the_sandbox_has_both_lengths():
    packed = pack({"op": "put"}, b"body")
    length, size = struct.unpack_from("<II", packed)
    assert length == len(packed) - 4
    assert json.loads(packed[8 : 8 + size]) == {"op": "put"}
    assert packed[8 + size :] == b"body"
