"""Descriptions are short, true, safe in a prompt, and never raise."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.guest import describe as module
from rlm_kernel.guest.describe import MAX_CHARS, describe
from rlm_kernel.guest.image import Image

SOURCE = pathlib.Path(module.__file__)


class BadRepr:
    def __repr__(self):
        raise ValueError("no")


class BadLen(list):
    def __len__(self):
        raise ValueError("no")


def test_text():
    found = describe("one\ntwo\n" * 100_000)
    assert (found["type"], found["size"], found["unit"]) == ("str", 800_000, "chars")
    lines = found["description"].split("\n")
    assert lines[0] == "context: str, 800,000 characters (about 200.0k tokens), 200,000 lines"
    assert lines[1].startswith("starts: 'one\\ntwo\\n")
    assert lines[2].endswith("one\\ntwo\\n'")
    assert len(lines) == 3


def test_short_text_is_shown_whole():
    assert describe("a 'b'", "old")["description"] == (
        "old: str, 5 characters (about 1 tokens), 1 line\ntext: \"a 'b'\""
    )


def test_a_dict_of_files():
    found = describe({f"src/{number}.py": "x" * number for number in range(3000)})
    assert (found["type"], found["size"], found["unit"]) == ("dict[str, str]", 3000, "items")
    assert "3,000 keys, 4,498,500 characters (about 1.1M tokens) in all" in found["description"]
    assert (
        "length of values: shortest 0, median 1,498, longest 2,997 (of 1,000 sampled)" in found["description"]
    )
    assert "'src/0.py': str of 0 characters" in found["description"]
    assert "and 2,992 more keys" in found["description"]


def test_records():
    found = describe([{"id": 1, "tags": ["x"], "meta": {"a": {"b": 1}}}, {"id": 2}])
    assert found["type"] == "list[dict]"
    assert (
        "first item: {'id': int, 'tags': list of 1, first: str of 1 characters, 'meta': {'a': dict of 1}}"
        in found["description"]
    )


def test_mixed_types():
    assert describe([1, "a", 2, None, 3.0])["type"] == "list[int | str | NoneType | ...]"
    assert describe({1: b""})["type"] == "dict[int, bytes]"


def test_a_huge_list_is_sampled_and_says_so():
    found = describe(["abc"] * 3_000_000)
    assert "about 9,000,000 characters" in found["description"]
    assert "(of 1,000 sampled)" in found["description"]


def test_frame():
    pd = pytest.importorskip("pandas")
    found = describe(pd.DataFrame({"a": range(5), "b": ["```", "x\ny", "z" * 500, "", ""]}))
    assert (found["type"], found["size"], found["unit"]) == ("DataFrame", 5, "rows")
    assert "DataFrame, 5 rows x 2 columns\ncolumns: 'a' int64, 'b' " in found["description"]
    assert len(found["description"].split("\n")) == 7


def test_image_and_bytes():
    image = Image(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20")
    assert describe(image)["description"] == "context: Image, image/png, 16 x 32 pixels, 24 bytes"
    assert describe(b"%PDF-1.7\0")["description"] == "context: bytes, 9 bytes\nstarts: b'%PDF-1.7\\x00'"


@pytest.mark.parametrize(
    "value",
    [
        BadRepr(),
        [BadRepr()],
        BadLen(),
        [BadLen()],
        {BadRepr(): BadRepr()},
        pytest.param(10**100_000, id="a huge int"),
        {"k" * 1_000_000: "v" * 1_000_000},
        {n: n for n in range(1_000_000)},
        [[[[[[["deep"] * 50] * 50] * 50]]]],
        ["\x1b[31m```" * 1000] * 1000,
        {f"```{n}\x00" * 20: {f"```{m}": "\ud800" for m in range(100)} for n in range(100)},
        None,
        object,
    ],
)
def test_anything_is_described_within_bounds(value):
    check(describe(value))


nested = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner) | st.tuples(inner),
)


@settings(max_examples=150)
@given(value=nested, preview=st.integers(0, 3000))
def test_any_nested_value(value, preview):
    check(describe(value, preview_chars=preview))


def check(found):
    assert set(found) == {"type", "size", "unit", "description"}
    text = found["description"]
    assert len(text) <= MAX_CHARS
    assert "```" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    assert type(found["size"]) is int


def test_failures_are_named():
    assert "repr failed: ValueError" in describe([BadRepr()])["description"]
    assert describe(BadLen())["description"] == "context: BadLen, which could not be looked into (ValueError)"


def test_source_runs_alone():
    ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 9))
    code = f"exec(compile(open({str(SOURCE)!r}).read(), 'd', 'exec')); print(describe([1])['type'])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "list[int]\n"
