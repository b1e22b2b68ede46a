"""What a user may hand over, what is refused before anything is spent, and how files become values."""

import hashlib
import io
import json
import os
import pathlib
import sys

import pytest

from rlm_kernel.guest import codec
from rlm_kernel.guest.codec import Decoder, Image
from rlm_kernel.context import Context, check_name, collect, read_path, read_paths
from rlm_kernel.errors import ContextError
from rlm_kernel.events import ContextInfo

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20"


def decoded(context):
    decoder = Decoder(context.format)
    for piece in context.pieces():
        decoder.feed(piece)
    return decoder.finish()


def spool(folder, value, fmt=None, data=None):
    """Write what a kernel would have sent; return the context made of it."""
    found, pieces = codec.encode(value)
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
    assert context.sha256 == hashlib.sha256(b"".join(codec.encode(value)[1])).hexdigest()


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
        (pathlib.Path("missing.txt"), None, "there is no missing.txt"),
    ],
)
def test_collect_refuses(context, contexts, message):
    with pytest.raises(ContextError, match=message) as caught:
        collect(context, contexts)
    assert caught.value.hint


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value", "note"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9\r\n", "café\r\n", ""),
        (b'{"a": 1}', '{"a": 1}', ""),
        (b"caf\xe9", "caf\udce9", "not all UTF-8"),
        (b"\0\1\2", b"\0\1\2", "given as bytes"),
        (PNG, Image(PNG), ""),
    ],
)
def test_a_file(data, value, note, tmp_path):
    (tmp_path / "file.json").write_bytes(data)
    loaded = read_path(tmp_path / "file.json")
    assert loaded.value == value
    assert note in " ".join(loaded.notes)
    assert bool(note) == bool(loaded.notes)
    if isinstance(value, str) and note:
        assert value.encode("utf-8", "surrogateescape") == data


def test_a_file_larger_than_a_piece(tmp_path):
    text = "a" * (codec.PIECE_BYTES - 1) + "é€" * 10
    (tmp_path / "big.txt").write_text(text, "utf-8")
    assert read_path(tmp_path / "big.txt").value == text


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow"])
def test_a_table(kind, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    file = tmp_path / f"table.{kind}"
    (frame.to_parquet if kind == "parquet" else frame.to_feather)(file)
    pd.testing.assert_frame_equal(read_path(file).value, frame)
    assert collect(file)[0].format == "arrow"
    file.write_bytes(b"broken")
    with pytest.raises(ContextError, match=f"table.{kind} can't be read"):
        read_path(file)


def test_a_table_without_pandas_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(ContextError, match="needs pandas and pyarrow") as caught:
        read_path(tmp_path / "table.parquet")
    assert "rlm-kernel[data]" in caught.value.hint


@pytest.fixture
def tree(tmp_path):
    for name, data in {
        "b.txt": b"b",
        "a/x.py": b"x",
        "a/empty.py": b"",
        "a/image.png": PNG,
        "a/data.bin": b"\0" * 10,
        ".git/config": b"secret",
        "node_modules/m/index.js": b"js",
        "a/__pycache__/x.pyc": b"\0",
    }.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    return tmp_path / "tree"


def test_a_folder(tree):
    loaded = read_path(tree)
    assert list(loaded.value.items()) == [("a/empty.py", ""), ("a/x.py", "x"), ("b.txt", "b")]
    assert loaded.notes == (
        "not text, skipped: a/data.bin, a/image.png",
        "folders skipped: .git, __pycache__, node_modules",
    )


def test_a_folder_that_links_to_itself(tree):
    (tree / "a" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "dead").symlink_to(tree / "nowhere")
    (tree / "c.txt").symlink_to(tree / "b.txt")
    loaded = read_path(tree)
    assert list(loaded.value) == ["a/empty.py", "a/x.py", "b.txt", "c.txt"]
    assert "links to folders, not followed: a/loop" in loaded.notes


def test_a_folder_without_texts(tree):
    for name in ("b.txt", "a/x.py", "a/empty.py"):
        (tree / name).unlink()
    with pytest.raises(ContextError, match="no text files in") as caught:
        read_path(tree)
    assert "a/data.bin" in caught.value.hint


def test_several_paths(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert read_paths(["b.txt"]).value == "b"
    assert read_paths(["./b.txt", "b.txt"]).value == "b"
    assert read_paths(["b.txt", "a/image.png", "a"]).value == {
        "b.txt": "b",
        "a/image.png": Image(PNG),
        "a/empty.py": "",
        "a/x.py": "x",
    }
    loaded = read_paths(["a/**/*.*", "b*"])
    assert loaded.value == {"a/empty.py": "", "a/x.py": "x", "b.txt": "b"}
    assert "a/data.bin" in " ".join(loaded.notes)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert read_paths([str(tmp_path / "a[1].txt")]).value == "x"


def test_standard_input(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("aé".encode())))
    assert read_paths(["-"]).value == "aé"
    (tmp_path / "f").write_text("x")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in")))
    assert read_paths([str(tmp_path / "f"), "-"]).value == {(tmp_path / "f").as_posix(): "x", "-": "in"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
def test_a_pipe_is_read_once():
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    try:
        assert read_path(f"/dev/fd/{reading}").value == "from a pipe"
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("b.text", "there is no b.text", "did you mean b.txt"),
        ("nowhere/at/all.txt", "there is no nowhere/at/all.txt", "exists, nowhere/at does not"),
        ("zzz", "there is no zzz", "look into"),
        ("no-*.txt", "no file matches", "quote"),
        ("a/empty.py", "a/empty.py is empty", "something in it"),
        ("self", "can't read self: Too many levels", ""),
    ],
)
def test_missing_and_unreadable(path, message, hint, tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "self").symlink_to("self")
    with pytest.raises(ContextError, match=message.replace("*", r"\*")) as caught:
        read_paths([path])
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
@pytest.mark.parametrize("path", ["closed.txt", "closed", "."])
def test_no_permission(path, tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "closed").mkdir()
    (tree / "closed.txt").write_text("x")
    for name in ("closed", "closed.txt"):
        (tree / name).chmod(0)
    user = os.geteuid()
    tree.chmod(0o755)
    try:
        if user == 0:  # who may read everything
            os.seteuid(65534)
        with pytest.raises(ContextError, match=r"can't read .*closed.*: Permission denied"):
            read_paths([path])
    finally:
        os.seteuid(user)
        (tree / "closed").chmod(0o700)


def test_notes_are_short(tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.bin").write_bytes(b"\0")
    (tmp_path / "a.txt").write_text("x")
    assert json.dumps(read_path(tmp_path).notes) == json.dumps(
        ["not text, skipped: 0.bin, 1.bin, 10.bin and 97 more"]
    )
