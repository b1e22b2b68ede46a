"""Bytes that no `encode` made are refused, or read as a value, and nothing else happens."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from travel import any_text, png, receive, values

from rlm_kernel.guest import decode
from rlm_kernel.guest.decode import DecodeError, Decoder, decode_file
from rlm_kernel.guest.encode import encode
from rlm_kernel.guest.formats import FORMATS, MAX_NESTING


@settings(max_examples=300)
@given(fmt=st.sampled_from(FORMATS), pieces=st.lists(st.binary(max_size=40), max_size=4))
def test_random_bytes_are_refused_or_read(fmt, pieces):
    try:
        receive(fmt, pieces)
    except DecodeError:
        return
    if fmt == "text":
        assert b"".join(pieces).decode("utf-8", "surrogatepass") is not None


tagged = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$rlm", "v", "x"]), inner, max_size=3)
        | st.fixed_dictionaries({"$rlm": st.sampled_from([*decode._READERS, "no", 1]), "v": inner})
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(value=tagged, fmt=st.sampled_from(["json", "list", "dict"]))
def test_hostile_json_is_refused_or_read(value, fmt):
    line = json.dumps(value).encode("utf-8", "surrogatepass")
    with contextlib.suppress(DecodeError):
        receive(fmt, [line] if fmt == "json" else [b"[", line, b"]\n1\n"])


@settings(deadline=None)
@given(value=values, at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_wrong_byte_raises_nothing_else(value, at, byte):
    fmt, pieces = encode(value)
    data = bytearray(b"".join(pieces))
    if data:
        data[at % len(data)] = byte
    with contextlib.suppress(DecodeError):
        receive(fmt, [data])


@pytest.mark.parametrize(
    ("fmt", "data", "message"),
    [
        ("pickle", b"", "unknown format"),
        ("text", b"ab\xe2\x82", "within a character"),
        ("text", b"ab\xff", "format text"),
        ("list", b"[1,2]\n", "truncated after 2"),
        ("list", b"[1,2]\n3\n", "announced"),
        ("list", b"[1,2]\n2", "truncated"),
        ("list", b"[1]\n1\n[2]\n", "after the count"),
        ("list", b'{"a":1}\n1\n', "no array"),
        ("dict", b'["ab"]\n1\n', "pairs"),
        ("dict", b"[[[1],2]]\n1\n", "unhashable"),
        ("json", b'{"$rlm":"eval","v":"1"}', "unknown tag"),
        ("json", b'{"$rlm":["tuple"],"v":"1"}', "unknown tag"),
        ("json", b'{"$rlm":"tuple","v":"ab"}', "around a str"),
        ("json", b'{"$rlm":"set","v":[[]]}', "unhashable"),
        ("json", b"[" * 100_000, "format json"),
        ("json", b"[" * 300 + b"]" * 300, "levels deep"),
        ("json", b"9" * 100_000, "format json"),
        ("image", b"image/png\nnothing", "image"),
        ("image", b"image/gif\n" + png(), "image"),
        ("arrow", b"ARROW1", "DataFrame"),
    ],
)
def test_malformed(fmt, data, message):
    with pytest.raises(DecodeError, match=message):
        receive(fmt, [data])


def test_deep_tuples_as_keys_are_refused_before_they_are_hashed():
    deep = "1"
    for _ in range(MAX_NESTING + 5):
        deep = f'{{"$rlm":"tuple","v":[{deep}]}}'
    with pytest.raises(DecodeError):
        receive("json", [f'{{"$rlm":"set","v":[{deep}]}}'.encode()])


def test_total_is_held():
    with pytest.raises(DecodeError, match="truncated: 2 of 3"):
        receive("text", [b"ab"], total_bytes=3)
    with pytest.raises(DecodeError, match="more than the 1 bytes"):
        receive("bytes", [b"ab"], total_bytes=1)


def test_a_decoder_that_failed_stays_failed():
    decoder = Decoder("text")
    with pytest.raises(DecodeError):
        decoder.feed(b"\xff")
    with pytest.raises(DecodeError, match="ended"):
        decoder.feed(b"a")
    done = Decoder("text")
    done.finish()
    with pytest.raises(DecodeError, match="ended"):
        done.finish()


def test_frames_can_be_refused():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1]})
    for value in (frame, [frame], {"a": frame}, (frame,)):
        fmt, pieces = encode(value)
        with pytest.raises(DecodeError, match="DataFrame"):
            receive(fmt, pieces, frames=False)


@settings(max_examples=50, deadline=None)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_broken_frames_raise_nothing_else(at, byte, cut):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "c": pd.Categorical(["p", "q", "p"])})
    data = bytearray(b"".join(encode(frame)[1]))
    data[at % len(data)] = byte
    with contextlib.suppress(DecodeError):
        receive("arrow", [data[: cut % len(data) + 1] if cut % 3 == 0 else data])


def test_decode_file(tmp_path):
    file = tmp_path / "context"
    file.write_bytes(b"".join(encode({"a": 1})[1]))
    assert decode_file("dict", file) == {"a": 1}
