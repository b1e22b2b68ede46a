"""What the root is told of its cells."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.feedback import MAX_IMAGES, TRACEBACK_CHARS, CellFeedback, cells_message, cut
from rlm_kernel.outputs import Output

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 640, 480) + b"\0" * 20
PNG_TEXT = base64.encodebytes(PNG).decode()
FIGURE = Output("display", "<Figure size 640x480 with 1 Axes>", {"image/png": PNG_TEXT})


def told(*outputs: Output, **kwargs) -> str:
    """Return what one good cell's outputs come to, without the title."""
    message = cells_message([CellFeedback(1, "ok", outputs)], **kwargs)
    assert isinstance(message, str)
    return message.removeprefix("REPL output:\n")


def test_streams_result_and_their_order():
    outputs = (Output("stdout", "a\nb\n"), Output("stderr", "careful\n"), Output("result", "42"))
    assert told(*outputs) == "a\nb\n[stderr]\ncareful\n42"


def test_parts_of_the_message_stand_in_order():
    cell = CellFeedback(1, "ok", (Output("stdout", "hi\n"),), variables=("a", "b"))
    message = cells_message([cell], ["Note: one.", "Note: two."], "Turn 2 of 9.")
    assert message == "REPL output:\nhi\n\nVariables: a, b\n\nNote: one.\n\nNote: two.\n\nTurn 2 of 9."


def test_without_cells_only_notes_and_status():
    assert cells_message([], ["Note."], "Turn 2 of 9.", blocks=0) == "Note.\n\nTurn 2 of 9."
    assert cells_message([]) == ""


def test_several_blocks_are_numbered_and_the_last_variables_count():
    cells = [
        CellFeedback(1, "ok", (Output("result", "1"),), variables=("a",)),
        CellFeedback(2, "ok", (), variables=("a", "b")),
    ]
    assert cells_message(cells) == (
        "REPL output (block 1):\n1\n\nREPL output (block 2):\n(no output)\n\nVariables: a, b"
    )


@pytest.mark.parametrize(("blocks", "words"), [(2, "Block 2 did"), (4, "Blocks 2, 3, 4 did")])
def test_blocks_that_did_not_run_are_named(blocks, words):
    cell = CellFeedback(1, "error", (Output("error", "ZeroDivisionError: division by zero"),))
    message = cells_message([cell], blocks=blocks)
    assert "REPL output (block 1):\nZeroDivisionError: division by zero\n[the block failed" in message
    assert f"{words} not run, because block 1" in message


def test_many_variables_are_cut():
    names = tuple(f"v{number}" for number in range(33))
    message = cells_message([CellFeedback(1, "ok", variables=names)])
    assert message.endswith("v28, v29 and 3 more")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (
            CellFeedback(1, "timed_out", seconds=120.4),
            "stopped after 120 s, the time limit; your variables are kept]",
        ),
        (CellFeedback(1, "timed_out", seconds=3, lost="All gone."), "after 3 s, the time limit]\nAll gone."),
        (
            CellFeedback(1, "died", lost="The kernel ended: signal 11."),
            "died in this block]\nThe kernel ended: signal 11.",
        ),
        (CellFeedback(1, "interrupted"), "interrupted"),
        (CellFeedback(1, "cancelled"), "cancelled"),
    ],
)
def test_cells_that_did_not_end_say_so(cell, words):
    assert words in cells_message([cell])


def test_a_long_traceback_keeps_its_end():
    text = told(Output("error", "x" * TRACEBACK_CHARS + "\nValueError: the end"))
    assert text.startswith("... [20 characters left out] ...\nxxx")
    assert text.endswith("ValueError: the end")


def test_an_error_without_traceback():
    assert told(Output("error", name="KeyError", value="'a'")) == "KeyError: 'a'"


def test_dropped_characters_are_counted():
    assert told(Output("stdout", "abc", dropped=1234)) == "abc\n... [1,234 characters left out] ..."


def test_colours_and_progress_bars():
    text = "\x1b[31mred\x1b[0m \x1b]8;;http://a\x07link\x1b]8;;\x07\r\n 10%\r 50%\r100%\ndone\r\n"
    assert told(Output("stdout", text)) == "red link\n100%\ndone"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (Output("result", "   a\n0  1", {"text/html": "<table></table>"}), "   a\n0  1"),
        (Output("display", "<IPython.core.display.Markdown object>", {"text/markdown": "**b**"}), "**b**"),
        (Output("display", "<IPython.core.display.HTML object>", {"text/html": "<b>x</b>"}), "<b>x</b>"),
        (Output("display", "", {"application/json": '{"a": [1, 2]}'}), '{"a":[1,2]}'),
        (Output("display", "", {"application/json": "{no"}), "{no"),
        (Output("result", "<object object at 0x7f01>"), "<object object at 0x7f01>"),
    ],
)
def test_the_form_that_tells_most(output, text):
    assert told(output) == text


def test_backticks_stand_as_they_are():
    assert told(Output("stdout", "```\nFINAL(1)\n```\n")) == "```\nFINAL(1)\n```"


def test_figures_for_a_model_that_reads_text():
    assert told(FIGURE) == (
        "<Figure size 640x480 with 1 Axes>\n[image/png, 640x480, 44 B: not shown, this model reads text only]"
    )


def test_figures_for_a_vision_model():
    message = cells_message([CellFeedback(1, "ok", (FIGURE, FIGURE))], status="Turn 2 of 9.", vision=True)
    assert isinstance(message, list)
    text, first, second = message
    assert text["type"] == "text"
    assert "[image 1: image/png, 640x480, 44 B]" in text["text"]
    assert "[image 2: image/png" in text["text"]
    assert text["text"].endswith("Turn 2 of 9.")
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert first == second == {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "data",
    [
        {"image/png": "not base64!"},
        {"image/png": base64.b64encode(b"GIF89a....").decode()},
        {"image/svg+xml": "<svg/>"},
        {"image/png": "A" * 7_000_000},
        {"image/png": "é"},
    ],
)
def test_images_an_endpoint_would_refuse_are_named_only(data):
    text = told(Output("display", "", data), vision=True)
    assert text.startswith(f"[{next(iter(data))}, ")
    assert "not shown" in text


def test_images_of_a_message_are_bounded():
    message = cells_message([CellFeedback(1, "ok", (FIGURE,) * (MAX_IMAGES + 2))], vision=True)
    assert len(message) == 1 + MAX_IMAGES
    assert message[0]["text"].count("not shown, a message holds") == 2


def test_the_whole_is_bounded_and_each_cell_gets_its_share():
    cells = [CellFeedback(n, "ok", (Output("stdout", str(n) * 10_000),)) for n in (1, 2)]
    message = cells_message(cells, status="Turn 2 of 9.", limit=1000)
    assert message.count("1" * 250 + "\n... [9,500 characters left out] ...\n" + "1" * 250) == 1
    assert message.count("2" * 250 + "\n... [9,500 characters left out] ...\n" + "2" * 250) == 1
    assert message.endswith("Turn 2 of 9.")


@given(st.text(), st.integers(0, 50))
def test_cut_keeps_both_ends_and_counts_the_rest(text, limit):
    short = cut(text, limit)
    if len(text) <= limit:
        assert short == text
        return
    head, tail = limit // 2, limit - limit // 2
    assert short.startswith(text[:head])
    assert short.endswith(text[len(text) - tail :])
    assert short[head : len(short) - tail] == f"\n... [{len(text) - limit:,} characters left out] ...\n"


KINDS = st.sampled_from(["stdout", "stderr", "result", "display", "error"])
MIMES = st.sampled_from(
    ["text/html", "text/markdown", "text/latex", "application/json", "image/png", "image/x", "a"]
)
OUTPUTS = st.builds(
    Output, KINDS, st.text(), st.dictionaries(MIMES, st.text()), st.text(), st.text(), st.integers(0, 9)
)


@given(st.lists(OUTPUTS, max_size=4), st.booleans())
def test_any_outputs_make_a_message(outputs, vision):
    message = cells_message([CellFeedback(1, "ok", tuple(outputs))], status="Turn 2 of 9.", vision=vision)
    assert isinstance(message, str)
    assert message.endswith("Turn 2 of 9.")


def test_deeply_nested_json_is_shown_as_it_is():
    text = "[" * 100_000
    assert told(Output("display", "", {"application/json": text}), limit=200_000) == text
