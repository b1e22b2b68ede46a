"""Only exact spans of the context are ever verified; what is verified is where it is said to be."""

import string
import tracemalloc

import papers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_kernel import evidence
from rlm_kernel.answer import Answer
from rlm_kernel.context import Context, collect
from rlm_kernel.events import ContextInfo, RunFinished, from_json, to_json
from rlm_kernel.evidence import MAX_QUOTES, Quote, Search
from rlm_kernel.guest import encode
from rlm_kernel.passages import passages

TEXT = (
    "The notice period is 90 days.\n"
    "It begins on the first of the month.\n"
    "Either side may end the contract, in writing.\n"
    "Naïve café rules apply; see § 4: «Fristen».\n"
)
QUESTION = "How long is the notice period of the contract with Ada?"


def search(quotes, *contexts):
    return Search(quotes, lambda: passages(contexts)).run()


def one(quote, value=TEXT):
    (found,) = search([quote], Context.of("context", value))
    return found


def spooled(value, tmp_path):
    """The same value as an encoded file, as contexts from kernels are held."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    fmt, pieces = encode.encode(value)
    path.write_bytes(b"".join(pieces))
    info = ContextInfo(name="context", type="", size=0, unit="", description="")
    return Context.spooled("context", fmt, path, info)


# What is verified -----------------------------------------------------------------------------------


def test_an_exact_span():
    quote = one("  It begins on the first \n")
    assert quote == Quote(
        "It begins on the first", verified=True, context="context", line=2, start=30, end=52
    )
    assert TEXT[quote.start : quote.end] == quote.text
    assert quote.place == "context, line 2"


def test_places_in_nested_values():
    value = {"old": [TEXT, {"deep": ("x", TEXT.upper())}], "new": "The gate is blue."}
    found = search(["The gate is blue", "IT BEGINS ON THE FIRST"], Context.of("docs", value))
    assert [(each.where, each.line, each.path) for each in found] == [
        ('["new"]', 1, None),
        ('["old"][1]["deep"][1]', 2, None),
    ]


def test_places_in_documents(tmp_path):
    (tmp_path / "a.pdf").write_bytes(papers.pdf("Page one.\nIts second line.", "The gate is blue."))
    (tmp_path / "n.ipynb").write_bytes(papers.notebook())
    (tmp_path / "t.csv").write_text("item,price\nwriting desk,120\n")
    found = search(
        ["Its second line.", "The gate is blue.", "of the year", "print('total')", "writing desk,120"],
        *collect(tmp_path),
    )
    assert all(each.verified for each in found)
    assert [each.place for each in found] == [
        "a.pdf, page 1, line 2",
        "a.pdf, page 2, line 1",
        "n.ipynb, cell 1, line 2",
        "n.ipynb, cell 2, line 1",
        "t.csv, line 2",
    ]
    (single,) = search(["The gate is blue."], *collect(tmp_path / "a.pdf"))
    assert (single.path, single.page) == (str(tmp_path / "a.pdf"), 2)


def test_cells_of_a_table():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2], "note": ["all is well", "the pump is broken"]})
    assert one("the pump is broken", frame).where == '["note"].iloc[1]'


@pytest.mark.parametrize(
    "value", [TEXT * 3, [TEXT, 1, None, [TEXT.upper()]], {"a": "x", "b": TEXT}, ("x", TEXT)]
)
def test_a_context_in_a_file_is_searched_alike(value, tmp_path):
    quotes = ["Naïve café rules", "in writing.\nNaïve", "It begins\non the first", "an invented one"]
    in_memory = search(quotes, Context.of("context", value))
    in_file = search(quotes, spooled(value, tmp_path))
    assert in_file == in_memory
    assert [each.verified for each in in_memory] == [True, True, False, False]


def test_a_file_of_many_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_kernel.passages.PIECE_BYTES", 7)
    monkeypatch.setattr(evidence, "_WINDOW", 5)
    text = TEXT * 5
    for value in (Context.of("context", text), spooled(text, tmp_path)):
        for quote in ("first of the month", "«Fristen».\nThe notice", "café rules apply; see § 4"):
            (found,) = search([quote], value)
            assert found.verified
            assert (found.start, found.line) == (text.index(quote), 1 + text[: text.index(quote)].count("\n"))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_span_is_verified_where_it_is(data):
    start = data.draw(st.integers(0, len(TEXT) - 10))
    end = data.draw(st.integers(start + 9, len(TEXT)))
    quote = one(TEXT[start:end])
    if quote.reason != evidence.SHORT:
        assert quote.verified
        assert TEXT[quote.start : quote.end] == quote.text


# What is not ----------------------------------------------------------------------------------------

HOMOGLYPHS = str.maketrans({"a": "\u0430", "e": "\u0435", "o": "\u043e", "i": "\u0456", " ": "\u00a0"})


@st.composite
def forgeries(draw):
    start = draw(st.integers(0, len(TEXT) - 30))
    span = TEXT[start : start + draw(st.integers(20, 60))]
    kind = draw(st.integers(0, 8))
    if kind == 0:  # one character changed
        at = draw(st.integers(0, len(span) - 1))
        return span[:at] + draw(st.sampled_from(string.printable)) + span[at + 1 :]
    if kind == 1:  # one left out
        at = draw(st.integers(1, len(span) - 2))
        return span[:at] + span[at + 1 :]
    if kind == 2:  # one put in
        at = draw(st.integers(1, len(span) - 1))
        return span[:at] + draw(st.characters(codec="utf-8")) + span[at:]
    if kind == 3:
        return span.translate(HOMOGLYPHS)
    if kind == 4:  # joined from two places
        other = draw(st.integers(0, len(TEXT) - 12))
        return span[:12] + TEXT[other : other + 12]
    if kind == 5:
        return draw(st.sampled_from(["", " ", "\n\t ", "\u00a0" * 9, "." * 20, "90", "days."]))
    if kind == 6:
        return QUESTION[draw(st.integers(0, 20)) :]
    if kind == 7:
        return draw(st.sampled_from([span.upper(), span.swapcase(), f'"{span}"', span + "...", span[::-1]]))
    return draw(st.text(min_size=8, max_size=40))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(forgeries(), min_size=1, max_size=20))
def test_no_forgery_is_verified(quotes):
    for quote in search(quotes, Context.of("context", TEXT)):
        # A forgery may happen to be true: a character changed into itself, two places side by side.
        true = quote.text in TEXT and len(quote.text) >= 8 and any(map(str.isalnum, quote.text))
        assert quote.verified == true
        assert bool(quote.reason) != quote.verified
        if quote.verified:
            assert TEXT[quote.start : quote.end] == quote.text


def test_a_hundred_forgeries():
    forged = [TEXT[at : at + 30].replace(TEXT[at + 14], "\N{SNOWMAN}", 1) for at in range(100)]
    found = search(forged, Context.of("context", TEXT))
    assert len(found) == len({each.strip() for each in forged}) >= 90
    assert not any(each.verified or each.line for each in found)


@pytest.mark.parametrize(
    ("quote", "reason"),
    [
        ("", evidence.EMPTY),
        (" \n ", evidence.EMPTY),
        ("90 days", evidence.SHORT),
        ("; --- ...", evidence.WORDLESS),
        ("x" * 20_001, evidence.LONG),
        ("The notice period is 91 days.", evidence.NOT_FOUND),
        (QUESTION, evidence.NOT_FOUND),
        ("The notice period is 90 days. It begins", evidence.LOOSE),
        ("The notice\u00a0period is 90 days", evidence.LOOSE),
    ],
)
def test_reasons(quote, reason):
    found = one(quote)
    assert (found.verified, found.reason) == (False, reason)
    assert (found.line is not None) == (reason == evidence.LOOSE)


def test_a_loose_match_tells_where_it_nearly_stands():
    found = one("days. It \n\n begins on", "x\n" + TEXT)
    assert TEXT[found.start - 2 : found.end - 2] == "days.\nIt begins on"
    assert found.line == 2


def test_texts_are_not_joined():
    value = {"a": "The gate is red", "b": " and blue today"}
    assert not one("The gate is red and blue today", value).verified
    assert not one("The gate is red and blue today", list(value.values())).verified


def test_keys_and_descriptions_are_no_evidence():
    assert not one("a key of the context", {"a key of the context": "text"}).verified
    assert not one("context: str, 4 characters", "text").verified


def test_other_contexts_do_not_count():
    child = Context.of("context", "only the child has seen this")
    assert search(["only the child has seen this"], child)[0].verified
    assert not search(["only the child has seen this"], Context.of("context", TEXT))[0].verified


def test_a_file_that_is_gone_or_broken_verifies_nothing(tmp_path):
    context = spooled(TEXT, tmp_path)
    context.file.write_bytes(b"\xff\xfe broken")
    assert not search(["The notice period is 90 days."], context)[0].verified
    context.release()
    assert not search(["The notice period is 90 days."], context)[0].verified


def test_quotes_count_once_and_up_to_a_limit():
    asked = Search(["The notice period"] * 2 + [f"number {n} is invented" for n in range(150)], tuple)
    assert len(asked.run()) == MAX_QUOTES
    assert asked.left_out == 51


# How it is searched ---------------------------------------------------------------------------------


def test_a_large_text_is_not_copied_and_the_loop_stays_free(monkeypatch):
    monkeypatch.setattr(evidence, "_WINDOW", 200_000)
    text = "lorem ipsum dolor sit amet\n" * 200_000
    context = Context.of("context", text)
    quotes = ["dolor sit amet\nlorem", *(f"number {n} is invented" for n in range(5))]
    asked = Search(quotes, lambda: passages([context]))
    tracemalloc.start()
    steps = sum(1 for _ in asked.steps())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert steps >= 20
    assert peak < len(text)
    assert [each.verified for each in asked.quotes] == [True, *[False] * 5]


def test_words_that_repeat_forever_take_no_longer():
    text = "a " * 500_000
    asked = [f"{'a ' * n}b" for n in range(50, 120)]
    assert not any(each.verified for each in search(asked, Context.of("context", text)))


# How it travels -------------------------------------------------------------------------------------


def test_evidence_survives_json():
    quotes = (one("The notice period"), one("an invented one"))
    event = RunFinished(run="r1", status="answered", text="90", evidence=quotes)
    assert from_json(to_json(event)) == event
    assert to_json(event)["evidence"][0]["line"] == 1
    assert Answer("answered", "90", evidence=quotes).to_json()["evidence"] == to_json(event)["evidence"]
    assert evidence.from_json({**quotes[0].to_json(), "later": 1}) == quotes[0]
