"""A value comes back as it went, in bounded memory, by sources that run anywhere."""

import ast
import datetime
import decimal
import enum
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travel import any_text, png, receive, same, send, values

import rlm_kernel
from rlm_kernel.guest import formats
from rlm_kernel.guest.decode import Decoder
from rlm_kernel.guest.encode import check, encode
from rlm_kernel.guest.image import Image

GUEST = pathlib.Path(formats.__file__).parent


@given(value=values, piece_bytes=st.integers(1, 50))
def test_round_trip(value, piece_bytes):
    check(value)
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


def test_pillow_images_travel_as_png():
    pillow = pytest.importorskip("PIL.Image")
    fmt, found = send(pillow.new("RGB", (4, 5)))
    assert (fmt, found.mime, found.width, found.height) == ("image", "image/png", 4, 5)
    assert send({"page": pillow.new("L", (4, 5))})[1]["page"].width == 4


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


def test_records_of_pandas_travel():
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    value = [
        {"t": pd.Timestamp("2026-01-01"), "none": pd.NaT, "na": pd.NA, "n": np.int64(3), "f": np.float32(0.5)}
    ]
    found = send(value)[1]
    assert found == [{"t": datetime.datetime(2026, 1, 1), "none": None, "na": None, "n": 3, "f": 0.5}]
    assert type(found[0]["n"]) is int


@pytest.mark.parametrize("path", sorted(GUEST.glob("*.py")), ids=lambda path: path.name)
def test_source_is_python_3_9(path):
    ast.parse(path.read_text("utf-8"), feature_version=(3, 9))


ALONE = """
import sys, types
from pathlib import Path
package = sys.modules["rlm_guest"] = types.ModuleType("rlm_guest")
package.__path__ = []
for name in ("formats", "image", "lazy", "encode", "decode"):
    module = types.ModuleType("rlm_guest." + name)
    module.__package__ = "rlm_guest"
    sys.modules[module.__name__] = module
    source = Path(sys.argv[1], name + ".py").read_text("utf-8")
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
fmt, pieces = sys.modules["rlm_guest.encode"].encode({"a": [1, (2,)]})
decoder = sys.modules["rlm_guest.decode"].Decoder(fmt)
for piece in pieces: decoder.feed(piece)
assert decoder.finish() == {"a": [1, (2,)]}
loaded = {name.partition(".")[0] for name in sys.modules}
assert loaded <= sys.stdlib_module_names | {"rlm_guest", "__main__"}
"""


def test_source_runs_alone():
    subprocess.run([sys.executable, "-I", "-S", "-c", ALONE, str(GUEST)], check=True)


MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[3])
import rlm_kernel
from rlm_kernel.guest.decode import decode_file
from rlm_kernel.guest.encode import encode
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
value = decode_file(sys.argv[1], sys.argv[2])
after = peak()
for piece in encode(value)[1]:
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
