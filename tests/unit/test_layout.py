"""Texts in the layouts of CPython's memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.repl.pyodide.layout import LAYOUTS, in_layout, layout


def _pieces(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


@given(st.text(st.characters(codec=None), max_size=40), st.integers(1, 9))
def test_a_text_cut_anywhere_is_laid_out_whole(text, size):
    data = text.encode("utf-8", "surrogatepass")
    name, total = layout(_pieces(data, size))
    laid = b"".join(in_layout(name, _pieces(data, size)))
    assert (laid.decode(name, "surrogatepass"), len(laid)) == (text, total)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "ascii"),
        ("a\x7f", "ascii"),
        ("a\x80", "latin-1"),
        ("a\xff", "latin-1"),
        ("a\u0100", "utf-16-le"),
        ("\udcff", "utf-16-le"),
        ("\uffff", "utf-16-le"),
        ("\U00010000", "utf-32-le"),
    ],
)
def test_the_widest_character_decides(text, expected):
    name, total = layout([text.encode("utf-8", "surrogatepass")])
    assert (name, total) == (expected, len(text) * LAYOUTS[expected])
