"""How files and folders become values, and what is said of those that can't."""

import io
import json
import os
import sys

import pytest

from rlm_kernel.context import collect
from rlm_kernel.errors import ContextError
from rlm_kernel.files import read_path, read_paths
from rlm_kernel.guest.formats import PIECE_BYTES
from rlm_kernel.guest.image import Image

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20"


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
    text = "a" * (PIECE_BYTES - 1) + "é€" * 10
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


def test_a_table_without_pandas_is_rows_and_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"a": [1, 2]})
    parquet.write_table(table, tmp_path / "table.parquet")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert read_path(tmp_path / "table.parquet").value == [{"a": 1}, {"a": 2}]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ContextError, match="needs pyarrow") as caught:
        read_path(tmp_path / "table.parquet")
    assert "rlm-kernel[readers]" in caught.value.hint


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
        ("b.text", "no file or folder b.text", "did you mean b.txt"),
        ("nowhere/at/all.txt", "no file or folder nowhere/at/all.txt", "exists, nowhere/at does not"),
        ("zzz", "no file or folder zzz", "look into"),
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
