"""Slices: whatever is split joins to the same text again, and what is cut from a context is found there."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_kernel.trace.slices import MIN_CHARS, Segment, Slice, Slices, text_sha256


@dataclass(frozen=True)
class Texts:
    """A context of several texts."""

    items: tuple[str, ...]
    name: str = "context"

    def texts(self):
        return ((f"[{number}]", text) for number, text in enumerate(self.items))


def joined(slices: Slices, segments: list[Segment]) -> str:
    return "".join(
        part if isinstance(part, str) else slices.known(part.sha256).text[part.start : part.end]
        for part in segments
    )


def words(seed: int, chars: int) -> str:
    source = random.Random(seed)
    text = " ".join(f"w{source.randrange(10**6)}" for _ in range(chars // 5))
    return text[:chars]


def literal_chars(segments: list[Segment]) -> int:
    return sum(len(part) for part in segments if isinstance(part, str))


# A small alphabet makes texts that repeat themselves, where a match can go wrong in every way.
_pieces = st.lists(
    st.one_of(
        st.text(alphabet="ab\n", max_size=300),
        st.text(alphabet=st.characters(), max_size=40),
        st.builds(
            lambda text, times: text * times, st.text(alphabet="abcé\ud800", max_size=9), st.integers(0, 90)
        ),
    ),
    max_size=6,
).map("".join)


@given(st.lists(_pieces, min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
@example([words(1, 2000)], None)
def test_segments_join_to_the_text(sources, data):
    slices = Slices([Texts(tuple(sources))])
    for _ in range(3):
        if data is None:
            text = "before " + sources[0][100:1500] + " after"
        else:
            cuts = data.draw(
                st.lists(
                    st.tuples(st.sampled_from(sources), st.integers(0, 900), st.integers(0, 900), _pieces),
                    max_size=4,
                )
            )
            text = "".join(source[start : start + length] + other for source, start, length, other in cuts)
        segments = slices.split(text)
        assert joined(slices, segments) == text
        assert all(segments)
        slices.add(text, text_sha256(text))


def test_a_chunk_is_one_slice_and_its_prompt_a_literal():
    text = words(2, 300_000)
    slices = Slices([Texts((text,))])
    start, end = 123_457, 171_113
    segments = slices.split("Count the words below.\n\n" + text[start:end] + "\n\nReply with a number.")
    sha = text_sha256(text)
    assert segments == ["Count the words below.\n\n", Slice(sha, start, end), "\n\nReply with a number."]
    known = slices.known(sha)
    assert (known.context, known.where, known.text) == ("context", "[0]", text)


def test_the_shortest_slice_is_found_wherever_it_stands():
    text = words(3, 20_000)
    for start in range(5000, 5200):
        slices = Slices([Texts((text,))])
        assert any(
            isinstance(part, Slice) for part in slices.split("?" * 40 + text[start : start + MIN_CHARS])
        )


def test_files_packed_under_headings_are_slices_of_each():
    files = tuple(words(seed, 700 + 100 * seed) for seed in range(40))
    slices = Slices([Texts(files)])
    segments = slices.split("".join(f"### file {number}\n{text}\n" for number, text in enumerate(files)))
    found = [part for part in segments if isinstance(part, Slice)]
    assert [(part.sha256, part.start) for part in found] == [(text_sha256(text), 0) for text in files]
    assert literal_chars(segments) < 40 * 16


def test_chunks_smaller_than_the_stride_are_found_in_order():
    text = words(4, 40_000_000 // 4) * 4  # stride of 610 characters
    slices = Slices([Texts((text,))])
    for start in range(0, 100_000, 400):
        segments = slices.split("Summarise:\n" + text[start : start + 400])
        assert literal_chars(segments) == len("Summarise:\n"), start


def test_what_gaps_hide_is_at_most_a_quarter_of_the_new_text():
    known, new = words(5, 400_000), words(6, 100_000)
    slices = Slices([Texts((known,))])
    segments = slices.split(new + known)
    assert literal_chars(segments) <= len(new)
    assert literal_chars(slices.split(new + known[1000:30_000])) <= len(new) * 1.25 + 500


def test_a_text_without_match_takes_few_looks(monkeypatch):
    known, new = words(7, 400_000), words(8, 2_000_000)
    slices = Slices([Texts((known,))])
    slices.split(known)
    looks = 0

    class Counting(dict):
        def get(self, *args):
            nonlocal looks
            looks += 1
            return super().get(*args)

    monkeypatch.setattr(slices, "_index", Counting(slices._index))
    assert slices.split(new) == [new]
    assert looks < 10_000


def test_texts_of_a_million_items_keep_the_index_small():
    slices = Slices([Texts(tuple(words(9, 4000)[start : start + 210] for start in range(200)) * 400)])
    slices.split("x" * MIN_CHARS)
    assert len(slices._index) <= 2 * (1 << 16)


def test_an_added_text_is_known_too():
    slices = Slices()
    text = words(10, 5000)
    sha = text_sha256(text)
    assert slices.split(text) == [text]
    slices.add(text, sha)
    assert slices.split("again: " + text[100:]) == ["again: ", Slice(sha, 100, 5000)]


def test_hash_is_that_of_the_whole_text():
    import hashlib

    text = "é\ud800" * 700_000
    assert text_sha256(text) == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
