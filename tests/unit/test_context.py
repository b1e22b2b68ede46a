"""What a user may hand over, and what is refused before anything is spent."""

import hashlib
import pathlib
import sys

import pytest

from rlm_kernel.context import Context, check_name, collect
from rlm_kernel.errors import ContextError
from rlm_kernel.events import ContextInfo
from rlm_kernel.guest.decode import Decoder
from rlm_kernel.guest.encode import encode


def decoded(context):
    decoder = Decoder(context.format)
    for piece in context.pieces():
        decoder.feed(piece)
    return decoder.finish()


def spool(folder, value, fmt=None, data=None):
    """Write what a kernel would have sent; return the context made of it."""
    found, pieces = encode(value)
    file = folder / "up-1"
    file.write_bytes(b"".join(pieces) if data is None else data)
    info = ContextInfo(name="x", type="str", size=3, unit="chars", description="d" * 100_000, path="/etc")
    return Context.spooled("context", fmt or found, file, info)


# --- contexts of values ---------------------------------------------------------------------------------


def test_value_is_kept_by_reference_and_encoded_on_demand():
    value = {"a": ["b", ("c",)]}
    context = Context.of("docs", value)
    assert context.value is value
    assert context.sha256 is None
    assert decoded(context) == value
    assert context.sha256 == hashlib.sha256(b"".join(encode(value)[1])).hexdigest()


def test_digest_does_not_depend_on_how_it_was_read():
    text = "é" * 10_000
    one, other = Context.of("a", text), Context.of("b", text)
    assert len(list(one.pieces(100))) == 200
    assert one.sha256 == other.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_an_unfinished_reading_leaves_no_digest():
    context = Context.of("a", "x" * 100)
    next(context.pieces(10))
    assert context.sha256 is None
    assert context.info().sha256 is None


def test_info_is_what_the_root_model_is_told():
    context = Context.of("old", "a\nb\n", path="notes.txt", notes=["not text, skipped: x.bin"])
    info = context.info()
    assert (info.name, info.type, info.size, info.unit, info.path) == ("old", "str", 4, "chars", "notes.txt")
    assert info.description.startswith("old: str, 4 characters")
    assert info.description.endswith("Not everything is in it: not text, skipped: x.bin")
    context.digest()
    assert context.info().sha256 == context.sha256


@pytest.mark.parametrize(
    ("value", "size"), [("abc", 3), ("é", None), (b"abc", 3), ([1], None), (memoryview(b"ab"), 2)]
)
def test_size_hint(value, size):
    assert Context.of("a", value).size_bytes == size


def test_texts_are_found_two_levels_deep():
    value = {"a.py": "one", 'q"': ["two", 3], 5: {"x": "three", "y": ["too deep"]}}
    assert list(Context.of("a", value).texts()) == [
        ('["a.py"]', "one"),
        ('["q\\""][0]', "two"),
        ('[5]["x"]', "three"),
    ]
    for where, text in Context.of("a", value).texts():
        assert eval(f"value{where}") == text
    assert list(Context.of("a", "whole").texts()) == [("", "whole")]
    assert list(Context.of("a", b"bytes").texts()) == []


class Custom:
    pass


@pytest.mark.parametrize("value", [None, "", b"", bytearray(), [], {}, (), set()])
def test_empty_is_refused(value):
    with pytest.raises(ContextError, match="context is empty") as caught:
        Context.of("context", value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "message"),
    [(Custom(), "docs is a Custom"), ({"a": [Custom()]}, r'docs\["a"\]\[0\] is a Custom')],
)
def test_what_cannot_travel_is_refused(value, message):
    with pytest.raises(ContextError, match=message) as caught:
        Context.of("docs", value)
    assert caught.value.hint


def test_an_empty_frame_is_refused():
    pd = pytest.importorskip("pandas")
    with pytest.raises(ContextError, match="empty"):
        Context.of("context", pd.DataFrame({"a": []}))


def test_a_frame_without_pyarrow_names_the_extra(monkeypatch):
    pd = pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ContextError, match="pyarrow") as caught:
        Context.of("context", pd.DataFrame({"a": [1]}))
    assert "rlm-kernel[data]" in caught.value.hint


def test_a_value_spoilt_during_the_run():
    value = ["a"]
    context = Context.of("context", value)
    value.append(Custom())
    with pytest.raises(ContextError, match=r"context\[1\] is a Custom"):
        list(context.pieces())


@pytest.mark.parametrize(
    "name",
    [
        "2x",
        "a b",
        "",
        "class",
        "answer",
        "FINAL",
        "allm_query_batched",
        "arecursive_lm",
        "_x",
        "In",
        "print",
        3,
    ],
)
def test_names_that_are_refused(name):
    with pytest.raises(ContextError, match="can't be the name of a context") as caught:
        check_name(name)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["context", "old", "Vertrag_ä", "query"])
def test_names_that_are_taken(name):
    check_name(name)


# --- contexts from kernels ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["text \ud800", {"a": ["b"], "c": "d"}, ["x", {"y": "z"}], b"abc", (1, 2)])
def test_spooled(value, tmp_path):
    context = spool(tmp_path, value)
    assert context.value == value
    assert list(context.texts()) == list(Context.of("same", value).texts())
    assert context.digest() == Context.of("same", value).digest()
    assert context.size_bytes == context.file.stat().st_size


def test_spooled_texts_count_across_lines(tmp_path):
    value = [f"{number} " + "x" * 1000 for number in range(3000)]
    context = spool(tmp_path, value)
    assert list(context.texts()) == [(f"[{number}]", text) for number, text in enumerate(value)]


def test_description_from_a_kernel_is_cut(tmp_path):
    info = spool(tmp_path, "abc").info()
    assert (info.name, info.path, len(info.description)) == ("context", None, 4000)


def test_release_deletes_the_file(tmp_path):
    context = spool(tmp_path, "abc")
    context.release()
    context.release()
    assert not context.file.exists()
    assert context.size_bytes is None
    assert list(context.texts()) == []
    with pytest.raises(ContextError, match="can't read"):
        list(context.pieces())
    with pytest.raises(ContextError, match="can't read"):
        _ = context.value
    Context.of("a", "b").release()


def test_a_line_too_long_to_be_decoded_here_is_left(tmp_path):
    context = spool(tmp_path, ["a", "x" * (8 * 1024 * 1024 + 1), "b"])
    assert list(context.texts()) == [("[0]", "a")]


@pytest.mark.parametrize(("fmt", "data"), [("dict", b'[["a","b"]]\n[[1'), ("text", b"\xff"), ("list", b"9")])
def test_malformed_bytes_from_a_kernel(fmt, data, tmp_path):
    context = spool(tmp_path, "x", fmt, data)
    with pytest.raises(ContextError, match="came from a kernel"):
        _ = context.value
    assert list(context.texts()) in ([], [('["a"]', "b")])


def test_unknown_format_from_a_kernel(tmp_path):
    with pytest.raises(ContextError, match="unknown format 'pickle'"):
        spool(tmp_path, "x", "pickle")


def test_frames_from_a_kernel_are_handed_on_but_not_decoded(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1]})
    context = spool(tmp_path, frame)
    with pytest.raises(ContextError, match="DataFrame"):
        _ = context.value
    pd.testing.assert_frame_equal(decoded(context), frame)


# --- what users pass ------------------------------------------------------------------------------------


def test_collect(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    assert collect() == ()
    assert [(each.name, each.value) for each in collect("x", {"old": 1, "new": tmp_path / "a.txt"})] == [
        ("context", "x"),
        ("old", 1),
        ("new", "one"),
    ]
    (several,) = collect([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert list(several.value.values()) == ["one", "two"]
    assert collect({"old": "a"})[0].value == {"old": "a"}
    assert collect(tmp_path)[0].path == str(tmp_path)


@pytest.mark.parametrize(
    ("context", "contexts", "message"),
    [
        ("", None, "empty"),
        (None, {"answer": "x"}, "'answer' can't be"),
        (None, ["x"], "dict of name -> value"),
        ("x", {"context": "y"}, "two contexts"),
        (pathlib.Path("missing.txt"), None, "no file or folder missing.txt"),
    ],
)
def test_collect_refuses(context, contexts, message):
    with pytest.raises(ContextError, match=message) as caught:
        collect(context, contexts)
    assert caught.value.hint
