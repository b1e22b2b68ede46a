"""The codec gives back what it took, in bounded memory, and never trusts the bytes it reads."""

import ast
import base64
import contextlib
import datetime
import decimal
import enum
import io
import json
import math
import pathlib
import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rlm_kernel
from rlm_kernel.guest import codec
from rlm_kernel.guest.codec import DecodeError, Decoder, EncodeError, Image, decode_file, encode

SOURCE = pathlib.Path(codec.__file__)


def send(value, piece_bytes=codec.PIECE_BYTES):
    """Encode and decode; return the format and the value that came out."""
    fmt, pieces = encode(value, piece_bytes)
    return fmt, receive(fmt, pieces)


def receive(fmt, pieces, **options):
    decoder = Decoder(fmt, **options)
    for piece in pieces:
        decoder.feed(piece)
    return decoder.finish()


def same(a, b):
    """Tell equal values of equal types, NaN being equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(same, a.items(), b.items()))
    return a == b


def png(width=3, height=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80" * 3 * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


any_text = st.text(st.characters())  # lone surrogates included
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.integers(min_value=10**400, max_value=10**5000)
)
keys = st.none() | st.booleans() | st.integers() | any_text | st.binary() | st.tuples(any_text, st.integers())
values = st.recursive(
    scalars | st.sets(keys) | st.frozensets(st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(st.sampled_from(["$rlm", "v", "a"]), inner)
    ),
    max_leaves=20,
)


@given(value=values, piece_bytes=st.integers(1, 50))
def test_round_trip(value, piece_bytes):
    codec.check(value)
    fmt, pieces = encode(value, piece_bytes)
    pieces = list(pieces)
    assert all(len(piece) == piece_bytes for piece in pieces[:-1])
    assert same(receive(fmt, pieces, total_bytes=sum(map(len, pieces))), value)


@given(text=any_text, cuts=st.lists(st.integers(1, 4), min_size=1))
def test_text_cut_anywhere(text, cuts):
    data = b"".join(encode(text)[1])
    decoder, at = Decoder("text"), 0
    for cut in cuts * (len(data) + 1):
        decoder.feed(memoryview(data)[at : at + cut])
        at += cut
        if at >= len(data):
            break
    assert decoder.finish() == text


@pytest.mark.parametrize("text", ["a" * 100 + "\U0001f600", "\ud83d\ude00", "\udc80x", "é" * 50, ""])
def test_text_of_every_width(text):
    assert send(text, 7) == ("text", text)


@pytest.mark.parametrize(
    ("value", "fmt"),
    [
        ("text", "text"),
        (b"\0\xff", "bytes"),
        (bytearray(b"abc"), "bytes"),
        ([1, "a", None], "list"),
        ({"a": {"b": (1, {2})}}, "dict"),
        ((1, 2), "json"),
        (2**70, "json"),
        (decimal.Decimal("1.50"), "json"),
        (pathlib.Path("a/b"), "json"),
        (Image(png()), "image"),
        ([Image(png()), 10**5000], "list"),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), "json"),
        ([], "list"),
        ({}, "dict"),
        ([list(range(1000)), ["x" * 2_000_000, "y"] * 2], "list"),
        ({"k" * 2_000_000: "v" * 3_000_000, "b": 1}, "dict"),
    ],
)
def test_formats(value, fmt):
    got, found = send(value, 1000)
    assert got == fmt
    assert found == value


def test_long_lists_are_written_in_bounded_lines():
    value = [*range(3000), *("x" * 9000 for _ in range(1000))]
    data = b"".join(encode(value)[1])
    assert max(map(len, data.split(b"\n"))) < 1024 * 1024 + 10_000
    assert receive("list", [data]) == value


def test_subclasses_come_back_as_their_base():
    class Colour(str):
        def __str__(self):
            return "something else"

    class Number(enum.IntEnum):
        BIG = 2**1200

    found = send([{"c": Colour("red")}, Number.BIG, [Colour("red")]])[1]
    assert found == [{"c": "red"}, 2**1200, ["red"]]
    assert type(found[0]["c"]) is str
    assert type(found[1]) is int


def test_equal_sets_have_equal_bytes():
    words = [f"w{number}" for number in range(50)]
    one, other = set(words), set()
    for word in reversed(words):
        other.add(word)
    assert list(encode(one)[1]) == list(encode(other)[1])


class Custom:
    pass


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic():
    value = {"a": []}
    value["a"].append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Custom(), "context is a Custom"),
        ({"a": [1, 2, 3, Custom()]}, 'context["a"][3] is a Custom'),
        ({"a": {("t",): Custom()}}, 'context["a"][tuple] is a Custom'),
        ({Custom(): 1}, "is a Custom"),
        ([*range(1000), {"x": 1j}], 'context[1000]["x"] is a complex'),
        ({1, 2j}, "complex"),
        (cyclic(), "contains itself"),
        (nested(codec.MAX_NESTING + 2), "levels deep"),
        (nested(100_000), "levels deep"),
    ],
)
def test_what_cannot_travel(value, message):
    with pytest.raises(EncodeError) as caught:
        codec.check(value)
    assert message in str(caught.value)
    with pytest.raises(EncodeError) as encoded:
        list(encode(value)[1])
    assert str(encoded.value) == str(caught.value)


def test_error_says_what_is_possible_and_what_would_do():
    pd = pytest.importorskip("pandas")
    with pytest.raises(EncodeError, match=r"made of str, bytes.*to_frame\(\) would do"):
        codec.check([pd.Series([1])])


def test_as_deep_as_allowed():
    for value in (nested(codec.MAX_NESTING - 1), [{1: nested(codec.MAX_NESTING // 2)}]):
        assert send(value)[1] == value


# --- what does not come from encode ---------------------------------------------------------------------


@settings(max_examples=300)
@given(fmt=st.sampled_from(codec.FORMATS), pieces=st.lists(st.binary(max_size=40), max_size=4))
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
        | st.fixed_dictionaries({"$rlm": st.sampled_from([*codec._READERS, "no", 1]), "v": inner})
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
    for _ in range(codec.MAX_NESTING + 5):
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


# --- images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
    ],
)
def test_image_size_and_type(kind, options):
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new("RGB", (301, 77), "red").save(file, kind, **options)
    image = Image(file.getvalue())
    assert (image.mime, image.width, image.height) == (f"image/{kind.lower()}", 301, 77)
    assert repr(image) == f"<Image {image.mime} 301x77, {len(file.getvalue()):,} bytes>"
    assert base64.b64decode(image._repr_mimebundle_()[image.mime]) == image.data
    assert send(image)[1] == image


@given(
    head=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBP"]),
    rest=st.binary(),
)
def test_image_header_never_raises(head, rest):
    image = Image(head + rest)
    assert (image.width is None) == (image.height is None)


def test_image_refuses_other_data():
    with pytest.raises(ValueError, match="no PNG"):
        Image(b"<svg>")
    with pytest.raises(ValueError, match="no image/jpeg"):
        Image(png(), "image/jpeg")


def test_pillow_images_travel_as_png():
    pillow = pytest.importorskip("PIL.Image")
    fmt, found = send(pillow.new("RGB", (4, 5)))
    assert (fmt, found.mime, found.width, found.height) == ("image", "image/png", 4, 5)
    assert send({"page": pillow.new("L", (4, 5))})[1]["page"].width == 4
    with pytest.raises(EncodeError, match="PNG can't hold"):
        codec.check(pillow.new("CMYK", (4, 5)))


# --- data frames ----------------------------------------------------------------------------------------


def test_frames():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {"n": range(2000), "s": [f"text {n}" * 500 for n in range(2000)], "d": pd.Timestamp("2026-01-01")},
        index=[f"row {n}" for n in range(2000)],
    )
    fmt, pieces = encode(frame, 1000)
    found = receive(fmt, pieces)
    assert fmt == "arrow"
    pd.testing.assert_frame_equal(found, frame)
    pd.testing.assert_frame_equal(send({"a": frame.head(3)})[1]["a"], frame.head(3))
    pd.testing.assert_frame_equal(
        send(frame.reset_index(drop=True)[5:50])[1], frame.reset_index(drop=True)[5:50]
    )
    empty = frame.head(0)
    assert list(send(empty)[1].columns) == list(frame.columns)


def test_frames_that_cannot_travel():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with pytest.raises(EncodeError, match="Arrow can't hold"):
        codec.check(pd.DataFrame({"mixed": [1, "a", Custom()]}))


def test_records_of_pandas_travel():
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    value = [
        {"t": pd.Timestamp("2026-01-01"), "none": pd.NaT, "na": pd.NA, "n": np.int64(3), "f": np.float32(0.5)}
    ]
    found = send(value)[1]
    assert found == [{"t": datetime.datetime(2026, 1, 1), "none": None, "na": None, "n": 3, "f": 0.5}]
    assert type(found[0]["n"]) is int


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


# --- shipped as source ----------------------------------------------------------------------------------


def test_source_is_python_3_9():
    ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 9))


def test_source_runs_alone():
    code = (
        "import sys, types\n"
        "module = types.ModuleType('rlm_guest.codec'); sys.modules[module.__name__] = module\n"
        f"exec(compile(open({str(SOURCE)!r}, encoding='utf-8').read(), '<codec>', 'exec'), module.__dict__)\n"
        "fmt, pieces = module.encode({'a': [1, (2,)]})\n"
        "decoder = module.Decoder(fmt)\n"
        "for piece in pieces: decoder.feed(piece)\n"
        "assert decoder.finish() == {'a': [1, (2,)]}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert loaded <= sys.stdlib_module_names | {'rlm_guest', '__main__'}\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[3])
import rlm_kernel
from rlm_kernel.guest import codec
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
value = codec.decode_file(sys.argv[1], sys.argv[2])
after = peak()
for piece in codec.encode(value)[1]:
    pass
print((after - before) / len(value), (peak() - after) / len(value))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage on Windows")
@pytest.mark.parametrize("fmt", ["text", "bytes"])
def test_memory_is_one_copy(fmt, tmp_path):
    file = tmp_path / "context"
    with file.open("wb") as opened:
        for _ in range(50):
            opened.write(b"abcdefg\n" * 500_000)
    root = str(pathlib.Path(rlm_kernel.__file__).parents[1])
    command = [sys.executable, "-c", MEASURE, fmt, str(file), root]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    decoding, encoding = map(float, done.stdout.split())
    assert decoding < 1.4
    assert encoding < 0.2


def test_decode_file(tmp_path):
    file = tmp_path / "context"
    file.write_bytes(b"".join(encode({"a": 1})[1]))
    assert decode_file("dict", file) == {"a": 1}
