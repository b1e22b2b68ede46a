"""A view of a text answers as the text itself does, piece by piece."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.guest import lazy
from rlm_kernel.guest.describe import describe
from rlm_kernel.guest.encode import encode
from rlm_kernel.guest.lazy import LazyText

ALPHABET = "ab \n\réß中\U0001f600\ud800"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks and windows so small that every text has many edges."""
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 8)
    monkeypatch.setattr(lazy, "WINDOW_CHARS", 7)
    monkeypatch.setattr(lazy, "MATCH_CHARS", 5)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


def view_of(text, folder):
    path = folder / "text"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    view = LazyText(path)
    path.unlink()
    return view


texts = st.text(ALPHABET, max_size=60)
places = st.one_of(st.none(), st.integers(-70, 70))


@given(text=texts, start=places, end=places, step=st.one_of(st.none(), st.sampled_from([-3, -1, 1, 2, 5])))
def test_slices_are_those_of_the_text(text, start, end, step, folder):
    view = view_of(text, folder)
    assert view[start:end:step] == text[start:end:step]
    assert (len(view), str(view), bool(view)) == (len(text), text, bool(text))
    assert [view[at] for at in range(-len(text), len(text))] == list(text + text)


@given(text=texts, part=st.text(ALPHABET, max_size=4), start=places, end=places)
def test_finding_and_counting(text, part, start, end, folder):
    view = view_of(text, folder)
    assert view.find(part, start, end) == text.find(part, start, end)
    assert view.count(part, start, end) == text.count(part, start, end)
    assert (part in view) == (part in text)
    assert view.startswith(part) == text.startswith(part)
    assert view.endswith((part, "a")) == text.endswith((part, "a"))
    assert view == text
    assert view != text + "a"


PATTERNS = [r"", r"a", r"a?", r"(a)|(b)", r"\ba", r"^a", r"(?m)^.", r"a$", r"(?m).$", r"(?<=a)b", r"b(?=.)"]
PATTERNS += [r"a{1,3}", r"[^\n]{2}", r"\Aa", r"b\Z", r"(?i)A", r"中|é"]


@given(text=texts, pattern=st.sampled_from(PATTERNS))
def test_regular_expressions(text, pattern, folder):
    view = view_of(text, folder)
    found = [(each.span(), each.group(), each.groups()) for each in view.finditer(pattern)]
    assert found == [(each.span(), each.group(), each.groups()) for each in re.finditer(pattern, text)]
    assert view.findall(pattern) == re.findall(pattern, text)
    first, expected = view.search(pattern), re.search(pattern, text)
    assert (first and first.span()) == (expected and expected.span())


@given(text=texts)
def test_lines_and_chunks(text, folder):
    view = view_of(text, folder)
    lines = [
        line.removesuffix("\r") if n < text.count("\n") else line for n, line in enumerate(text.split("\n"))
    ]
    assert list(view.lines()) == (lines if lines[-1] else lines[:-1])
    assert "".join(view.lines(keepends=True)) == text
    assert "".join(view.chunks(4)) == text
    assert all(len(chunk) == 4 for chunk in list(view.chunks(4))[:-1])
    overlapping = list(view.chunks(4, overlap=2))
    assert all(later[:2] == earlier[-2:] for earlier, later in itertools.pairwise(overlapping))


def test_a_match_that_is_too_long_says_so(folder):
    view = view_of("b" + "a" * 30, folder)
    with pytest.raises(ValueError, match="more than 5 characters at 1"):
        list(view.finditer("a+"))


def test_offsets_of_groups_are_those_of_the_whole_text(folder):
    match = view_of("é" * 20 + "key=v", folder).search(r"(\w=)(v)(x)?")
    assert (match.start(1), match.end(2), match.span(3), match[2]) == (22, 25, (-1, -1), "v")
    assert "span=(22, 25)" in repr(match)


def test_it_is_honest_about_being_a_view(folder):
    view = view_of("some text " * 9, folder)
    assert not isinstance(view, str)
    assert repr(view).startswith("<LazyText: a view of a text of 90 characters that is not loaded")
    for use, hint in [
        (lambda: view.splitlines, r"no \.splitlines: iterate over \.lines\(\)"),
        (lambda: view.title, "take a slice first"),
        (lambda: view.nonsense, "see repr"),
        (lambda: f"{view}", "put a slice of it there"),
        (lambda: view + "x", "use slices of it"),
        (lambda: "x" + view, "use slices of it"),
        (lambda: list(view), r"iterate over \.lines\(\)"),
        (lambda: {view}, "unhashable"),
        (lambda: view.find(3), "holds text, not int"),
    ]:
        with pytest.raises((AttributeError, TypeError), match=hint):
            use()


def test_it_travels_as_text(folder):
    view = view_of("a\U0001f600b", folder)
    fmt, pieces = encode(view, 4)
    assert (fmt, b"".join(pieces)) == ("text", "a\U0001f600b".encode())
    assert describe(view)["description"].startswith(
        "context: str, 3 characters (about 1 tokens), 1 line\ntext: 'a"
    )


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "bad").write_bytes(b"fine so far \xff")
    with pytest.raises(UnicodeDecodeError):
        LazyText(folder / "bad")
